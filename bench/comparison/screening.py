"""Which of llama.cpp's configurations are worth repeating, found cheaply and remembered."""
import json
import os
import tempfile

CLEARLY_SLOWER = 1.5    # times slower than the best so far: stopped, and not repeated
SLACK = 30              # percent below the best that is still repeated
LEAST_SECONDS = 2.0     # a run is never judged by less


def write_json(path, value):
    """Writes a whole file or none."""
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, partial = tempfile.mkstemp(prefix=".partial-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


class Memory:
    """Screening results of earlier runs: a JSON file of key -> {engine: record}."""

    def __init__(self, path, ignore_old=False):
        self.path = path
        self.records = {}
        if not ignore_old and os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    loaded = json.load(file)
                self.records = loaded if isinstance(loaded, dict) else {}
            except ValueError:
                self.records = {}  # damaged: screened again

    def get(self, key):
        return dict(self.records.get(key, {}))

    def put(self, key, engine, record):
        self.records.setdefault(key, {})[engine] = record
        write_json(self.path, self.records)


def key_of(file, limit, test, threads, machine, version):
    """What must be equal for a screening to hold: file, limit, test, threads, machine, engine."""
    return "|".join(str(part) for part in (
        os.path.basename(file), os.path.getsize(file), limit or "memory", test["name"],
        f"{threads} threads", machine, version))


def time_caps(records, tokens, timeout):
    """(seconds until the timed part, seconds of the timed part) that a further configuration may
    take before it is clearly slower than the best of `records`."""
    good = [r for r in records.values() if r.get("tokens_per_second")]
    if not good:
        return timeout, timeout
    best = max(good, key=lambda r: r["tokens_per_second"])
    timed = tokens / best["tokens_per_second"]
    before = max(best.get("seconds", timed) - timed, 0)
    return (min(3 * before + 15, timeout),
            min(max(CLEARLY_SLOWER * timed, LEAST_SECONDS), timeout))


def keep(records, candidates, best_only):
    """The candidates worth repeating, of each family; ratios against the family's best."""
    kept = []
    for family in sorted({engine.family for engine in candidates}):
        members = [e for e in candidates if e.family == family]
        speeds = {e.name: records.get(e.name, {}).get("tokens_per_second") or 0 for e in members}
        best = max(speeds.values(), default=0)
        if not best:
            continue
        if best_only:
            kept += [max(members, key=lambda e: speeds[e.name])]
        else:
            kept += [e for e in members if speeds[e.name] >= best * (1 - SLACK / 100)]
    return kept


def screen(candidates, test, memory, key, measure, timeout, tell):
    """One short run of each candidate that `memory` does not know; returns all records.

    measure(engine, test, caps) -> record
    A candidate says by certain_failure() why it cannot run at all; then it is not run."""
    records = {name: r for name, r in memory.get(key).items()
               if name in {e.name for e in candidates}}
    for engine in candidates:
        if engine.name in records:
            continue
        reason = engine.certain_failure()
        if reason:
            record = {"engine": engine.name, "outcome": f"not run: {reason}"}
        else:
            record = measure(engine, test, time_caps(records, test["tokens"], timeout))
            if record["outcome"] == "out of time":
                return records  # the command's time is over: this says nothing about the engine
        records[engine.name] = record
        memory.put(key, engine.name, record)
        tell(engine, record)
    return records
