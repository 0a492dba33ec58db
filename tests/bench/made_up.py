"""Results of engines that are made up, for the tests beside this file."""
import os
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPOSITORY, "bench"))
from comparison import cases  # noqa: E402

GB = 1_000_000_000
DENSE = {"pass_bytes": 4 * GB, "fixed_bytes": 4 * GB, "expert_bytes": 0, "experts": 0,
         "kv_bytes": 50_000_000, "prompt_operations": 14 * GB}
EXPERTS = {"pass_bytes": 2 * GB, "fixed_bytes": 1 * GB, "expert_bytes": 10_000_000,
           "experts": 1000, "kv_bytes": 0, "prompt_operations": GB}


def result_of(case, test, limit, speeds, weights=None, **more):
    """A result as bench/compare writes it; speeds: {engine: [tokens per second]}."""
    parsed = cases.parse_test(test)
    return {"case": case, "model": case.split("-")[0], "test": test, "kind": parsed["kind"],
            "tokens": parsed["tokens"], "depth": parsed["depth"], "limit_bytes": limit,
            "weights": weights or DENSE, "disk_bytes_per_second": [], "screening": {},
            "engines": {name: {"records": [
                {"outcome": "ok", "tokens_per_second": s, "peak": 1000000} for s in samples]}
                for name, samples in speeds.items()}, **more}


def run_of(results, time="2026-01-01T00:00:00", revision="abc"):
    return {"date": time[:10], "time": time, "command": f"bench/compare at {time}",
            "machine": {"cpu": "C", "family": 1, "model": 2, "cores": 2, "instruction_sets": [], "memory_gb": 8.0,
                        "kernel": "6"},
            "probe": {"memory_gb_per_s": 30, "int8_gop_per_s": 1000}, "revision": revision,
            "llama_version": "1", "threads": 2, "cgroup_version": 1, "results": results}


def text_of(case, limit, tokens, outcome="ok", revision="abc", model="m"):
    return {"model": model, "case": case, "limit_bytes": limit, "outcome": outcome,
            "tokens": tokens, "revision": revision}
