"""From records to medians, from several case files to one, and to the Markdown table."""
import json

from . import cases, limits, models, texts
from .results import machine_name

OURS = "powerinfer2"
median = limits.median


def percentile(values, share):
    """The value that `share` of all stay at or below (nearest rank)."""
    values = sorted(values)
    if not values:
        return None
    rank = -(-len(values) * share // 100)
    return values[max(int(rank), 1) - 1]


def summarise(records):
    """One engine's records of one test."""
    good = [r for r in records if r["outcome"] == "ok"]
    row = {"runs": len(good), "outcomes": sorted({r["outcome"] for r in records}),
           "tokens_per_second": median([r["tokens_per_second"] for r in good]),
           "peak_bytes": max((r.get("peak") or r.get("max_rss") or 0 for r in records), default=0)}
    for key in ("bytes_per_token", "hit_rate", "expert_hit_rate", "predicted_ts",
                "process_bytes_read"):
        row[key] = median([r.get(key) for r in good])
    times = [value for r in good for value in r.get("token_ms", [])]
    row["token_ms"] = times
    return row


def speed_of(result, engine=OURS):
    records = result["engines"].get(engine, {}).get("records", [])
    return summarise(records)["tokens_per_second"] if records else None


def family_of(name):
    return name.split(" ")[0].rstrip(",")


def best_of_family(result, family):
    """Name of a family's fastest engine in one test; None where none ran."""
    speeds = {name: speed_of(result, name) for name in result["engines"]
              if family_of(name) == family}
    speeds = {name: speed for name, speed in speeds.items() if speed}
    return max(speeds, key=speeds.get) if speeds else None


# ---- several files ----

LISTS = ("disk_bytes_per_second", "memory_bytes_per_second", "int8_operations_per_second",
         "token_ms")


def join_results(first, second):
    """Two measurements of the same test, runs side by side."""
    for name, engine in second["engines"].items():
        first["engines"].setdefault(name, {"records": []})["records"] += engine["records"]
    for key in LISTS:
        if second.get(key):
            first[key] = first.get(key, []) + second[key]
    for key in ("screening", "routing"):
        if second.get(key):
            first[key] = {**first.get(key, {}), **second[key]}
    return first


def merge(runs):
    """One run of many. The same test of the same revision on the same machine gets the runs of
    all; of another revision or machine, the latest stands alone. Results get "revision" and "date"."""
    runs = sorted(runs, key=lambda run: run["time"])
    merged = json.loads(json.dumps({**runs[-1], "results": []}))
    merged["command"] = "; ".join(dict.fromkeys(run["command"] for run in runs))
    merged["revision"] = ", ".join(dict.fromkeys(run["revision"] for run in runs))
    merged["probes"] = [probe for run in runs for probe in run.get("probes") or
                        ([run["probe"]] if run.get("probe") else [])]
    found = {}
    for run in runs:
        source = (run["revision"], machine_name(run["machine"]), run["threads"])
        for result in run["results"]:
            copy = {**json.loads(json.dumps(result)), "revision": run["revision"], "date": run["date"]}
            key = (result["case"], result["test"])
            if key in found and found[key][0] == source:
                join_results(found[key][1], copy)
            elif any(engine["records"] for engine in copy["engines"].values()):
                found[key] = (source, copy)
    merged["results"] = [result for _, result in found.values()]
    merged["texts"] = texts.merge(runs)
    return merged


# ---- text ----

def model_name(result):
    return cases.MODEL_NAMES.get(result["model"], result["model"]) + \
        (", synthetic" if result["model"] in models.SYNTHETIC else "")


def memory_name(limit):
    if not limit:
        return "enough"
    return f"{limit / 1e9:g} GB" if limit >= cases.GB else f"{limit / 1e6:g} MB"


def number(value, digits=3):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def megabytes(value):
    return "-" if value is None else f"{value / 1e6:.1f}"


def percent(value, digits=0):
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def share_text(limit, speed):
    if limit.get("memory_share"):
        return f"{percent(limit['memory_share'])} of memory"
    if limit.get("int8_share"):
        return f"{percent(limit['int8_share'])} of int8"
    if limit.get("tokens_per_second") and speed:
        return f"{percent(speed / limit['tokens_per_second'])} ({limit['by']})"
    return "-"


def belady_bytes_hit_rate(result):
    """Share of a token's weight bytes that Belady's optimum would have found in memory."""
    reads = limits.limit_of(result, [], lambda _: None).get("reads")
    if reads is None or result["kind"] != "decode" or not result["weights"].get("expert_bytes"):
        return None
    return 1 - reads / result["weights"]["pass_bytes"]


def our_columns(result, row, limit):
    predicted = "-"
    if row["predicted_ts"] and row["tokens_per_second"]:
        error = row["predicted_ts"] / row["tokens_per_second"] - 1
        predicted = f"{number(row['predicted_ts'])} ({100 * error:+.0f} %)"
    hits = "-" if row["hit_rate"] is None or not result.get("limit_bytes") \
        else percent(row["hit_rate"])
    belady = belady_bytes_hit_rate(result)
    if belady is not None:
        hits += f" (Belady {percent(belady)})"
    times = row["token_ms"] or result.get("token_ms") or []
    latency = "-"
    if result["kind"] == "decode" and times:
        latency = " / ".join([number(percentile(times, share)) for share in (50, 90, 99)]
                             + [number(sum(times) / len(times))])
    return [share_text(limit, row["tokens_per_second"]), predicted, hits, latency]


def engine_row(result, name, base, baseline, limit):
    row = summarise(result["engines"][name]["records"])
    speed = row["tokens_per_second"]
    ratio = f"{speed / base:.2f} x" if speed and base else "-"
    read = row["bytes_per_token"]
    if read is None and result.get("limit_bytes") and row["process_bytes_read"]:
        # llama.cpp does not count its reads: the whole process, over the timed tokens.
        read_text = f"<= {megabytes(row['process_bytes_read'] / result['tokens'])}"
    else:
        read_text = megabytes(read)
    outcome = "" if row["outcomes"] == ["ok"] else f" ({', '.join(row['outcomes'])})"
    label = f"**{name}**" if name == baseline else name
    ours = our_columns(result, row, limit) if family_of(name) == OURS else ["-"] * 4
    cells = [result["case"], result["test"], label, f"{number(speed)}{outcome}", str(row["runs"]),
             ratio, read_text, megabytes(row["peak_bytes"]), *ours]
    return "| " + " | ".join(cells) + " |"


def table(results):
    """Markdown: one row a test and engine; ratios against llama.cpp's best of the same test."""
    heads = ["Case", "Test", "Engine", "tokens/s", "runs", "of llama.cpp's best",
             "MB read per token", "peak MB", "of the limit", "predicted", "hit rate in bytes",
             "P50 / P90 / P99 / mean ms"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for result in results:
        baseline = best_of_family(result, "llama.cpp")
        base = speed_of(result, baseline) if baseline else None
        limit = limits.limit_of(result, results, speed_of)
        for name in result["engines"]:
            lines.append(engine_row(result, name, base, baseline, limit))
    return "\n".join(lines)


def limit_lines(results):
    """How each limit came about."""
    lines = []
    for result in results:
        limit = limits.limit_of(result, results, speed_of)
        if not limit.get("tokens_per_second"):
            continue
        what = f"- {result['case']} {result['test']}: {number(limit['tokens_per_second'])} tokens/s"
        what += f", set by {limit['by']}; {limit['reads'] / 1e9:.2f} GB of reads"
        if limit["disk"]:
            what += f" at {limit['disk'] / 1e9:.2f} GB/s"
        if limit["compute_seconds"]:
            what += f"; computing in memory {1000 * limit['compute_seconds']:.0f} ms"
        else:
            what += "; computing in memory not measured"
        lines.append(what)
    return lines


def routing_lines(results):
    """The planted routing, asked for and come out, and Belady's hit rate on it."""
    lines = []
    for result in results:
        routing = result.get("routing") or {}
        if routing.get("repeat_share") is None:
            continue
        lines.append(
            f"- {result['case']} {result['test']}: {percent(routing['repeat_share'], 1)} of a "
            f"token's experts repeat (planted: {percent(routing.get('asked_repeat'))}, of a token "
            f"far away {percent(routing.get('asked_far'))}); Belady's optimum with "
            f"{routing['slots']} experts finds {percent(routing['belady_hit_rate'], 1)} of "
            f"{routing['uses']:.0f} uses per token ({routing['recorded_tokens']} tokens recorded)")
    return lines


def screening_lines(results):
    lines = []
    for result in results:
        parts, impossible = [], {}
        for name, record in result.get("screening", {}).items():
            speed = record.get("tokens_per_second")
            slower = record.get("slower_than")
            if record["outcome"].startswith("not run: "):
                reason = record["outcome"][len("not run: "):]
                impossible.setdefault(reason, []).append(name.split(" ", 1)[-1])
                continue
            text = number(speed) if speed else f"below {number(slower)}, stopped" if slower \
                else record["outcome"]
            parts.append(f"{name} {text}")
        parts += [f"not run, since {reason}: {' / '.join(names)}"
                  for reason, names in impossible.items()]
        if parts:
            lines.append(f"- {result['case']} {result['test']}: " + "; ".join(parts))
    return lines


def span(values, unit, digits=2):
    return f"{min(values) / unit:.{digits}f}-{max(values) / unit:.{digits}f}"


def probe_text(run):
    probes = run.get("probes") or ([run["probe"]] if run.get("probe") else [])
    memory = [p["memory_gb_per_s"] * 1e9 for p in probes]
    int8 = [p["int8_gop_per_s"] * 1e9 for p in probes]
    disks = []
    for result in run["results"]:
        memory += result.get("memory_bytes_per_second", [])
        int8 += result.get("int8_operations_per_second", [])
        disks += result["disk_bytes_per_second"]
    parts = []
    if memory:
        parts.append(f"memory {span(memory, 1e9, 1)} GB/s read with {run['threads']} threads")
        parts.append(f"int8 {span(int8, 1e9, 0)} GOP/s from registers")
    if disks:
        parts.append("disk (fio, io_uring, O_DIRECT, 1 MB, depth 16, huge pages) "
                     f"{span(disks, 1e9)} GB/s")
    return "Measured in the same run: " + ", ".join(parts) + "." if parts else ""


EXPLANATION = """\
llama.cpp's best configuration of each test is in bold; the table names it. Configurations more than
30 % slower than the best in a first short run were not repeated. Page cache dropped before each run,
memory and page cache bounded by a cgroup of the case's size. "decode-N@D": N tokens after D. All
engines begin with one run that is not counted (a token, or the prompt); after a depth none does.
On dense files over 1 GB one token, not a prompt, goes before a prompt (in ik_llama.cpp nothing).

The limit is 1 / max(reads / disk, computing in memory). M = budget - KV cache - 3 % (at least 150 MB;
12 MB for budgets below 1 GB). Reads: weight bytes - M; of experts, what Belady's optimum with M, less
what every token uses, misses on the recorded routing. In memory: share of the memory bandwidth and of
the int8 peak that were measured beside."""


def document(run):
    """The whole Markdown file of one run, or of several that were merged."""
    machine, results = run["machine"], run["results"]
    lines = [f"# {run['date']}: {machine['cpu']} (family {machine['family']}, model "
             f"{machine['model']}), {machine['cores']} cores, "
             f"{', '.join(machine['instruction_sets'])}", "",
             *[f"`{command}`" for command in run["command"].split("; ")], "",
             f"powerinfer2 at {run['revision']}; llama.cpp from Debian sid: {run['llama_version']}. "
             f"{run['threads']} threads, medians of interleaved runs, cgroup version "
             f"{run['cgroup_version']}.", "", probe_text(run), "", EXPLANATION, "", table(results), ""]
    for title, found in (("Limits:", limit_lines(results)),
                         ("Text:", texts.lines(run.get("texts", []))),
                         ("Routing of synthetic models:", routing_lines(results)),
                         ("First short run of every configuration, tokens/s:",
                          screening_lines(results)),
                         ("Repeated runs:", run.get("drift", []))):
        if found:
            lines += [title, "", *[f if f.startswith("- ") else f"- {f}" for f in found], ""]
    return "\n".join(lines)
