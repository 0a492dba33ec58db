"""Where results lie, and how they are read again.

    bench/results/<machine>/machine.json                          what this machine is
    bench/results/<machine>/<yyyy-mm-dd>-<revision>/<case>.json   one case: every sample of every engine

A case file is whole in itself (it repeats the machine) and is not changed once its command has ended:
another command on the same day gets <case>.2.json, and so on. Ablations and repeated runs are of our
engine alone and lie beside them as <case>-ablation.json and <case>-repeat.json."""
import json
import os
import re

from . import screening

MACHINE_FILE = "machine.json"
# What AMD and Intel call the cores of a family and model that results are of.
CORES = {(25, 1): "Zen 3", (26, 2): "Zen 5", (6, 143): "Sapphire Rapids", (6, 207): "Emerald Rapids"}


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")


def machine_name(machine):
    """The folder of a machine, such as amd-epyc-zen5-2-cores-25-gb."""
    family, model = machine.get("family"), machine.get("model")
    cores = CORES.get((family, model), f"{family}-{model}" if family else "").replace(" ", "")
    memory = f"{machine['memory_gb']:.0f}-gb" if machine.get("memory_gb") else ""
    return slug(f"{machine['cpu']} {cores} {machine['cores']}-cores {memory}")


def by_case(run):
    """{case: run}: one run for each case of which something was measured."""
    found = {}
    for result in run["results"]:
        if any(engine["records"] for engine in result["engines"].values()):
            found.setdefault(result["case"], []).append(result)
    return {case: {**run, "results": results, "texts": texts_of(run, case, results)}
            for case, results in found.items()}


def texts_of(run, case, results):
    """A case's own text, and that of the same model in memory."""
    models = {result.get("model") for result in results}
    return [text for text in run.get("texts", [])
            if text["case"] == case or (text["model"] in models and not text["limit_bytes"])]


class Writer:
    """Writes one command's results, again and again while it measures.

    root  the folder results, or a private one
    name  a folder below root instead of <machine>/<date>-<revision>
    kind  "ablation" or "repeat"; None: a comparison"""

    def __init__(self, root, name=None, kind=None):
        self.root, self.name, self.kind = root, name, kind
        self.paths = {}

    def _folder(self, run):
        if self.name:
            return os.path.join(self.root, self.name)
        machine = os.path.join(self.root, machine_name(run["machine"]))
        described = os.path.join(machine, MACHINE_FILE)
        if not os.path.exists(described):
            os.makedirs(machine, exist_ok=True)
            screening.write_json(described, run["machine"])
        return os.path.join(machine, f"{run['date']}-{run['revision']}")

    def _path(self, run, case):
        """The case's file, which no earlier command has written."""
        folder = self._folder(run)
        os.makedirs(folder, exist_ok=True)
        stem, number = slug_of_case(case) + (f"-{self.kind}" if self.kind else ""), 1
        while os.path.exists(path := os.path.join(folder, f"{stem}{f'.{number}' if number > 1 else ''}.json")):
            number += 1
        return path

    def write(self, run):
        """Each case whole or not at all."""
        for case, part in by_case(run).items():
            if case not in self.paths:
                self.paths[case] = self._path(run, case)
            screening.write_json(self.paths[case], part)
        return self.paths


def slug_of_case(case):
    return re.sub(r"[^\w.@+-]+", "_", case)


def described(root, name):
    """What machine.json says of a machine; None where there is none."""
    path = os.path.join(root, name, MACHINE_FILE)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def load(path):
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    if not isinstance(run, dict) or not isinstance(run.get("results"), list):
        raise ValueError(f"{path} holds no results of bench/compare")
    return run


def files_of(paths):
    """The case files that are named, or lie anywhere below the folders that are named."""
    found = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        for folder, _, names in sorted(os.walk(path)):
            found += [os.path.join(folder, name) for name in sorted(names)
                      if name.endswith(".json") and name != MACHINE_FILE]
    return found


def load_all(paths):
    runs = [load(path) for path in files_of(paths)]
    if not runs:
        raise ValueError(f"no results of bench/compare in {', '.join(paths)}")
    return runs


def by_machine(runs):
    """{folder's name: runs}, in the order of the names."""
    found = {}
    for run in sorted(runs, key=lambda run: machine_name(run["machine"])):
        found.setdefault(machine_name(run["machine"]), []).append(run)
    return found


def load_one_machine(paths):
    runs = load_all(paths)
    names = by_machine(runs)
    if len(names) > 1:
        raise ValueError(f"these results are of {len(names)} machines: name the folder of one of "
                         + ", ".join(names))
    return runs


def has_llama(result):
    return any(name.startswith("llama.cpp") for name in result["engines"])


def only(runs, wanted):
    kept = [{**run, "results": [result for result in run["results"] if wanted(result)]} for run in runs]
    return [run for run in kept if run["results"]]


def compared(runs):
    """What was measured beside llama.cpp."""
    return only(runs, has_llama)


def alone(runs):
    """What was measured of our engine alone: ablations, repeated runs."""
    return only(runs, lambda result: not has_llama(result))
