"""Our engine with one part changed at a time."""
import re
import subprocess

from . import report


def policies_of(help_text):
    """The cache policies that a program's help names, "auto" left out: it is one of them."""
    found = re.search(r"--cache-policy\s+([\w|]+)", help_text)
    return [name for name in found.group(1).split("|") if name != "auto"] if found else []


# The paper's ablation of sparse decoding, each step with all before it: (name, options, how many times faster the
# paper's engine became by it: Bamboo-7B, half of the FFN outside memory, on a phone). The last is the default.
STEPS = (("dense", ("--sparsity", "off", "--pipeline", "off"), None),
         ("+ bundles", ("--neuron-cache", "off", "--pipeline", "off"), 2.7),
         ("+ cache", ("--pipeline", "off"), 3.8),
         ("+ pipeline", (), 2.3))
DENSE_PIPELINE = ("dense with pipeline", ("--sparsity", "off"))
# Predictors beside the last step, by kind: the same text, read ahead; and another text, without what is not named.
# "{trained}" stands for a file of the model's, made when it is asked for; {imported} for what its own file carries.
TRAINED, COPIES, SVD, IMPORTED = PREDICTOR_KINDS = ("{trained}", "{low-bit}", "{svd}", "{imported}")
PREDICTED = (("look-ahead", ("--predictor", TRAINED)),
             ("look-ahead by Gate", ("--predictor", "gate", "--look-ahead", "on")),
             ("predictor", ("--sparsity", "auto", "--predictor", TRAINED)),
             *((f"predictor {kind[1:-1]}", ("--sparsity", "auto", "--predictor", kind))
               for kind in PREDICTOR_KINDS[1:]))


def name_of(variant):
    return f"{report.OURS}, {variant}"


def missing_options(options, known):
    """Those that the help of a program does not know."""
    return [option for option in options
            if option.startswith("--") and not re.search(re.escape(option) + r"(?![\w-])", known)]


def steps(known, kinds=()):
    """([(name, options)], [(step, options that are missing)]): the steps that a program can take, by its help;
    the default, which is the last of them, comes first. kinds: of predictors that the model can have."""
    found, left_out = [(report.OURS, ())], []
    predicted = [(name, options) for name, options in PREDICTED
                 if kinds and not set(options) & set(PREDICTOR_KINDS) - set(kinds)]
    for name, options in (*(step[:2] for step in STEPS[:-1]), DENSE_PIPELINE, *predicted):
        missing = missing_options(options, known)
        if missing:
            left_out.append((name, missing))
        else:
            found.append((name_of(name), options))
    return found, left_out


def variants(program, has_experts, limited, sparse=False, kinds=()):
    """[(name, options)]; the first is the default. Only what this build of bench knows; a step of the paper's
    ablation that it does not know is told."""
    known = subprocess.run([program, "bench", "--help"], capture_output=True, text=True,
                           check=False).stdout
    if sparse and limited:
        found, left_out = steps(known, kinds)
        for name, missing in left_out:
            print(f"left out: {name}: this program has no {', '.join(missing)}", flush=True)
        return found
    found = [(report.OURS, ())]
    if limited:
        found.append(("powerinfer2, pread", ("--read-method", "pread")))
        if "--pipeline" in known:
            found.append(("powerinfer2, pipeline off", ("--pipeline", "off")))
    if limited and has_experts:
        if "--look-ahead" in known:
            found += [(f"powerinfer2, look-ahead {value}", ("--look-ahead", value))
                      for value in ("off", "on")]
        found += [(f"powerinfer2, policy {name}", ("--cache-policy", name))
                  for name in policies_of(known)]
    return found


def only(found, names):
    """The default and the variants whose names end with one of `names`; all of them where there are none."""
    if not names:
        return found
    chosen = found[:1] + [one for one in found[1:] if any(one[0].endswith(name) for name in names)]
    missing = [name for name in names if not any(one[0].endswith(name) for one in found[1:])]
    if missing:
        raise ValueError(f"no variant is called {missing[0]!r}; there are: "
                         + ", ".join(one[0].split(", ", 1)[-1] for one in found[1:]))
    return chosen


def is_ablation(result):
    """Whether more than one variant of our engine was measured."""
    return sum(report.family_of(name) == report.OURS for name in result["engines"]) > 1


def has_steps(result):
    """Whether the paper's ablation was measured."""
    return name_of(STEPS[0][0]) in result["engines"]


def steps_table(results):
    """Markdown: step by step, beside the paper's factors; where a step is missing, the next one's are of both."""
    lines = ["| Model | Memory | Step | tokens/s | runs | times the step before | the paper's | times llama.cpp | "
             "MB read per token |", "|---|---|---|---|---|---|---|---|---|"]
    for result in results:
        names = report.model_name(result), report.memory_name(result["limit_bytes"])
        best = report.best_of_family(result, "llama.cpp")
        base = report.speed_of(result, best) if best else None
        rows = [(f"llama.cpp {best[len('llama.cpp'):].strip()}", best, None)] if best else []
        rows += [(step, name_of(step) if options else report.OURS, paper) for step, options, paper in STEPS]
        rows += [(f"({name})", name_of(name), None) for name, _ in (DENSE_PIPELINE, *PREDICTED)
                 if name == DENSE_PIPELINE[0] or name_of(name) in result["engines"]]
        before, papers = None, 1
        for label, engine, paper in rows:
            records = result["engines"].get(engine, {}).get("records", [])
            row = report.summarise(records)
            now, is_step = row["tokens_per_second"], not label.startswith(("llama.cpp", "("))
            papers *= paper or 1
            ratio = f"{now / before:.2f}" if is_step and now and before else "-"
            cells = [*names, label, report.number(now) if records else "not measured", str(row["runs"]), ratio,
                     f"{papers:.3g}" if ratio != "-" else "-", f"{now / base:.2f}" if now and base else "-",
                     report.megabytes(row["bytes_per_token"])]
            lines.append("| " + " | ".join(cells) + " |")
            if is_step and now:
                before, papers = now, 1
    return "\n".join(lines)


def table(results):
    """Markdown: every variant against the default of the same test."""
    lines = ["| Case | Test | Variant | tokens/s | runs | of the default | MB read per token | "
             "hit rate in bytes |", "|---|---|---|---|---|---|---|---|"]
    for result in results:
        base = report.speed_of(result)
        for name, engine in result["engines"].items():
            row = report.summarise(engine["records"])
            speed = row["tokens_per_second"]
            label = "default" if name == report.OURS else name.split(", ", 1)[-1]
            lines.append(
                f"| {result['case']} | {result['test']} | {label} | {report.number(speed)} | "
                f"{row['runs']} | {f'{speed / base:.2f} x' if speed and base else '-'} | "
                f"{report.megabytes(row['bytes_per_token'])} | {report.percent(row['hit_rate'])} |")
    return "\n".join(lines)


def tables(results):
    """Markdown of ablations of either kind."""
    parts = [(steps_table, [result for result in results if has_steps(result)]),
             (table, [result for result in results if not has_steps(result)])]
    return "\n\n".join(make(found) for make, found in parts if found)
