"""docs/speed.md and the README's table: the newest row of every test beside llama.cpp, by machine."""
import os
import subprocess

from . import ablation, cases, limits, predictions, report, results, texts

# A row is stale when more commits than this have since changed what a token's time is made of.
STALE_AFTER = 20
HOT_PATH = ("src/pipeline", "src/kernels", "src/neuron_cache", "src/storage")
STALE = ", stale"

METHOD = """\
## How it is measured

`bench/compare` runs powerinfer2 and Debian sid's llama.cpp on the same file with the same threads and lengths, by
turns, under one memory cgroup of the row's size that bounds the page cache too; the page cache is dropped before each
run. A row has the medians of its rounds, and of powerinfer2 the least and the most. llama.cpp runs in every
configuration (memory map with and without repacking, at several read-aheads; direct I/O); the best is the one that is
named, and those that a short run showed to be far slower were not repeated. "decode 16 after 64": 16 tokens with 64
before them.
All engines begin with one run that is not counted (a token, or the prompt), but not after tokens before it; on dense
files over 1 GB one token goes before a prompt. Decoding guesses no tokens here.

*Of what the machine allows*: the limit is 1 / max(reads / disk, computing in memory), by which no engine can set its
own (`bench/comparison/limits.py`). Reads are what does not fit into budget - KV cache - 3 % (at least 150 MB; 12 MB
for budgets below 1 GB); of experts, what the best possible cache (Belady's, which knows the future) would miss on the
recorded routing. The disk is what fio read in the same rounds (io_uring, O_DIRECT, 1 MB, depth 16). In memory: the
share of the memory bandwidth, or of the int8 operations from registers, that were measured beside.

Of sparse models (exact zeros by ReLU) llama.cpp reads the same file; TurboSparse's it takes for a llama with SiLU,
which is the same work. What they could reach at best is not known: a row past memory has the share of the same model's
speed in memory.

*Goals* were set before the figures were known ([what is missed, and why](../bench/GOALS.md)). *Predicted* is what
[the planner](planner.md) said, and its error. *Synthetic* models have random weights in the exact shape of the real one
([how they are made](synthetic.md)). *Stale*: more than {stale} commits have since changed what a token's time is made
of ({paths}).

Every sample is in [bench/results](../bench/results); `bench/compare --details` prints more of it, and
`bench/compare --report > docs/speed.md` this page.
"""


def stale_revisions(repository, revisions):
    """Those that lie more than STALE_AFTER commits of the hot path back; none where git cannot tell."""
    found = set()
    for revision in revisions:
        try:
            done = subprocess.run(["git", "-C", repository, "rev-list", "--count", f"{revision}..HEAD", "--",
                                   *HOT_PATH], capture_output=True, text=True, check=False)
        except OSError:
            return set()
        if done.returncode == 0 and int(done.stdout) > STALE_AFTER:
            found.add(revision)
    return found


def without_stale(text):
    return text.replace(STALE, "")


def test_name(result):
    depth = f" after {result['depth']}" if result["kind"] == "decode" and result["depth"] else ""
    return f"{result['kind']} {result['tokens']}{depth}"


def spread(result):
    """Least and most of our rounds, and how many they are."""
    records = result["engines"].get(report.OURS, {}).get("records", [])
    speeds = [record["tokens_per_second"] for record in records if record["outcome"] == "ok"]
    return f"{report.number(min(speeds))}-{report.number(max(speeds))} of {len(speeds)}" if speeds else "-"


def family_text(result, family):
    """The speed of a family's best engine and how it was configured, or what became of all."""
    best = report.best_of_family(result, family)
    if best:
        configuration = best[len(family):].strip()
        return report.number(report.speed_of(result, best)) + (f" ({configuration})" if configuration else "")
    outcomes = sorted({record["outcome"] for name, engine in result["engines"].items()
                       if report.family_of(name) == family for record in engine["records"]})
    return ", ".join(outcomes) or "-"


def ratio_of(result):
    """Our speed over llama.cpp's best; None where one is missing."""
    best = report.best_of_family(result, "llama.cpp")
    ours = report.speed_of(result)
    return ours / report.speed_of(result, best) if best and ours else None


def share_of(result, measured):
    """(share of what the machine allows, of what), or (None, None)."""
    limit, speed = limits.limit_of(result, measured, report.speed_of), report.speed_of(result)
    if result.get("sparse") and result["limit_bytes"] and speed:
        seconds = limits.in_memory_seconds(measured, result, report.speed_of)
        return (speed * seconds, "its own in memory") if seconds else (None, None)
    for key, what in (("memory_share", "memory"), ("int8_share", "int8")):
        if limit.get(key):
            return limit[key], what
    if limit.get("tokens_per_second") and speed:
        return speed / limit["tokens_per_second"], {"disk": "disk", "compute": "computing"}[limit["by"]]
    return None, None


def with_goal(text, value, goal, goal_text):
    if goal is None or value is None:
        return text
    return f"{text} (goal {goal_text}{'' if value >= goal else ': missed'})"


def row(result, measured, has_ik, stale):
    goal_ratio, goal_share = cases.GOALS.get((result["case"], result["test"]), (None, None))
    ratio, (share, what) = ratio_of(result), share_of(result, measured)
    predicted = predictions.rows_of([result])
    cells = [report.model_name(result), report.memory_name(result.get("limit_bytes")), test_name(result),
             report.number(report.speed_of(result)), spread(result), family_text(result, "llama.cpp"),
             *([family_text(result, "ik_llama.cpp")] if has_ik else []),
             with_goal(f"{ratio:.2f}" if ratio else "-", ratio, goal_ratio, f"{goal_ratio or 0:g}"),
             with_goal(f"{report.percent(share)} of {what}" if share else "-", share, goal_share,
                       report.percent(goal_share)),
             f"{report.number(predicted[0]['predicted'])} ({predictions.error_text(predicted[0])})"
             if predicted else "-",
             f"{result['revision']}, {result['date']}{STALE if result['revision'] in stale else ''}"]
    return "| " + " | ".join(cells) + " |"


def in_order(measured):
    """In the order of the cases and of their tests."""
    order = list(cases.CASES)
    place = lambda result: order.index(result["case"]) if result["case"] in order else len(order)
    return sorted(measured, key=lambda result: (place(result), result["case"], result["kind"], result["tokens"]))


def machine_title(machine):
    family, model = machine["family"], machine["model"]
    cores = results.CORES.get((family, model), f"family {family}, model {model}" if family else "")
    return machine["cpu"] + (f" ({cores})" if cores else "")


def cores_text(machine):
    return f"{machine['cores']} {'virtual ' if machine.get('virtual') else ''}cores"


def machine_line(machine):
    return ", ".join([cores_text(machine), *machine["instruction_sets"], f"{machine['memory_gb']:.0f} GB of memory",
                      f"Linux {machine['kernel']}"]) + "."


def peak_note(measured):
    """Of our runs under a limit, how many stayed within it."""
    runs = [(record.get("peak") or 0, result["limit_bytes"]) for result in measured if result.get("limit_bytes")
            for record in result["engines"].get(report.OURS, {}).get("records", [])]
    within = sum(peak <= limit for peak, limit in runs)
    return [f"Peak memory, page cache included: within the budget in {within} of {len(runs)} runs."] if runs else []


def text_notes(merged):
    """Whether greedy text under a limit is that of a run in memory, cases of one answer together."""
    found = {}
    for line in texts.lines(merged["texts"]):
        case, _, verdict = line[2:].partition(": greedy text: ")
        found.setdefault(verdict, []).append(case)
    return [f"Greedy text, beside that in memory: {verdict}: {', '.join(names)}." for verdict, names in found.items()]


def notes(merged, measured):
    errors = "; ".join(predictions.summary_lines(predictions.rows_of(measured))).replace(".;", ";")
    routing = report.routing_lines([result for result in measured if result["kind"] == "decode"])
    lines = peak_note(measured) + text_notes(merged) + ([f"Predicted beside measured: {errors}"] if errors else [])
    return [f"- {line}" for line in lines] + routing


def steps_section(runs):
    """The paper's ablation of sparse decoding, the newest of each test; none where none was measured."""
    found = results.only(runs, ablation.has_steps)
    if not found:
        return []
    return ["Sparse decoding step by step, each with those before it, beside what the paper's engine gained by them "
            "(Bamboo-7B, half of the FFN outside memory, on a phone):", "",
            ablation.steps_table(in_order(report.merge(found)["results"])), ""]


def section(machine, runs, stale):
    merged = report.merge(results.compared(runs))
    measured = in_order(merged["results"])
    has_ik = any(report.family_of(name) == "ik_llama.cpp" for result in measured for name in result["engines"])
    heads = ["Model", "Memory", "Test", "powerinfer2, tokens/s", "Spread", "llama.cpp, best",
             *(["ik_llama.cpp"] if has_ik else []), "Times llama.cpp", "Of what the machine allows", "Predicted",
             "Measured at"]
    return "\n".join([
        f"## {machine_title(machine)}", "",
        f"{machine_line(machine)} {report.probe_text(merged)} llama.cpp: {merged['llama_version']}.", "",
        "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|",
        *[row(result, measured, has_ik, stale) for result in measured], "", *notes(merged, measured), "",
        *steps_section(runs)])


def compared_on(root):
    """[(machine, runs)] of the machines on which something was measured beside llama.cpp; the newest first."""
    found = [(results.described(root, name) or runs[-1]["machine"], runs)
             for name, runs in results.by_machine(results.load_all([root])).items() if results.compared(runs)]
    return sorted(found, key=lambda pair: max(run["time"] for run in pair[1]), reverse=True)


def document(root, repository):
    """docs/speed.md from everything below a folder of results."""
    found = compared_on(root)
    stale = stale_revisions(repository, {run["revision"] for _, runs in found for run in runs})
    head = ["# Speed", "", "Made by `bench/compare --report` from the newest row of every test in "
            "[bench/results](../bench/results): tokens/s, beside llama.cpp's best configuration in the same rounds. "
            "[How it is measured](#how-it-is-measured) is at the end.", ""]
    paths = ", ".join(f"`{path}`" for path in HOT_PATH)
    return "\n".join(head + [section(machine, runs, stale) for machine, runs in found]
                     + [METHOD.format(stale=STALE_AFTER, paths=paths)]).rstrip("\n") + "\n"


def headline_row(result, measured):
    size = result["file_bytes"]
    share, what = share_of(result, measured)
    best = report.best_of_family(result, "llama.cpp")
    cells = [f"{report.model_name(result)}, {f'{size / 1e9:.1f} GB' if size >= cases.GB else f'{size / 1e6:.0f} MB'}",
             report.memory_name(result["limit_bytes"]), report.number(report.speed_of(result)),
             report.number(report.speed_of(result, best)) if best else "-",
             f"{ratio_of(result):.1f}" if ratio_of(result) else "-", report.percent(share if what == "disk" else None)]
    return "| " + " | ".join(cells) + " |"


def headline(root):
    """The README's table, of the machine that has most of its rows; the newest of several."""
    best, rows = None, []
    for machine, runs in compared_on(root):
        measured = report.merge(results.compared(runs))["results"]
        by_test = {(result["case"], result["test"]): result for result in measured}
        found = [(by_test[key], measured) for key in cases.HEADLINE if key in by_test]
        if len(found) > len(rows):
            best, rows = machine, found
    if not rows:
        raise ValueError(f"{os.path.basename(root)} holds no row of the README's table")
    revisions = list(dict.fromkeys(result["revision"] for result, _ in rows))
    dates = sorted({result["date"] for result, _ in rows})
    return "\n".join([
        "| Model | Memory | powerinfer2 | llama.cpp, best | Times | Of what the disk allows |",
        "|---|---|---|---|---|---|", *[headline_row(result, measured) for result, measured in rows], "",
        f"Tokens/s of decoding, {cores_text(best)}, {machine_title(best)}, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, at {', '.join(revisions)}."])
