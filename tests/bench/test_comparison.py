"""Tests of bench/comparison with engines and clocks that are made up."""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import unittest

from made_up import DENSE, EXPERTS, GB, REPOSITORY, result_of, run_of, text_of
from comparison import (ablation, cases, engines, gguf_header, limits, machine, models, report, routing,
                        screening, session, texts, time_budget)


class Ablation(unittest.TestCase):
    def test_policies_are_those_of_the_list(self):
        words = os.path.join(REPOSITORY, "programs", "cli", "engine_options.h")
        with open(words, encoding="utf-8") as file:
            options = file.read()
        listed = os.path.join(REPOSITORY, "src", "neuron_cache", "cache_policies.inc")
        with open(listed, encoding="utf-8") as file:
            names = re.findall(r"^CACHE_POLICY\((\w+)\)", file.read(), re.M)
        self.assertIn("blend", names)
        found = re.search(r'PI2_CLI_CACHE_POLICIES "([^"]+)"', options).group(1)
        self.assertEqual(ablation.policies_of(f"  --cache-policy {found}\n     Which"), names)
        self.assertEqual(ablation.policies_of("no such option"), [])

    def test_variants_of_a_program(self):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "program")
            with open(program, "w", encoding="ascii") as file:
                file.write("#!/bin/sh\necho '  --pipeline on|off'\necho '  --cache-policy auto|a|b_c'\n")
            os.chmod(program, 0o755)
            names = [name for name, _ in ablation.variants(program, True, True)]
            self.assertEqual(names, ["powerinfer2", "powerinfer2, pread", "powerinfer2, pipeline off",
                                     "powerinfer2, policy a", "powerinfer2, policy b_c"])
            self.assertEqual(len(ablation.variants(program, False, False)), 1)

    def test_steps_that_a_program_does_not_know_are_left_out(self):
        known = "  --sparsity exact|off\n  --pipeline on|off\n  --neuron-cache auto|gate|mix|heat|lru|off\n"
        found, left_out = ablation.steps(known)
        self.assertEqual([name for name, _ in found], [
            "powerinfer2", "powerinfer2, dense", "powerinfer2, + bundles", "powerinfer2, + cache",
            "powerinfer2, dense with pipeline"])
        self.assertEqual(left_out, [])
        found, left_out = ablation.steps(known.replace("--neuron-cache auto", "--neuron-cache-policy x"))
        self.assertEqual(left_out, [("+ bundles", ["--neuron-cache"])])
        self.assertNotIn("powerinfer2, + bundles", dict(found))
        known += "  --predictor FILE\n  --look-ahead on\n"
        found, left_out = ablation.steps(known, ablation.PREDICTOR_KINDS[:3])
        self.assertEqual(([name for name, _ in found[-5:]], left_out), (
            ["powerinfer2, look-ahead", "powerinfer2, look-ahead by Gate", "powerinfer2, predictor",
             "powerinfer2, predictor low-bit", "powerinfer2, predictor svd"], []))
        found, _ = ablation.steps(known, ablation.PREDICTOR_KINDS)
        self.assertEqual(found[-1], ("powerinfer2, predictor imported",
                                     ("--sparsity", "auto", "--predictor", "{imported}")))

    def test_which_predictors_a_model_can_have(self):
        files = models.ModelFiles("sparse-tiny", types.SimpleNamespace(cache="/tmp"), "")
        files.header = types.SimpleNamespace(tensors={})
        self.assertEqual(files.predictor_kinds(), ("{trained}", "{low-bit}", "{svd}"))
        files.header.tensors["blk.0.fc1.weight"] = (1, [1])
        self.assertEqual(files.predictor_kinds()[3:], ("{imported}",))
        experts = models.ModelFiles("turbosparse-mixtral-47b", types.SimpleNamespace(cache="/tmp"), "")
        self.assertEqual(experts.predictor_kinds(), ())

    def test_a_predictor_is_made_where_a_variant_names_one(self):
        known = "--sparsity --pipeline --neuron-cache --predictor --look-ahead "
        options = types.SimpleNamespace(variants=ablation.steps(known, ablation.PREDICTOR_KINDS)[0], program="p",
                                        threads=2)
        run = session.TestRun.__new__(session.TestRun)
        run.limit, run.place = GB, types.SimpleNamespace(options=options, scratch=None)
        run.files = types.SimpleNamespace(
            gguf="g", ours="neurons", statistics=None, is_big=lambda: True, has_experts=lambda: False,
            predictor=lambda kind: kind[1:-1], bundles=lambda: "bundles")
        made = {engine.name: (engine.file, engine.extra) for engine in run._our_engines()}
        self.assertEqual(made["powerinfer2"], ("neurons", []))
        self.assertEqual(made["powerinfer2, look-ahead"], ("neurons", ["--predictor", "trained"]))
        self.assertEqual(made["powerinfer2, predictor"],
                         ("bundles", ["--sparsity", "auto", "--predictor", "trained"]))
        self.assertEqual(made["powerinfer2, predictor svd"], ("bundles", ["--sparsity", "auto", "--predictor", "svd"]))
        self.assertEqual(made["powerinfer2, look-ahead by Gate"],
                         ("neurons", ["--predictor", "gate", "--look-ahead", "on"]))

    def test_steps_beside_the_papers(self):
        speeds = {"powerinfer2": [8.0], "llama.cpp mmap": [0.5], "powerinfer2, dense": [1.0],
                  "powerinfer2, + cache": [6.0], "powerinfer2, dense with pipeline": [2.0]}
        found = ablation.tables([result_of("turbosparse-mistral-7b-half", "decode-8", 2 * GB, speeds)])
        rows = [line.split(" | ")[2:8] for line in found.splitlines()[2:]]
        self.assertEqual(rows, [
            ["llama.cpp mmap", "0.5", "1", "-", "-", "1.00"], ["dense", "1", "1", "-", "-", "2.00"],
            ["+ bundles", "not measured", "0", "-", "-", "-"], ["+ cache", "6", "1", "6.00", "10.3", "12.00"],
            ["+ pipeline", "8", "1", "1.33", "2.3", "16.00"], ["(dense with pipeline)", "2", "1", "-", "-", "4.00"]])
        speeds["powerinfer2, predictor"] = [12.0]
        found = ablation.tables([result_of("turbosparse-mistral-7b-half", "decode-8", 2 * GB, speeds)])
        self.assertIn("| (predictor) | 12 | 1 | - | - | 24.00 |", found)
        self.assertTrue(ablation.is_ablation(result_of("m", "decode-8", GB, speeds)))

    def test_an_ablation_of_some_variants(self):
        found = [("powerinfer2", ()), ("powerinfer2, pread", ("a",)), ("powerinfer2, policy lru", ("b",))]
        self.assertEqual(ablation.only(found, None), found)
        self.assertEqual(ablation.only(found, ["policy lru"]), [found[0], found[2]])
        with self.assertRaises(ValueError):
            ablation.only(found, ["policy nru"])


class Texts(unittest.TestCase):
    def test_first_difference(self):
        self.assertIsNone(texts.first_difference([1, 2, 3], [1, 2, 3]))
        self.assertEqual(texts.first_difference([1, 2, 3], [1, 5, 3]), 2)
        self.assertEqual(texts.first_difference([1, 2], [1, 2, 3]), 3)
        self.assertEqual(texts.first_difference([], [7]), 1)

    def test_with_a_run_in_memory(self):
        found = texts.lines([text_of("m in memory", None, [1, 2, 3]), text_of("m-2G", 2 * GB, [1, 2, 3]),
                             text_of("m-1G", GB, [1, 2, 4]), text_of("m-3G", GB, None, "killed"),
                             text_of("n-1G", GB, [9], model="n")])
        self.assertEqual(found, [
            "- m-2G: greedy text: equal over 3 tokens", "- m-1G: greedy text: differs at token 3",
            "- m-3G: greedy text: none: killed",
            "- n-1G: greedy text: nothing to compare with: memory does not hold it"])

    def test_without_memory_the_budgets_are_compared(self):
        found = texts.lines([text_of("m-1G", GB, [1, 3]), text_of("m-4G", 4 * GB, [1, 2]),
                             text_of("m-2G", 2 * GB, [1, 2]), text_of("m-9G", 9 * GB, None, "timeout")])
        self.assertEqual(found[0], "- m-1G: greedy text: differs at token 2 with m-4G: "
                                   "memory does not hold it")
        self.assertIn("what the other budgets are compared with", found[1])
        self.assertIn("equal over 2 tokens with m-4G", found[2])

    def test_a_run_in_memory_that_failed_is_told(self):
        found = texts.lines([text_of("m in memory", None, None, "killed"), text_of("m-1G", GB, [1])])
        self.assertEqual(found, ["- m-1G: greedy text: nothing to compare with: "
                                 "the run in memory gave none (killed)"])

    def test_files_are_merged_and_revisions_kept_apart(self):
        first = {**run_of([]), "texts": [text_of("m in memory", None, [1]), text_of("m-1G", GB, [1]),
                                         text_of("m-2G", 2 * GB, [1])]}
        second = {**run_of([], "2026-01-02T00:00:00", "def"), "texts": [
            text_of("m-1G", GB, [2], revision="def"),
            text_of("m-2G", 2 * GB, None, "out of time", revision="def")]}
        merged = report.merge([second, first])
        text = report.document(merged)
        self.assertIn("- m-1G: greedy text: nothing to compare with", text)
        self.assertIn("- m-2G: greedy text: equal over 1 tokens", text)
        self.assertNotIn("greedy", report.document(run_of([])))

    def test_measure_runs_each_case_once(self):
        commands = []

        def run(command, _):
            commands.append(command)
            bad = "--memory" in command and command[-1] == str(GB)
            return {"outcome": "ok", "stdout": "{}" if bad else '{"tokens": [4, 5]}', "stderr": ""}

        with tempfile.NamedTemporaryFile() as file:
            place = types.SimpleNamespace(
                options=types.SimpleNamespace(program="p", threads=2, timeout=9),
                budget=time_budget.TimeBudget(), group=types.SimpleNamespace(
                    limit=lambda _: None, run=run))
            files = types.SimpleNamespace(name="m", gguf=file.name, ours=file.name)
            cases_of_model = {"m-memory": None, "m-2G": 2 * GB, "m-1G": GB}
            found = texts.measure(place, files, cases_of_model, lambda: 10 * GB)
            self.assertEqual([entry["tokens"] for entry in found], [[4, 5], [4, 5], None])
            self.assertIn("unreadable", found[2]["outcome"])
            self.assertEqual(sum("--memory" in command for command in commands), 2)
            self.assertEqual(len(texts.measure(place, files, cases_of_model, lambda: GB // 4)), 2)
            self.assertEqual(texts.measure(place, files, {"m-memory": None}, lambda: 10 * GB), [])
            place.budget = time_budget.TimeBudget(0.1)
            late = texts.measure(place, files, {"m-1G": GB}, lambda: 0)
            self.assertEqual(late[0]["outcome"], "out of time")


class Limits(unittest.TestCase):
    def test_overhead(self):
        self.assertEqual(limits.overhead(64_000_000), 12_000_000)
        self.assertEqual(limits.overhead(2 * GB), 150_000_000)
        self.assertEqual(limits.overhead(10 * GB), 300_000_000)
        self.assertEqual(limits.held_bytes(10_000_000, 0), 0)

    def test_dense_reads_are_what_does_not_fit(self):
        result = result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [0.4]},
                           disk_bytes_per_second=[GB, 3 * GB, 2 * GB])
        found = limits.limit_of(result, [result], report.speed_of)
        self.assertEqual(found["held"], 1_800_000_000)
        self.assertEqual(found["reads"], 2_200_000_000)
        self.assertEqual(found["by"], "disk")
        self.assertAlmostEqual(found["tokens_per_second"], 1 / 1.1)

    def test_computing_sets_the_limit_where_it_takes_longer(self):
        memory = result_of("m-memory", "prefill-100", None, {"powerinfer2": [20.0]})
        other = result_of("m-memory", "prefill-50", None, {"powerinfer2": [1.0]})
        limited = result_of("m-2G", "prefill-100", 2 * GB, {"powerinfer2": [10.0]},
                            disk_bytes_per_second=[GB])
        found = limits.limit_of(limited, [other, memory, limited], report.speed_of)
        self.assertEqual(found["by"], "compute")
        self.assertAlmostEqual(found["tokens_per_second"], 20.0)
        self.assertEqual(report.share_text(found, 10.0), "50 % (compute)")

    def test_everything_fits_and_no_speed_in_memory_is_no_limit(self):
        result = result_of("m-9G", "decode-8", 9 * GB, {}, disk_bytes_per_second=[GB])
        self.assertNotIn("tokens_per_second", limits.limit_of(result, [], report.speed_of))

    def test_experts_take_beladys_misses(self):
        result = result_of("x-4G", "decode-8", 4 * GB, {}, EXPERTS, disk_bytes_per_second=[GB],
                           routing={"belady_misses": 25.0})
        self.assertAlmostEqual(
            limits.limit_of(result, [], report.speed_of)["tokens_per_second"], 4.0)
        held = limits.held_bytes(4 * GB, 0)
        self.assertEqual(limits.expert_slots(held, EXPERTS["fixed_bytes"], 10_000_000), 285)
        self.assertAlmostEqual(report.belady_bytes_hit_rate(result), 1 - 0.25 / 2)
        result["routing"] = {}
        self.assertNotIn("tokens_per_second", limits.limit_of(result, [], report.speed_of))

    def test_experts_below_the_fixed_part_read_that_too(self):
        self.assertEqual(limits.reads_per_pass(EXPERTS, GB // 2, misses=100), 3 * GB // 2)
        self.assertEqual(limits.reads_per_pass(EXPERTS, 4 * GB, experts_in_batch=900), 6 * GB)

    def test_shares_in_memory(self):
        decode = result_of("m-memory", "decode-8", None, {"powerinfer2": [5.0]},
                           memory_bytes_per_second=[40 * GB])
        self.assertAlmostEqual(
            limits.limit_of(decode, [], report.speed_of)["memory_share"], 0.5)
        prefill = result_of("m-memory", "prefill-8", None, {"powerinfer2": [50.0]},
                            int8_operations_per_second=[1400 * GB])
        self.assertAlmostEqual(limits.limit_of(prefill, [], report.speed_of)["int8_share"], 0.5)

    def test_median(self):
        self.assertEqual(limits.median([3, None, 1, 2]), 2)
        self.assertEqual(limits.median([1, 2]), 1.5)
        self.assertIsNone(limits.median([]))


class Tests(unittest.TestCase):
    def test_names(self):
        test = cases.parse_test("decode-16@64")
        self.assertEqual((test["kind"], test["tokens"], test["depth"]), ("decode", 16, 64))
        self.assertGreaterEqual(cases.parse_test("prefill-512")["context"], 512)
        for wrong in ("decode", "decode-0", "prefil-3", "decode-3@", "decode-3x"):
            self.assertRaises(ValueError, cases.parse_test, wrong)
        self.assertEqual(cases.parse_size("1.5G"), 1_500_000_000)

    def test_every_case_has_tests_and_a_model(self):
        known = set(models.MODELS) | set(models.MODELS_OF_TYPES) | set(models.SYNTHETIC)
        for case in cases.CASES.values():
            self.assertIn(case["model"], known)
            self.assertIn(case["model"], cases.MODEL_NAMES)
            for name in case["tests"]:
                cases.parse_test(name)

    def test_every_weight_type_is_made_of_real_weights(self):
        path = os.path.join(REPOSITORY, "bench", "real_weights")
        loader = importlib.machinery.SourceFileLoader("real_weights", path)
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("real_weights", loader))
        loader.exec_module(module)
        with open(os.path.join(REPOSITORY, "src", "weight_formats", "weight_formats.inc"), encoding="utf-8") as file:
            formats = re.findall(r"^[A-Z]+_FORMAT\(\w+, (\w+), \d", file.read(), re.M)
        self.assertIn("IQ2_XXS", formats)
        made = {re.sub(r"_K_M$", "_K", name) for _, name in module.RECIPES}
        self.assertEqual(set(formats) - made, set())

    def test_goals_are_of_cases(self):
        for case, test in [*cases.GOALS, *cases.HEADLINE]:
            self.assertIn(case, cases.CASES)
            cases.parse_test(test)

    def test_all_engines_warm_up_alike(self):
        with tempfile.NamedTemporaryFile() as small, tempfile.NamedTemporaryFile() as big:
            big.truncate(2 * GB)
            self.assertTrue(cases.set_up_test("prefill-64", small.name)["warm_up"])
            prompt = cases.set_up_test("prefill-512", big.name)
            self.assertTrue(cases.set_up_test("prefill-512", big.name, has_experts=True)["warm_up"])
        self.assertEqual((prompt["warm_up"], prompt["depth"]), (False, 1))
        self.assertGreaterEqual(prompt["context"], 513)
        llama = engines.LlamaBench("llama.cpp a", "/f/m.gguf", "/root", [], 2).command(prompt)
        ours = engines.PowerInfer2("/f/m.pi2", "pi2", 2, 2 * GB).command(prompt)
        for command in (llama, ours):
            self.assertIn("--no-warmup", command)
            self.assertEqual(command[command.index("-d") + 1], "1")
            self.assertEqual(command[command.index("-p") + 1], "512")
        self.assertEqual(ours[ours.index("--memory") + 1], str(2 * GB))

    def test_decoding_has_one_batch_in_all_engines(self):
        test = cases.parse_test("decode-16@16")
        test["warm_up"] = False
        llama = engines.LlamaBench("llama.cpp a", "/f/m.gguf", "/root", [], 2).command(test)
        ours = engines.PowerInfer2("/f/m.pi2", "pi2", 2, 2 * GB).command(test)
        self.assertEqual(ours[ours.index("-b") + 1], llama[llama.index("-b") + 1])
        self.assertNotIn("-b", engines.PowerInfer2("/f/m.pi2", "pi2", 2, None).command(test))

    def test_llama_gets_every_configuration_that_can_run(self):
        class Header:
            @staticmethod
            def weights(_):
                return EXPERTS

            @staticmethod
            def bytes_of_types(_):
                return 9 * GB

        files = types.SimpleNamespace(
            header=Header, gguf="/i/m.gguf", image="device", file_in_image="/i/m.gguf",
            image_only=True, disk_read_ahead=8192, read_aheads=[128, 1024],
            has_experts=lambda: True)
        options = types.SimpleNamespace(llama_root="/r", threads=2, ik="/ik")
        test = cases.parse_test("decode-4@16")
        found = engines.llama_candidates(files, 4 * GB, options, test)
        able = [(e.read_ahead, e.options) for e in found if not e.certain_failure()]
        plain = ["-lm", "mmap", "--repack", "0"]
        self.assertEqual(able, [(1024, plain), (128, plain), (8192, plain)])
        self.assertEqual(len(found), 8)
        self.assertEqual(len({e.name for e in found}), 8)
        found = engines.llama_candidates(files, None, options, cases.parse_test("decode-4"))
        self.assertEqual([e.certain_failure() for e in found], [None] * 6)
        self.assertEqual([e.family for e in found], ["llama.cpp"] * 4 + ["ik_llama.cpp"] * 2)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeTest:
    def __init__(self, clock, name, seconds, log):
        self.clock, self.name, self.seconds, self.log = clock, name, seconds, log

    def expected_seconds(self):
        return self.seconds

    def run_round(self, number):
        self.clock.now += self.seconds
        self.log.append((self.name, number))


class Time(unittest.TestCase):
    def test_rounds_are_spread_and_end_in_time(self):
        clock, log, written = Clock(), [], []
        budget = time_budget.TimeBudget(1, clock)
        tests = [FakeTest(clock, "long", 25, log), FakeTest(clock, "short", 5, log)]
        rounds = time_budget.run_rounds(tests, 9, budget, lambda: written.append(len(log)))
        self.assertEqual(log, [("long", 0), ("short", 0), ("long", 1), ("short", 1)])
        self.assertEqual(written, [1, 2, 3, 4])
        self.assertEqual((clock.now, rounds), (60.0, 2))

    def test_short_tests_go_on_when_long_ones_do_not_fit(self):
        clock, log = Clock(), []
        tests = [FakeTest(clock, "long", 50, log), FakeTest(clock, "short", 4, log)]
        time_budget.run_rounds(tests, 3, time_budget.TimeBudget(1.1, clock), lambda: None)
        self.assertEqual(log, [("long", 0), ("short", 0), ("short", 1), ("short", 2)])

    def test_without_end(self):
        budget = time_budget.TimeBudget(None)
        self.assertTrue(budget.affords(1e9))
        self.assertEqual(budget.bound(300), 300)
        clock = Clock()
        bounded = time_budget.TimeBudget(1, clock)
        clock.now = 50
        self.assertEqual(bounded.bound(300), 10)


class FakeEngine(engines.Engine):
    """Takes `before` seconds to load, then runs at `speed`; obeys what it is stopped by."""

    def __init__(self, name, speed, before=1.0, failure=None):
        super().__init__(name, "/nowhere")
        self.speed, self.load, self.failure = speed, before, failure
        self.calls = 0

    def certain_failure(self):
        return self.failure

    def run(self, test, caps):
        self.calls += 1
        timed = test["tokens"] / self.speed
        if self.load > caps[0] or timed > caps[1]:
            return {"outcome": "timeout", "slower_than": test["tokens"] / caps[1],
                    "seconds": self.load + caps[1]}
        return {"outcome": "ok", "tokens_per_second": self.speed, "seconds": self.load + timed}


class Screening(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "screening.json")
        self.addCleanup(shutil.rmtree, self.folder)

    def screen(self, candidates):
        memory = screening.Memory(self.path)
        return screening.screen(candidates, {"tokens": 4}, memory, "key",
                                lambda e, test, caps: e.run(test, caps), 300, lambda *_: None)

    def test_slow_ones_are_stopped_and_known_next_time(self):
        fast, slow = FakeEngine("llama.cpp a", 2.0), FakeEngine("llama.cpp b", 0.1)
        dead = FakeEngine("llama.cpp c", 9.0, failure="too large")
        records = self.screen([fast, slow, dead])
        self.assertEqual(records["llama.cpp b"]["outcome"], "timeout")
        self.assertAlmostEqual(records["llama.cpp b"]["slower_than"], 4 / 3)
        self.assertIn("too large", records["llama.cpp c"]["outcome"])
        self.assertEqual(dead.calls, 0)
        self.assertEqual(self.screen([fast, slow, dead]), records)
        self.assertEqual((fast.calls, slow.calls), (1, 1))

    def test_a_slower_first_one_does_not_stop_a_faster_one(self):
        records = self.screen([FakeEngine("llama.cpp a", 0.2), FakeEngine("llama.cpp b", 2.0)])
        self.assertEqual(records["llama.cpp b"]["tokens_per_second"], 2.0)

    def test_out_of_time_is_not_remembered(self):
        memory = screening.Memory(self.path)
        records = screening.screen([FakeEngine("llama.cpp a", 1.0)], {"tokens": 4}, memory, "key",
                                   lambda *_: {"outcome": "out of time"}, 300, lambda *_: None)
        self.assertEqual((records, screening.Memory(self.path).get("key")), ({}, {}))

    def test_a_damaged_file_is_screened_again(self):
        with open(self.path, "w", encoding="ascii") as file:
            file.write("{")
        self.assertEqual(screening.Memory(self.path).records, {})

    def test_what_is_kept(self):
        candidates = [FakeEngine("llama.cpp a", 1), FakeEngine("llama.cpp b", 1),
                      FakeEngine("ik_llama.cpp", 1), FakeEngine("llama.cpp c", 1)]
        records = {"llama.cpp a": {"tokens_per_second": 10.0},
                   "llama.cpp b": {"tokens_per_second": 8.0}, "llama.cpp c": {"outcome": "killed"},
                   "ik_llama.cpp": {"tokens_per_second": 3.0}}
        names = lambda best_only: {e.name for e in screening.keep(records, candidates, best_only)}
        self.assertEqual(names(False), {"llama.cpp a", "llama.cpp b", "ik_llama.cpp"})
        self.assertEqual(names(True), {"llama.cpp a", "ik_llama.cpp"})

    def test_writing_is_whole_or_not_at_all(self):
        screening.write_json(self.path, {"a": 1})
        with self.assertRaises(TypeError):
            screening.write_json(self.path, {"a": object()})
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(json.load(file), {"a": 1})
        self.assertEqual(os.listdir(self.folder), ["screening.json"])


class PartBound(unittest.TestCase):
    def test_each_part_has_its_bound(self):
        with tempfile.TemporaryFile("w+") as err:
            bound = machine.PartBound(("run 1/1", 10, 5), 100.0)
            self.assertFalse(bound.is_over(err, 109.0))
            self.assertTrue(bound.is_over(err, 111.0))
            err.write("benchmark 1/1: generation run 1/1\n")
            err.flush()
            self.assertFalse(bound.is_over(err, 120.0))
            self.assertFalse(bound.is_over(err, 124.0))
            self.assertTrue(bound.is_over(err, 126.0))


class TestRuns(unittest.TestCase):
    """session.TestRun with files, probes and engines that are made up."""

    def test_rounds_screen_once_and_record_what_was_measured(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        model = os.path.join(folder, "m.gguf")
        with open(model, "wb") as file:
            file.write(bytes(64))
        ours, best = FakeEngine("powerinfer2", 4.0), FakeEngine("llama.cpp a", 2.0)
        slow = FakeEngine("llama.cpp b", 0.01)
        options = types.SimpleNamespace(
            only_llama=False, only_ours=False, variants=None, program="pi2", threads=2,
            timeout=300, best_only=True, probe_seconds=1,
            configuration=None)
        place = session.Place(options, None, time_budget.TimeBudget(None), screening.Memory(
            os.path.join(folder, "s.json")), "machine", "1", folder)
        place.measure = lambda engine, test, limit, caps=None: {
            "peak": 1, **engine.run(test, caps or (300, 300))}
        files = types.SimpleNamespace(
            name="m", gguf=model, ours=model, planted={}, sparse=False, statistics=None, is_big=lambda: True,
            has_experts=lambda: False,
            header=types.SimpleNamespace(weights=lambda context: dict(DENSE)))
        kept = (engines.llama_candidates, machine.disk_bandwidth)
        engines.llama_candidates = lambda *_: [best, slow]
        machine.disk_bandwidth = lambda *_: 2 * GB
        try:
            run = session.TestRun("m-2G", {"limit": 2 * GB}, "decode-8", files, place)
            run.ours = [ours]
            with contextlib.redirect_stdout(io.StringIO()):
                for number in range(3):
                    run.run_round(number)
                options.configuration = ["b"]
                named = session.TestRun("m-2G", {"limit": 2 * GB}, "decode-8", files, place)
                named.ours = []
                named.run_round(0)
        finally:
            engines.llama_candidates, machine.disk_bandwidth = kept
        self.assertEqual((ours.calls, best.calls, slow.calls), (3, 4, 2))
        self.assertEqual((list(named.result["engines"]), named.result["screening"]),
                         (["llama.cpp b"], {}))
        self.assertEqual(set(run.result["engines"]), {"powerinfer2", "llama.cpp a"})
        self.assertEqual(run.result["disk_bytes_per_second"], [2 * GB] * 3)
        self.assertAlmostEqual(run.expected_seconds(), 3 + (1 + 2) + (1 + 4))
        row = report.table([run.result]).splitlines()[2]
        self.assertIn("| powerinfer2 | 4 | 3 | 2.00 x |", row)

    def test_tests_without_a_run_are_named(self):
        measured = result_of("a-1G", "decode-8", GB, {"powerinfer2": [1.0]})
        self.assertEqual(session.unmeasured([measured]), [])
        self.assertEqual(session.unmeasured([
            result_of("b-1G", "decode-8", GB, {}), measured,
            result_of("c-1G", "prefill-64", GB, {"powerinfer2": []})]),
            ["b-1G decode-8", "c-1G prefill-64"])

    def test_drift(self):
        records = [{"outcome": "ok", "tokens_per_second": s} for s in [10] * 6 + [7] + [8] * 5]
        found = session.drift(records + [{"outcome": "killed"}])
        self.assertEqual((found["runs"], found["first"], found["last"]), (12, 10, 8))
        self.assertAlmostEqual(found["drift"], -0.2)
        self.assertEqual((found["lowest"], found["highest"]), (7, 10))
        self.assertIsNone(session.drift(records[:1]))


class Report(unittest.TestCase):
    def test_ratio_is_against_the_best_median_of_llama(self):
        result = result_of("m-2G", "decode-8", 2 * GB, {
            "powerinfer2": [4.0, 6.0, 5.0], "llama.cpp a": [1.0, 1.0, 9.0],
            "llama.cpp b": [2.0, 2.0, 2.0], "ik_llama.cpp": [3.0]},
            disk_bytes_per_second=[22 * GB])
        lines = report.table([result]).splitlines()
        self.assertIn("| 5 | 3 | 2.50 x |", lines[2])
        self.assertIn("50 % (disk)", lines[2])
        self.assertIn("| **llama.cpp b** | 2 | 3 | 1.00 x |", lines[4])
        self.assertIn("| ik_llama.cpp | 3 | 1 | 1.50 x |", lines[5])

    def test_predicted_hit_rate_and_latency(self):
        result = result_of("x-4G", "decode-8", 4 * GB, {"powerinfer2": [2.0]}, EXPERTS,
                           disk_bytes_per_second=[GB], routing={"belady_misses": 50.0})
        result["engines"]["powerinfer2"]["records"][0].update(
            {"predicted_ts": 3.0, "hit_rate": 0.6, "token_ms": [float(n) for n in range(1, 101)]})
        row = report.table([result]).splitlines()[2]
        self.assertIn("3 (+50 %)", row)
        self.assertIn("60 % (Belady 75 %)", row)
        self.assertIn("50 / 90 / 99", row)

    def test_failed_runs_are_told(self):
        result = result_of("m-2G", "decode-8", 2 * GB, {"llama.cpp a": []})
        result["engines"]["llama.cpp a"]["records"] = [{"outcome": "killed", "peak": 5}]
        self.assertIn("- (killed)", report.table([result]))

    def test_screening_is_told(self):
        result = result_of("m-2G", "decode-8", 2 * GB, {}, screening={
            "llama.cpp a": {"outcome": "ok", "tokens_per_second": 0.5},
            "llama.cpp b": {"outcome": "timeout", "slower_than": 0.25},
            "llama.cpp c": {"outcome": "killed"}, "llama.cpp d": {"outcome": "not run: too large"},
            "llama.cpp e": {"outcome": "not run: too large"}})
        self.assertEqual(report.screening_lines([result]), [
            "- m-2G decode-8: llama.cpp a 0.5; llama.cpp b below 0.25, stopped; llama.cpp c killed; "
            "not run, since too large: d / e"])

    def test_percentile(self):
        self.assertEqual(report.percentile([3, 1, 2], 50), 2)
        self.assertEqual(report.percentile([1], 99), 1)
        self.assertIsNone(report.percentile([], 50))

    def test_merging_joins_equal_sources_and_replaces_others(self):
        first = run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]},
                                  disk_bytes_per_second=[1])])
        second = run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [3.0],
                                                               "llama.cpp a": [0.5]},
                                   disk_bytes_per_second=[2]),
                         result_of("m-2G", "prefill-8", 2 * GB, {"powerinfer2": [7.0]})],
                        "2026-01-02T00:00:00")
        merged = report.merge([second, first])
        self.assertEqual([r["test"] for r in merged["results"]], ["decode-8", "prefill-8"])
        self.assertEqual(report.speed_of(merged["results"][0]), 2.0)
        self.assertEqual(merged["results"][0]["disk_bytes_per_second"], [1, 2])
        self.assertEqual(first["results"][0]["disk_bytes_per_second"], [1])
        newer = run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [9.0]})],
                       "2026-01-03T00:00:00", revision="def")
        merged = report.merge([first, newer, second])
        self.assertEqual(report.speed_of(merged["results"][0]), 9.0)
        self.assertIn("abc, def", report.document(merged))

    def test_nothing_measured_replaces_nothing(self):
        first = run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]})])
        empty = run_of([result_of("m-2G", "decode-8", 2 * GB, {})], "2026-01-02T00:00:00", "def")
        self.assertEqual(report.speed_of(report.merge([first, empty])["results"][0]), 1.0)


def write_gguf(path, architecture, tensors, numbers):
    """A GGUF file of F32 tensors: {name: dims}."""
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text(architecture)]
    pairs += [text(f"{architecture}.{key}") + struct.pack("<II", 4, value)
              for key, value in numbers.items()]
    infos, offset = b"", 0
    for name, dims in tensors.items():
        infos += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        infos += struct.pack("<IQ", 0, offset)
        cells = 1
        for dim in dims:
            cells *= dim
        offset += 4 * cells
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % 32) + bytes(offset))


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def test_header_counts_experts_and_the_embedding_apart(self):
        write_gguf(self.path("m.gguf"), "qwen3moe", {
            "token_embd.weight": [8, 100], "output.weight": [8, 100], "blk.0.attn_q.weight": [8, 8],
            "blk.0.ffn_gate_exps.weight": [8, 16, 4], "blk.0.ffn_up_exps.weight": [8, 16, 4],
            "blk.0.ffn_down_exps.weight": [16, 8, 4]},
            {"expert_count": 4, "expert_used_count": 2, "block_count": 1, "embedding_length": 8,
             "attention.head_count": 2, "attention.head_count_kv": 1})
        found = gguf_header.Header(self.path("m.gguf")).weights(16)
        self.assertEqual(found["fixed_bytes"], 4 * (8 + 800 + 64))
        self.assertEqual(found["expert_bytes"], 4 * 3 * 128)
        self.assertEqual((found["experts"], found["experts_used"]), (4, 2))
        self.assertEqual(found["pass_bytes"], found["fixed_bytes"] + 2 * found["expert_bytes"])
        self.assertEqual(found["prompt_operations"], 2 * (64 + 3 * 128 * 2))
        self.assertEqual(found["kv_bytes"], 2 * 2 * 16 * 4)

    def test_trace(self):
        words = [0x80000000 + 3, 2, 0, 1, 1, 5, 0x80000000 + 1, 1, 0, 1, 6, 0x80000000 + 2, 1, 9]
        with open(self.path("t"), "wb") as file:
            file.write(b"PI2TRACE" + struct.pack("<IIIIQ", 1, 2, 4, 1, 100)
                       + struct.pack(f"<{len(words)}I", *words))
        passes = routing.read_trace(self.path("t"))
        self.assertEqual(passes, [(3, {0, 1, 5}, 3), (1, {0, 6}, 2), (2, {9}, 1)])
        self.assertEqual(routing.experts_of_prompt(passes, 3), 3)
        self.assertEqual(routing.experts_of_prompt(passes, 6), 5)

    def test_token_times_are_those_of_the_last_tokens(self):
        with open(self.path("s.csv"), "w", encoding="ascii") as file:
            file.write("index,phase,tokens,total_ms\n0,prefill,16,900\n1,decode,1,8\n2,decode,1,9\n")
        self.assertEqual(engines.token_times(self.path("s.csv"), 1), [9.0])
        self.assertEqual(engines.token_times(self.path("s.csv"), 5), [8.0, 9.0])

    def test_details_merge_files_and_keep_ablations_apart(self):
        for number, speed in enumerate((1.0, 3.0)):
            screening.write_json(self.path(f"{number}.json"), run_of(
                [result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [speed], "llama.cpp a": [1.0]})],
                f"2026-01-0{number + 1}T00:00:00"))
        screening.write_json(self.path("m-2G-ablation.json"), run_of([result_of(
            "m-2G", "decode-8", 2 * GB, {"powerinfer2": [8.0], "powerinfer2, pread": [4.0]})],
            "2026-01-05T00:00:00", "later"))
        done = subprocess.run(
            [sys.executable, "-B", os.path.join(REPOSITORY, "bench/compare"), "--details", self.folder],
            capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(re.search(r"\| powerinfer2 \| 2 \| 2 \| 2.00 x", done.stdout), done.stdout)
        self.assertIn("| m-2G | decode-8 | pread | 4 | 1 | 0.50 x |", done.stdout)

    def predictions(self, *names):
        return subprocess.run(
            [sys.executable, "-B", os.path.join(REPOSITORY, "bench/predictions")]
            + [self.path(name) for name in names], capture_output=True, text=True, check=False)

    def test_predictions_beside_measured(self):
        def result(case, test, speed, predicted=None, engine="powerinfer2"):
            found = result_of(case, test, 2 * GB, {engine: [speed]})
            for record in found["engines"][engine]["records"] if predicted else []:
                record["predicted_ts"] = predicted
            return found
        screening.write_json(self.path("late.json"), run_of(
            [result("mistral-7b-2G", "decode-8", 2.0, 3.0), result("other", "prefill-8", 10.0)],
            "2026-02-01T00:00:00", "late"))
        screening.write_json(self.path("early.json"), run_of(
            [result("other", "prefill-8", 10.0, 19.0), result("mistral-7b-2G", "decode-8", 1.0, 9.0),
             result("smollm2-64M", "decode-128", 50.0, 45.0), result("mistral-7b-1G", "decode-8", 4.0, 4.8),
             result("mistral-7b-3G", "decode-8", 1.0, 9.0, "powerinfer2, pread"),
             result("mistral-7b-3G", "prefill-8", 1.0, 9.0, "llama.cpp a")], revision="early"))
        done = self.predictions("late.json", "early.json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # In the order of the cases; the latest prediction of a test stands, however the files are given.
        self.assertEqual(done.stdout.splitlines()[2:], [
            "| smollm2-64M | decode-128 | 45 | 50 | -10 % | 1 | early |",
            "| mistral-7b-2G | decode-8 | 3 | 2 | +50 % | 1 | late |",
            "| mistral-7b-1G | decode-8 | 4.8 | 4 | +20 % | 1 | early |",
            "| other | prefill-8 | 19 | 10 | +90 % | 1 | early |", "",
            "Decode, 3 tests: median error 20 %, worst +50 % (mistral-7b-2G decode-8).",
            "Prefill, 1 tests: median error 90 %, worst +90 % (other prefill-8)."])

    def test_predictions_of_files_without_any(self):
        screening.write_json(self.path("none.json"), run_of(
            [result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]})]))
        done = self.predictions("none.json")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("hold no prediction", done.stderr)

    @unittest.skipUnless(shutil.which("gnuplot"), "needs gnuplot")
    def test_plot(self):
        screening.write_json(self.path("r.json"), run_of([
            result_of("m-memory", "decode-8", None, {"powerinfer2": [9.0], "llama.cpp a": [8.0]}),
            result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [0.5], "llama.cpp a": [0.2]},
                      disk_bytes_per_second=[GB])]))
        program = [sys.executable, "-B", os.path.join(REPOSITORY, "bench/plot"),
                   self.path("r.json"), "-o", self.path("p")]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(self.path("p.svg"), encoding="utf-8") as file:
            text = file.read()
        for expected in ("memory budget, GB", "powerinfer2", "llama.cpp, best", "limit"):
            self.assertIn(expected, text)
        self.assertGreater(os.path.getsize(self.path("p.png")), 1000)
        done = subprocess.run(program + ["--kind", "prefill"], capture_output=True, text=True,
                              check=False)
        self.assertIn("hold no prefill", done.stderr)


if __name__ == "__main__":
    unittest.main()
