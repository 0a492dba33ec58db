"""Our engine with one part changed at a time."""
import re
import subprocess

from . import report


def policies_of(help_text):
    """The cache policies that a program's help names, "auto" left out: it is one of them."""
    found = re.search(r"--cache-policy\s+([\w|]+)", help_text)
    return [name for name in found.group(1).split("|") if name != "auto"] if found else []


def variants(program, has_experts, limited):
    """[(name, options)]; the first is the default. Only what this build of bench knows."""
    known = subprocess.run([program, "bench", "--help"], capture_output=True, text=True,
                           check=False).stdout
    found = [("powerinfer2", ())]
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
