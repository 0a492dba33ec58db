"""Whether the greedy text under each memory limit is the one that a run in memory gives.

A run has one text for each case, not for each round: {"model", "case", "limit_bytes", "outcome",
"tokens"}, and one more for each model, whose limit_bytes is None, where memory holds it."""
import json
import os

from . import machine

PROMPT = "The tide comes in twice a day, and so it has been for as long as"
TOKENS = 10
CONTEXT = 256
LEAST_RUN_SECONDS = 10  # a run that is given less tells nothing


def command(program, file, threads, limit):
    return [program, "run", "-m", file, "--raw", "-p", PROMPT, "-n", str(TOKENS), "--ignore-eos",
            "--temp", "0", "-c", str(CONTEXT), "-t", str(threads), "--json",
            *(["--memory", str(limit)] if limit else [])]


def memory_holds(file_bytes, available):
    """With what a process needs beside the weights."""
    return file_bytes * 11 // 10 + 300_000_000 <= available


def run_one(place, model, case, file, limit):
    """One run under the case's memory group; place is the session's."""
    entry = {"model": model, "case": case, "limit_bytes": limit, "tokens": None}
    left = place.budget.left()
    if left is not None and left < LEAST_RUN_SECONDS:
        return {**entry, "outcome": "out of time"}
    options = place.options
    machine.drop_from_page_cache(file)
    place.group.limit(limit)
    result = place.group.run(command(options.program, file, options.threads, limit),
                             place.budget.bound(options.timeout))
    entry["outcome"] = result["outcome"]
    if result["outcome"] == "ok":
        try:
            entry["tokens"] = json.loads(result["stdout"])["tokens"]
        except (ValueError, KeyError) as error:
            entry["outcome"] = f"unreadable output ({error})"
    elif result["outcome"] == "failed":
        entry["why"] = result["stderr"].strip().splitlines()[-1:]
    return entry


def measure(place, files, limits, available=machine.available_memory):
    """The texts of one model. limits: {case: bytes}; those without a limit are the run in memory."""
    model = files.name if "/" not in files.name else os.path.basename(files.name)
    limited = {case: limit for case, limit in limits.items() if limit}
    if not limited:
        return []
    found = []
    if memory_holds(os.path.getsize(files.gguf), available()):
        found.append(run_one(place, model, f"{model} in memory", files.gguf, None))
    found += [run_one(place, model, case, files.ours, limit) for case, limit in limited.items()]
    return found


def first_difference(tokens, others):
    """Number of the first token, counted from 1, in which two texts differ; None: they are equal."""
    for number, (one, other) in enumerate(zip(tokens, others), 1):
        if one != other:
            return number
    return None if len(tokens) == len(others) else min(len(tokens), len(others)) + 1


def compare(tokens, others):
    different = first_difference(tokens, others)
    return f"differs at token {different}" if different else f"equal over {len(tokens)} tokens"


def reference_of(entries):
    """What the texts of one model are compared with: the run in memory, else that of the largest limit."""
    good = [entry for entry in entries if entry["outcome"] == "ok"]
    in_memory = [entry for entry in good if not entry["limit_bytes"]]
    return in_memory[-1] if in_memory else max(good, key=lambda e: e["limit_bytes"], default=None)


def verdict(entry, entries):
    """In words, what came of one case; entries: all texts of its model."""
    if entry["outcome"] != "ok":
        return " ".join(["none:", entry["outcome"], *entry.get("why", [])])
    reference = reference_of(entries)
    if not reference["limit_bytes"]:
        return compare(entry["tokens"], reference["tokens"])
    tried = [other for other in entries if not other["limit_bytes"]]
    missing = f"the run in memory gave none ({tried[-1]['outcome']})" if tried else \
        "memory does not hold it"
    if sum(other["outcome"] == "ok" for other in entries) == 1:
        return f"nothing to compare with: {missing}"
    if reference is entry:
        return f"what the other budgets are compared with: {missing}"
    return f"{compare(entry['tokens'], reference['tokens'])} with {reference['case']}: {missing}"


def lines(entries):
    """A line for each case under a limit. Texts of several revisions are not compared."""
    found = []
    for entry in entries:
        if not entry["limit_bytes"]:
            continue
        same = [other for other in entries if other["model"] == entry["model"]
                and other.get("revision") == entry.get("revision")]
        found.append(f"- {entry['case']}: greedy text: {verdict(entry, same)}")
    return found


def merge(runs):
    """The latest text of every case, and the runs in memory of every revision."""
    found = {}
    for run in runs:
        for entry in run.get("texts", []):
            revision = entry.get("revision", run["revision"])
            if entry["outcome"] == "out of time":
                continue
            key = (entry["case"], revision) if not entry["limit_bytes"] else entry["case"]
            found[key] = {**entry, "revision": revision}
    return list(found.values())
