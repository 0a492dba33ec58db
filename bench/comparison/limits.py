"""The limits that the goals name: what disk, memory and arithmetic would allow.

M = budget - KV cache - overhead (3 %, at least 150 MB; below 1 GB: 12 MB).
Dense: reads = weight bytes - M. Experts: reads = what Belady's optimum with M, less the part that
every token uses, would miss on the recorded routing. Limit = 1 / max(reads / fio's bandwidth in the
same run, computing time in memory). Nothing here asks an engine what it held. Of a sparse model, which
need not read all weights, no limit is known."""

MB, GB = 1_000_000, 1_000_000_000


def overhead(budget):
    return max(budget * 3 // 100, 150 * MB) if budget >= GB else 12 * MB


def held_bytes(budget, kv_bytes):
    """Bytes of weights that a budget could hold."""
    return max(budget - kv_bytes - overhead(budget), 0)


def expert_slots(held, fixed_bytes, expert_bytes):
    """Experts that fit beside what every token uses."""
    return max(held - fixed_bytes, 0) // expert_bytes if expert_bytes else 0


def reads_per_pass(weights, held, misses=None, experts_in_batch=None):
    """Bytes that one pass must read: a token of decode, or a prompt.

    weights  {"pass_bytes" (dense: all; experts: a token's), "fixed_bytes", "expert_bytes"}
    misses   experts that Belady's optimum misses per token, or None
    experts_in_batch  experts that a prompt uses in all layers together, or None"""
    if not weights.get("expert_bytes"):
        return max(weights["pass_bytes"] - held, 0)
    missing_fixed = max(weights["fixed_bytes"] - held, 0)
    if experts_in_batch is not None:
        return max(weights["fixed_bytes"] + experts_in_batch * weights["expert_bytes"] - held, 0)
    if misses is None:
        return None
    return missing_fixed + misses * weights["expert_bytes"]


def limit_seconds(reads, disk, compute_seconds):
    """The least time of a pass, and what sets it: "disk" or "compute"; None where unknown."""
    times = {}
    if reads and disk:
        times["disk"] = reads / disk
    if compute_seconds:
        times["compute"] = compute_seconds
    if reads is None or not times:
        return None, None
    what = max(times, key=times.get)
    return times[what], what


def median(values):
    values = sorted(v for v in values if v is not None)
    if not values:
        return None
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def in_memory_seconds(results, result, speed_of):
    """Seconds that one pass takes our engine in memory: of the same model, and for a prompt of
    the same length; None where that was not measured."""
    for other in results:
        if other.get("limit_bytes") or other.get("model") != result.get("model"):
            continue
        if other["kind"] != result["kind"]:
            continue
        speed = speed_of(other)
        if not speed:
            continue
        if result["kind"] == "decode":
            return 1 / speed
        if other["tokens"] == result["tokens"]:
            return result["tokens"] / speed
    return None


def limit_of(result, results, speed_of):
    """{"tokens_per_second", "by", "reads", "disk", "compute_seconds"} under a memory limit;
    {"memory_share"} or {"int8_share"} in memory; {} where something is missing.

    speed_of(result)  our tokens per second of a result, or None"""
    weights = result.get("weights")
    if not weights or result.get("sparse"):
        return {}
    speed = speed_of(result)
    if not result.get("limit_bytes"):
        bandwidth = median(result.get("memory_bytes_per_second", []))
        peak = median(result.get("int8_operations_per_second", []))
        if result["kind"] == "decode" and bandwidth and speed:
            return {"memory_share": speed * weights["pass_bytes"] / bandwidth}
        if result["kind"] == "prefill" and peak and speed:
            return {"int8_share": speed * weights["prompt_operations"] / peak}
        return {}
    held = held_bytes(result["limit_bytes"], weights["kv_bytes"])
    routing = result.get("routing") or {}
    if result["kind"] == "decode":
        reads = reads_per_pass(weights, held, misses=routing.get("belady_misses"))
    elif weights.get("expert_bytes") and routing.get("experts_in_batch") is None:
        reads = None
    else:
        reads = reads_per_pass(weights, held, experts_in_batch=routing.get("experts_in_batch"))
    disk = median(result.get("disk_bytes_per_second", []))
    compute = in_memory_seconds(results, result, speed_of)
    seconds, by = limit_seconds(reads, disk, compute)
    found = {"held": held, "reads": reads, "disk": disk, "compute_seconds": compute}
    if seconds:
        tokens = result["tokens"] if result["kind"] == "prefill" else 1
        found.update({"tokens_per_second": tokens / seconds, "by": by})
    return found
