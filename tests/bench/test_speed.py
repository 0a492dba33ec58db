"""Tests of where results lie, and of docs/speed.md and the README's table, which are made from them."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from made_up import GB, REPOSITORY, result_of, run_of, text_of
from comparison import cases, report, results, screening, speed


class Speed(unittest.TestCase):
    """docs/speed.md."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, results_of_run, *source):
        screening.write_json(os.path.join(self.folder, name + ".json"), run_of(results_of_run, *source))

    def rows(self):
        return [line for line in speed.document(self.folder, self.folder).splitlines()
                if line.startswith("| ")][1:]

    def test_the_committed_page_is_what_the_files_give(self):
        with open(os.path.join(REPOSITORY, "docs/speed.md"), encoding="utf-8") as file:
            committed = speed.without_stale(file.read())
        made = speed.without_stale(speed.document(os.path.join(REPOSITORY, "bench/results"), REPOSITORY))
        self.assertEqual(committed, made, "make it anew: bench/compare --report > docs/speed.md")

    def test_the_readme_has_the_table_that_the_files_give(self):
        with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
            text = file.read()
        table = speed.headline(os.path.join(REPOSITORY, "bench/results"))
        self.assertEqual(len(table.splitlines()), 2 + len(cases.HEADLINE) + 2)
        self.assertIn(table, text, "put it in: bench/compare --headline")

    def test_the_newest_row_beside_llama(self):
        row = lambda ours, **more: {**result_of("mistral-7b-2G", "decode-8", 2 * GB, {
            "powerinfer2": ours, "llama.cpp mmap, a": [0.5], "llama.cpp b": [0.4]},
            disk_bytes_per_second=[2.2 * GB], **more), "model": "mistral-7b"}
        self.write("old", [row([9.0])])
        self.write("new", [row([0.7, 0.8, 1.2])], "2026-01-02T00:00:00", "new")
        self.write("alone", [result_of("mistral-7b-2G", "decode-8", 2 * GB, {"powerinfer2": [7.0]})],
                   "2026-01-03T00:00:00", "alone")
        self.assertEqual(self.rows(), [
            "| Mistral-7B Q4_0, synthetic | 2 GB | decode 8 | 0.8 | 0.7-1.2 of 3 | 0.5 (mmap, a) | "
            "1.60 (goal 1.8: missed) | 80 % of disk (goal 90 %: missed) | - | new, 2026-01-02 |"])

    def test_other_engines_failures_and_predictions(self):
        found = result_of("m-9G", "prefill-8", None, {"powerinfer2": [50.0], "llama.cpp a": [], "ik_llama.cpp": [20.0]},
                          int8_operations_per_second=[1400 * GB])
        found["engines"]["llama.cpp a"]["records"] = [{"outcome": "killed"}]
        found["engines"]["powerinfer2"]["records"][0]["predicted_ts"] = 60.0
        self.write("r", [found, result_of("tinyllama-320M", "decode-128", 320_000_000,
                                          {"powerinfer2": [8.0], "llama.cpp a": [2.0]})])
        self.assertEqual(self.rows(), [
            "| TinyLlama-1.1B Q4_0 | 320 MB | decode 128 | 8 | 8-8 of 1 | 2 (a) | - | 4.00 (goal 1) | - | - | "
            "abc, 2026-01-01 |",
            "| m | enough | prefill 8 | 50 | 50-50 of 1 | killed | 20 | - | 50 % of int8 | 60 (+20 %) | "
            "abc, 2026-01-01 |"])

    def test_sparse_models_are_held_to_their_own_speed_in_memory(self):
        steps = {"powerinfer2": [4.0], "powerinfer2, dense": [1.0], "powerinfer2, + cache": [2.0]}
        sparse = {"sparse": True, "model": "turbosparse-mistral-7b", "disk_bytes_per_second": [GB]}
        self.write("r", [
            {**result_of("turbosparse-mistral-7b-memory", "decode-32", None, {
                "powerinfer2": [8.0], "llama.cpp a": [5.0]}, memory_bytes_per_second=[40 * GB]), **sparse},
            {**result_of("turbosparse-mistral-7b-half", "decode-16@16", 2 * GB, {
                "powerinfer2": [4.0], "llama.cpp a": [0.4]}), **sparse}])
        self.write("r-ablation", [
            {**result_of("turbosparse-mistral-7b-half", "decode-16@16", 2 * GB, steps), **sparse}])
        name = "TurboSparse-Mistral-7B Q4_0 (90 % zeros), synthetic"
        self.assertEqual(self.rows()[:2], [
            f"| {name} | enough | decode 32 | 8 | 8-8 of 1 | 5 (a) | 1.60 (goal 1.8: missed) | - | - | "
            "abc, 2026-01-01 |",
            f"| {name} | 2 GB | decode 16 after 16 | 4 | 4-4 of 1 | 0.4 (a) | 10.00 (goal 20: missed) | "
            "50 % of its own in memory (goal 55 %: missed) | - | abc, 2026-01-01 |"])
        self.assertIn(f"| {name} | 2 GB | + cache | 2 | 1 | 2.00 | 10.3 | - | - |", self.rows())

    def test_a_peak_over_the_budget_is_told(self):
        found = result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0, 1.0], "llama.cpp a": [1.0]})
        found["engines"]["powerinfer2"]["records"][1]["peak"] = 2 * GB + 1
        self.write("r", [found])
        self.assertIn("within the budget in 1 of 2 runs", speed.document(self.folder, self.folder))

    def test_headline_command(self):
        names = ("smollm2-64M", "decode-128"), ("mistral-7b-2G", "decode-8")
        run = run_of([result_of(*names[0], 64_000_000, {"powerinfer2": [60.0], "llama.cpp a": [6.0]}, file_bytes=98e6),
                      {**result_of(*names[1], 2 * GB, {"powerinfer2": [1.0], "llama.cpp a": [0.5]}, file_bytes=4.1e9,
                                   disk_bytes_per_second=[2.2 * GB]), "model": "mistral-7b"}])
        screening.write_json(os.path.join(self.folder, "all.json"), run)
        done = subprocess.run([sys.executable, "-B", os.path.join(REPOSITORY, "bench/compare"), "--headline",
                               self.folder], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.splitlines()[2:], [
            "| SmolLM2-135M Q4_1, 98 MB | 64 MB | 60 | 6 | 10.0 | - |",
            "| Mistral-7B Q4_0, synthetic, 4.1 GB | 2 GB | 1 | 0.5 | 2.0 | 100 % |", "",
            "Tokens/s of decoding, 2 cores, C (family 1, model 2), 2026-01-01, at abc."])

    def git(self, *words):
        return subprocess.run(["git", "-C", self.folder, "-c", "user.name=t", "-c", "user.email=t@t", *words],
                              capture_output=True, text=True, check=True).stdout.strip()

    @unittest.skipUnless(shutil.which("git"), "needs git")
    def test_stale_is_what_many_commits_of_the_hot_path_came_after(self):
        self.git("init", "-q")
        revisions = []
        for number in range(speed.STALE_AFTER + 2):
            for path in (speed.HOT_PATH[0], "docs"):
                os.makedirs(os.path.join(self.folder, path), exist_ok=True)
                with open(os.path.join(self.folder, path, "file"), "w", encoding="ascii") as file:
                    file.write(str(number))
                self.git("add", path)
                self.git("commit", "-q", "-m", path)
            revisions.append(self.git("rev-parse", "--short", "HEAD"))
        for path in speed.HOT_PATH:
            self.assertTrue(os.path.isdir(os.path.join(REPOSITORY, path)), path)
        self.assertEqual(speed.stale_revisions(self.folder, revisions + ["unknown"]), {revisions[0]})
        self.write("r", [result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0], "llama.cpp a": [1.0]})],
                   "2026-01-01T00:00:00", revisions[0])
        self.assertTrue(self.rows()[0].endswith(f"| {revisions[0]}, 2026-01-01, stale |"))
        self.assertNotIn("2026-01-01, stale", speed.without_stale(speed.document(self.folder, self.folder)))
        shutil.rmtree(os.path.join(self.folder, ".git"))
        self.assertEqual(speed.stale_revisions(self.folder, revisions), set())


class Results(unittest.TestCase):
    """Where results lie: bench/results/<machine>/<date>-<revision>/<case>.json."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def test_committed_results_lie_where_they_say(self):
        root = os.path.join(REPOSITORY, "bench/results")
        self.assertEqual([name for name in os.listdir(root) if not os.path.isdir(os.path.join(root, name))], [])
        paths = results.files_of([root])
        self.assertGreater(len(paths), 20)
        for path in paths:
            run = results.load(path)
            machine_folder, folder, name = os.path.relpath(path, root).split(os.sep)
            self.assertEqual(machine_folder, results.machine_name(run["machine"]))
            self.assertEqual(folder, f"{run['date']}-{run['revision']}")
            self.assertEqual(len({result["case"] for result in run["results"]}), 1, path)
            case = run["results"][0]["case"]
            self.assertRegex(name, re.escape(case) + r"(-ablation|-repeat)?(\.\d+)?\.json$")
            with open(os.path.join(root, machine_folder, results.MACHINE_FILE), encoding="utf-8") as file:
                described = json.load(file)
            self.assertIn("virtual", described)
            for key in set(run["machine"]) - {"kernel"}:
                self.assertEqual(run["machine"][key], described[key], path)

    def test_committed_results_can_be_read(self):
        root = os.path.join(REPOSITORY, "bench/results")
        for runs in results.by_machine(results.load_all([root])).values():
            text = report.document(report.merge(runs))
            for run in runs:
                for result in run["results"]:
                    self.assertIn(f"| {result['case']} | {result['test']} | powerinfer2", text)

    def test_what_is_no_result_is_refused(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write("[]")
            file.flush()
            self.assertRaises(ValueError, results.load, file.name)
        self.assertRaises(ValueError, results.load_all, [self.folder])

    def written(self):
        return sorted(os.path.relpath(path, self.folder) for path in results.files_of([self.folder]))

    def test_one_command_writes_its_files_again_and_another_writes_others(self):
        run = run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]}),
                      result_of("m-1G", "decode-8", GB, {"powerinfer2": []})])
        run["texts"] = [text_of("m in memory", None, [1]), text_of("m-2G", 2 * GB, [1]), text_of("m-1G", GB, [2])]
        writer = results.Writer(self.folder)
        writer.write(run)
        place = "c-1-2-2-cores-8-gb/2026-01-01-abc"
        self.assertEqual(self.written(), [f"{place}/m-2G.json"])
        run["results"][0]["engines"]["powerinfer2"]["records"] *= 2
        run["results"] += [result_of("m-2G", "prefill-8", 2 * GB, {"powerinfer2": [5.0]})]
        writer.write(run)
        self.assertEqual(self.written(), [f"{place}/m-2G.json"])
        read = results.load(os.path.join(self.folder, place, "m-2G.json"))
        self.assertEqual([len(r["engines"]["powerinfer2"]["records"]) for r in read["results"]], [2, 1])
        self.assertEqual([text["case"] for text in read["texts"]], ["m in memory", "m-2G"])
        results.Writer(self.folder).write(run)
        results.Writer(self.folder, kind="ablation").write(run)
        self.assertEqual(self.written(), [f"{place}/m-2G-ablation.json", f"{place}/m-2G.2.json",
                                          f"{place}/m-2G.json"])
        with open(os.path.join(self.folder, "c-1-2-2-cores-8-gb/machine.json"), encoding="ascii") as file:
            self.assertEqual(json.load(file), run["machine"])

    def test_a_private_place(self):
        results.Writer(self.folder, "mine").write(
            run_of([result_of("my model-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]})]))
        self.assertEqual(self.written(), ["mine/my_model-2G.json"])

    def test_machines_are_kept_apart(self):
        own = {"cpu": "AMD EPYC 9B45 (x)", "family": 26, "model": 2, "cores": 16, "memory_gb": 128.4}
        self.assertEqual(results.machine_name(own), "amd-epyc-9b45-x-zen5-16-cores-128-gb")
        self.assertEqual(results.machine_name({"cpu": "aarch64", "family": None, "model": None, "cores": 8}),
                         "aarch64-8-cores")
        for number, machine in enumerate((own, {**own, "cores": 4})):
            run = {**run_of([result_of("m-2G", "decode-8", 2 * GB, {"powerinfer2": [1.0]})]), "machine": machine}
            results.Writer(self.folder, str(number)).write(run)
        with self.assertRaisesRegex(ValueError, "2 machines"):
            results.load_one_machine([self.folder])
        self.assertEqual(len(results.load_one_machine([os.path.join(self.folder, "1")])), 1)


if __name__ == "__main__":
    unittest.main()
