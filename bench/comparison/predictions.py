"""Predicted beside measured."""
from . import report


def rows_of(measured):
    """[{"case", "test", "kind", "predicted", "measured", "error", "runs", "revision"}] of the results of our
    engine that have a prediction; medians over the runs."""
    rows = []
    for result in measured:
        engine = result["engines"].get(report.OURS)
        if not engine:
            continue
        summary = report.summarise(engine["records"])
        predicted, speed = summary["predicted_ts"], summary["tokens_per_second"]
        if predicted and speed:
            rows.append({"case": result["case"], "test": result["test"], "kind": result["kind"],
                         "predicted": predicted, "measured": speed, "error": predicted / speed - 1,
                         "runs": summary["runs"], "revision": result.get("revision")})
    return rows


def error_text(row):
    return f"{round(100 * row['error']):+d} %"


def table(rows):
    lines = ["| Case | Test | Predicted, tokens/s | Measured | Error | Runs | Revision |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['case']} | {row['test']} | {report.number(row['predicted'])} "
              f"| {report.number(row['measured'])} | {error_text(row)} | {row['runs']} "
              f"| {row['revision']} |" for row in rows]
    return "\n".join(lines)


def summary_lines(rows):
    """A line for each kind of test that there is."""
    lines = []
    for kind in ("decode", "prefill"):
        errors = [row for row in rows if row["kind"] == kind]
        if errors:
            middle = report.median([abs(row["error"]) for row in errors])
            worst = max(errors, key=lambda row: abs(row["error"]))
            lines.append(f"{kind.capitalize()}, {len(errors)} tests: median error {100 * middle:.0f} %, "
                         f"worst {error_text(worst)} ({worst['case']} {worst['test']}).")
    return lines
