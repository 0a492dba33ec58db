"""From samples to medians, and from medians to the Markdown table."""
import statistics


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def summarise(samples):
    """One engine's samples of one test."""
    good = [s for s in samples if s["outcome"] == "ok"]
    row = {"runs": len(good), "outcomes": sorted({s["outcome"] for s in samples}),
           "tokens_per_second": median([s["tokens_per_second"] for s in good]),
           "samples": [s["tokens_per_second"] for s in good],
           "peak_bytes": max((s["peak"] or s["max_rss"] for s in samples), default=None),
           "max_rss": max((s["max_rss"] for s in samples), default=None),
           "process_bytes_read": median([s["process_bytes_read"] for s in good])}
    for key in ("bytes_per_token", "hit_rate"):
        values = [s[key] for s in good if key in s]
        if values:
            row[key] = median(values)
    return row


def limit_of(case, test, header, disk):
    """What the disk alone would allow, by the formula of the project's goals: weights less
    what the budget holds beside the KV cache and 12 MB, read at fio's bandwidth. None in
    memory; for prefill the same bytes are read once per batch, so the limit is per prompt."""
    if not case["limit"]:
        return None
    held = case["limit"] - header.kv_bytes(test["context"]) - 12_000_000
    missing = max(header.weight_bytes() - max(held, 0), 0)
    if missing == 0:
        return None
    per_read = disk / missing
    return per_read * (test["tokens"] if test["kind"] == "prefill" else 1)


def number(value, digits=3):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def megabytes(value):
    return "-" if value is None else f"{value / 1e6:.1f}"


def table(results):
    """Markdown: one row a test and engine; ratios against llama.cpp's best of the same test."""
    lines = ["| Case | Test | Engine | tokens/s | of llama.cpp's best | MB read per token | "
             "peak MB | of the limit |", "|---|---|---|---|---|---|---|---|"]
    for result in results:
        baseline = result["baseline"]
        base = result["engines"].get(baseline, {}).get("tokens_per_second")
        for name, row in result["engines"].items():
            speed = row["tokens_per_second"]
            ratio = f"{speed / base:.2f} x" if speed and base else "-"
            limit = result.get("limit_tokens_per_second")
            share = f"{100 * speed / limit:.0f} %" if speed and limit and name == "powerinfer2" \
                else "-"
            read = row.get("bytes_per_token")
            if read is None and result["limited"] and row["process_bytes_read"]:
                # llama.cpp does not count its reads: the whole process, over the timed tokens.
                read_text = f"<= {megabytes(row['process_bytes_read'] / result['tokens'])}"
            else:
                read_text = megabytes(read)
            outcome = "" if row["outcomes"] == ["ok"] else f" ({', '.join(row['outcomes'])})"
            label = f"**{name}**" if name == baseline else name
            lines.append(f"| {result['case']} | {result['test']} | {label} | {number(speed)}"
                         f"{outcome} | {ratio} | {read_text} | {megabytes(row['peak_bytes'])} | "
                         f"{share} |")
    return "\n".join(lines)


def document(run):
    """The whole Markdown file of one run."""
    machine = run["machine"]
    probe = run["probe"]
    disks = [d for r in run["results"] for d in r["disk_bytes_per_second"]]
    lines = [f"# {run['date']}: {machine['cpu']} (family {machine['family']}, model "
             f"{machine['model']}), {machine['cores']} cores, {', '.join(machine['instruction_sets'])}",
             "", f"`{run['command']}`", "",
             f"powerinfer2 at {run['revision']}; llama.cpp from Debian sid: {run['llama_version']}.",
             f"{run['threads']} threads, medians of {run['runs']} interleaved runs, page cache dropped "
             "before each, memory and page cache bounded by a cgroup "
             f"(version {run['cgroup_version']}) of the case's size.", "",
             f"Measured in the same run: memory {probe['memory_gb_per_s']} GB/s read with "
             f"{probe['threads']} threads, int8 {probe['int8_gop_per_s']} GOP/s from registers, disk "
             f"(fio, io_uring, O_DIRECT, 1 MB, depth 16) {min(disks) / 1e9:.2f}-{max(disks) / 1e9:.2f} "
             "GB/s." if disks else "", "",
             "llama.cpp's best configuration of each test is in bold; configurations more than "
             f"{run['screening_slack']:.0f} % slower than the best in a first short run were not "
             "repeated. The limit is (weight bytes - (budget - KV cache - 12 MB)) / disk bandwidth.",
             "", table(run["results"]), ""]
    screened = [f"- {r['case']} {r['test']}: " + "; ".join(
        f"{name} {number(s.get('tokens_per_second'))} ({s['outcome']})"
        for name, s in r["screening"].items()) for r in run["results"] if r["screening"]]
    if screened:
        lines += ["First short run of every llama.cpp configuration, tokens/s:", "", *screened, ""]
    return "\n".join(lines)
