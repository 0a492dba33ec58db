"""One command's measuring: tests that are screened once and then repeated, round by round."""
import os

from . import ablation, engines, limits, machine, report, routing, screening
from .cases import set_up_test, shorter

LEAST_RUN_SECONDS = 10  # a run that is given less tells nothing


def describe_record(record):
    if record["outcome"] != "ok":
        return f"{record['outcome']} {' '.join(record.get('why', []))}".strip()
    return (f"{record['tokens_per_second']:.2f} tokens/s, peak {(record['peak'] or 0) / 1e6:.1f} MB, "
            f"{record['seconds']:.0f} s")


class Place:
    """What all tests of a command share: options, the memory group, the time, what is known."""

    def __init__(self, options, group, budget, memory, machine_name, llama_version, scratch):
        self.options, self.group, self.budget, self.memory = options, group, budget, memory
        self.machine_name, self.llama_version, self.scratch = machine_name, llama_version, scratch

    def measure(self, engine, test, limit, caps=None):
        """One run, bounded by the timeout of a run and by the command's end."""
        left = self.budget.left()
        if left is not None and left < LEAST_RUN_SECONDS:
            return {"engine": engine.name, "outcome": "out of time"}
        timeout = self.budget.bound(self.options.timeout)
        record = engine.measure(self.group, test, limit, timeout, caps)
        if record["outcome"] == "timeout" and timeout < self.options.timeout \
                and not self.budget.affords(1):
            record["outcome"] = "out of time"
        return record


class TestRun:
    """One test of one case: its engines, what was measured, and how long a round takes."""

    def __init__(self, case_name, case, test_name, files, place):
        self.case_name, self.limit, self.files, self.place = case_name, case["limit"], files, place
        self.test = set_up_test(test_name, files.gguf, files.has_experts())
        options = place.options
        self.contenders = None
        self.seconds = {}
        weights = files.header.weights(self.test["context"])
        self.result = {
            "case": case_name, "model": files.name if "/" not in files.name
            else os.path.basename(files.name), "test": test_name,
            "kind": self.test["kind"], "tokens": self.test["tokens"], "depth": self.test["depth"],
            "warm_up": self.test["warm_up"], "limit_bytes": self.limit, "weights": weights,
            "file_bytes": os.path.getsize(files.gguf), "engines": {}, "screening": {},
            "disk_bytes_per_second": [], "memory_bytes_per_second": [],
            "int8_operations_per_second": []}
        if files.sparse:
            self.result["sparse"] = True
        if weights["expert_bytes"]:
            self.result["routing"] = dict(files.planted)
        self.ours = [] if options.only_llama else self._our_engines()

    def _our_engines(self):
        options = self.place.options
        variants = options.variants or [("powerinfer2", ())]
        # The table of tokens costs a small model a per cent; a large one nothing.
        folder = self.place.scratch if self.files.is_big() else None
        # In memory a cluster file's experts are read when they are first used; a GGUF's at the start,
        # as the other engines do it.
        whole = not self.limit and self.files.has_experts()
        file = self.files.gguf if whole else self.files.ours
        found = [engines.PowerInfer2(self._file_of(file, extra), options.program, options.threads, self.limit, name,
                                     self._with_predictor(extra), folder, self.files.has_experts())
                 for name, extra in variants]
        for engine in found:
            engine.statistics = self.files.statistics
        return found

    def _with_predictor(self, extra):
        """A variant's options with the file of a predictor where they name a kind."""
        return [self.files.predictor(option) if option in ablation.PREDICTOR_KINDS else option for option in extra]

    def _file_of(self, file, extra):
        """The file for a variant: with a predictor that leaves neurons out, Gate lies in each neuron's bundle."""
        return self.files.bundles() if "auto" in extra else file

    def expected_seconds(self):
        """What the next round will take; for the first a guess from the file's size."""
        if self.contenders is None:
            return 20 + 8 * self.result["file_bytes"] / 1e9
        return 3 + sum(self.seconds.get(e.name, LEAST_RUN_SECONDS) for e in self.contenders)

    def _tell(self, engine, record, note=""):
        print(f"  {engine.name}: {describe_record(record)}{note}", flush=True)

    def _screen(self):
        options, place = self.place.options, self.place
        if options.only_ours:
            self.contenders = list(self.ours)
            return
        candidates = engines.llama_candidates(self.files, self.limit, options, self.test)
        if options.configuration:
            self.contenders = self.ours + [
                e for e in candidates if not e.certain_failure() and
                any(e.name.endswith(name) for name in options.configuration)]
            return
        short = shorter(self.test, self.limit, self.files.is_big())
        key = screening.key_of(self.files.gguf, self.limit, self.test, options.threads,
                               place.machine_name, place.llama_version)
        records = screening.screen(
            candidates, short, place.memory, key,
            lambda engine, test, caps: place.measure(engine, test, self.limit, caps),
            options.timeout, lambda engine, record: self._tell(engine, record, " (screening)"))
        self.result["screening"] = records
        self.result["screening_tokens"] = short["tokens"]
        self.contenders = self.ours + screening.keep(records, candidates, options.best_only)

    def _probe(self):
        options, result = self.place.options, self.result
        if self.limit:
            result["disk_bytes_per_second"].append(
                machine.disk_bandwidth(self.files.ours, options.probe_seconds))
            return
        probe = machine.probe_cores(options.probe_source, options.threads)
        result["memory_bytes_per_second"].append(
            max(probe["memory_gb_per_s"], probe["memory_gb_per_s_one"]) * 1e9)
        result["int8_operations_per_second"].append(probe["int8_gop_per_s"] * 1e9)

    def run_round(self, number):
        print(f"{self.case_name} {self.test['name']}, round {number + 1}", flush=True)
        if self.contenders is None:
            self._record_routing()
            self._screen()
        self._probe()
        for engine in self.contenders:
            record = self.place.measure(engine, self.test, self.limit)
            self._tell(engine, record)
            if record["outcome"] == "out of time":
                continue
            self.seconds[engine.name] = record["seconds"]
            self.result["engines"].setdefault(engine.name, {"records": []})["records"].append(record)
        if number == 0:
            self._count_experts_of_prompt()
        if number == 0 and self.ours and not self.files.is_big() and self.test["kind"] == "decode":
            self._measure_token_times()

    def _measure_token_times(self):
        """A run of its own for the times of tokens, where writing them costs something."""
        options = self.place.options
        engine = engines.PowerInfer2(self.files.ours, options.program, options.threads, self.limit,
                                     folder=self.place.scratch)
        record = self.place.measure(engine, self.test, self.limit)
        if record.get("token_ms"):
            self.result["token_ms"] = record["token_ms"]

    def _record_routing(self):
        """The routing of a longer run, recorded once a model: predictions and Belady's optimum
        come from it."""
        if "routing" not in self.result or not self.ours or not self.limit:
            return
        weights, options = self.result["weights"], self.place.options
        held = limits.held_bytes(self.limit, weights["kv_bytes"])
        slots = limits.expert_slots(held, weights["fixed_bytes"], weights["expert_bytes"])
        try:
            trace = routing.record(options.program, self.files.ours, options.threads, self.limit,
                                   16, options.routing_tokens,
                                   os.path.join(options.cache, f"{self.result['model']}.uses"),
                                   self.place.budget.bound(options.timeout))
            for engine in self.ours:
                engine.routing_trace = trace
            if self.test["kind"] == "decode":
                self.result["routing"].update(
                    routing.belady(options.program, trace, min(slots, weights["experts"]),
                                   options.routing_tokens // 4))
        except machine.CommandFailed as error:
            print(f"  no routing recorded: {error}", flush=True)

    def _count_experts_of_prompt(self):
        records = self.result["engines"].get("powerinfer2", {}).get("records", [])
        counts = [r["experts_in_batch"] for r in records if r.get("experts_in_batch")]
        if counts:
            self.result["routing"]["experts_in_batch"] = counts[-1]


def unmeasured(results):
    """The tests of which no engine made a run: the time ended before, or none can run them."""
    return [f"{result['case']} {result['test']}" for result in results
            if not any(engine["records"] for engine in result["engines"].values())]


def drift(records):
    """How repeated runs of one engine move: medians of the first and the last five, and range."""
    speeds = [r["tokens_per_second"] for r in records if r["outcome"] == "ok"]
    if len(speeds) < 2:
        return None
    count = min(5, len(speeds) // 2)
    first, last = limits.median(speeds[:count]), limits.median(speeds[-count:])
    return {"runs": len(speeds), "first": first, "last": last, "drift": last / first - 1,
            "lowest": min(speeds), "highest": max(speeds), "median": limits.median(speeds)}


def describe_drift(results):
    lines = []
    for result in results:
        for name, engine in result["engines"].items():
            found = drift(engine["records"])
            if found:
                lines.append(
                    f"{result['case']} {result['test']}, {name}, {found['runs']} runs: median "
                    f"{report.number(found['median'])} tokens/s, range {report.number(found['lowest'])}-"
                    f"{report.number(found['highest'])}, first runs {report.number(found['first'])}, "
                    f"last {report.number(found['last'])}: drift {100 * found['drift']:+.1f} %")
    return lines
