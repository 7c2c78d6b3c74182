"""A study's table as Markdown, LaTeX and CSV, with the paper's scores and the differences."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from red_lightning.paper.published import scale
from red_lightning.studies.cell_results import AVERAGE, Results, Row
from red_lightning.studies.cells import written
from red_lightning.studies.paired_differences import COVERAGE, Difference, compare
from red_lightning.studies.setting_selection import Choice
from red_lightning.studies.table_layout import METRICS

PAPER, DIFFERENCE = "paper", "ours - paper"
Lines = list[list[str]]


def markdown(
    results: Results, runs: Path, choices: Iterable[Choice] = (), failures: Mapping[str, str] | None = None
) -> str:
    """The whole report: the table, comparisons, what was chosen, and what is missing.

    Args:
        results: What was found.
        runs: The folder of the runs' folders, where their predictions are.
        choices: What was chosen on the validation split.
        failures: Cell -> why it failed.
    """
    study = results.study
    table = _markdown_table(_header(results), _lines(results, results.rows, "**{}**"))
    parts = [f"# {study.title}", _caption(results), table]
    parts += ["\n".join(f"- {note}" for note in results.notes)] if results.notes else []
    if differences := against(results, runs):
        parts += [f"## Against {study.report.against}", _about_intervals(results, differences)]
        parts.append(_markdown_table(_header(results, counts=False), _difference_lines(results, differences)))
    if shown := list(choices):
        parts += ["## Chosen on the validation split", _about_choice(results), _markdown_table(*_choices(shown))]
    if failures:
        parts += ["## Failed", "\n".join(f"- {name}: {reason}" for name, reason in failures.items())]
    return "\n\n".join(parts) + "\n"


def latex(results: Results) -> str:
    """The table for a paper, with booktabs' rules; rows between two rules share all labels but the last."""
    header = _header(results)
    body: list[str] = []
    for rows in results.groups():
        lines = _lines(results, rows, r"\textbf{{{}}}")
        body += [r"\midrule", *(" & ".join(_tex(text) for text in line) + r" \\" for line in lines)]
    columns = "l" * len(results.study.report.rows) + "r" * (len(header) - len(results.study.report.rows))
    top = [r"\begin{tabular}{" + columns + "}", r"\toprule", " & ".join(map(_tex, header)) + r" \\"]
    caption = f"% {_caption(results)}"
    notes = [f"% {note}" for note in results.notes]
    return "\n".join([caption, *notes, *top, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(results: Results) -> str:
    """One line for each entry, with numbers as they are."""
    report = results.study.report
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["column", "metric", "mean", "standard_deviation", "seeds", "expected", "failed", "rule"]
    writer.writerow([*report.rows, *names, "parameters", "published", "published_deviation", "difference", "scores"])
    for (row, column), entry in results.entries.items():
        published, mean = results.published_score(row, column), entry.mean
        rule = "best {} of {}".format(*entry.best_of) if entry.best_of else ""
        found = [column, entry.metric, mean, entry.deviation, len(entry.scores), entry.expected, entry.failed, rule]
        theirs = [published, results.published_deviation(row, column)]
        difference = None if mean is None or published is None else mean - published
        scores = " ".join(f"{seed}:{score:.6g}" for seed, score in entry.scores.items())
        counts = " ".join(map(str, sorted(results.parameters[row])))
        writer.writerow([*row, *found, counts, *theirs, difference, scores])
    return text.getvalue()


def against(results: Results, runs: Path) -> dict[tuple[Row, str], Difference]:
    """How far each row lies from the one that it is compared with: (row, column) -> difference."""
    label, axes = results.study.report.against, results.study.report.rows
    if label is None:
        return {}
    place = next(index for index, axis in enumerate(axes) if label in results.study.axes[axis])
    found = {}
    for (row, column), entry in results.entries.items():
        other = results.entries.get(((*row[:place], label, *row[place + 1 :]), column))
        if row[place] == label or other is None:
            continue
        shared = [seed for seed in entry.scores if seed in other.scores]
        files = [(_predictions(runs, entry.runs[s]), _predictions(runs, other.runs[s])) for s in shared]
        difference = compare(entry.scores, other.scores, files, entry.metric, scale(entry.metric))
        if difference is not None:
            found[row, column] = difference
    return found


def _predictions(runs: Path, name: str) -> Path:
    return runs / name / "test_predictions.jsonl"


def _caption(results: Results) -> str:
    report = results.study.report
    seeds = max(entry.expected for entry in results.entries.values())
    within = f" for each {' and '.join(report.rows[:-1])}" if len(report.rows) > 1 else ""
    what = {entry.metric for entry in results.entries.values() if entry.metric}
    measured = f" ({', '.join(sorted(what))})" if what and report.columns != METRICS else ""
    return (
        f"Test split{measured}: mean ± standard deviation over {seeds} {report.over}{'s' * (seeds != 1)}; "
        f"the best of each column{within} is bold."
    )


def _header(results: Results, counts: bool = True) -> list[str]:
    return [*results.study.report.rows, *(["# parameters"] if counts else []), *results.columns]


def _lines(results: Results, rows: Iterable[Row], bold: str) -> Lines:
    lines = []
    for row in rows:
        lines.append([*row, _count(results, row), *(_entry(results, row, column, bold) for column in results.columns)])
        if results.published[row].scores:
            lines += _published_lines(results, row)
    return lines


def _published_lines(results: Results, row: Row) -> Lines:
    published, blank = results.published[row], [""] * (len(row) - 1)
    scores, differences = [], []
    for column in results.columns:
        theirs, ours = results.published_score(row, column), results.mean(row, column)
        spread = results.published_deviation(row, column)
        scores.append("" if theirs is None else f"{theirs:.2f}" + ("" if spread is None else f" ± {spread:.2f}"))
        differences.append("" if theirs is None or ours is None else f"{ours - theirs:+.2f}")
    count = "" if published.parameters is None else f"{published.parameters:g}M"
    return [[*blank, PAPER, count, *scores], [*blank, DIFFERENCE, "", *differences]]


def _entry(results: Results, row: Row, column: str, bold: str) -> str:
    mean = results.mean(row, column)
    if column == AVERAGE:
        return "" if mean is None else _marked(f"{mean:.2f}", mean == results.best(row, column), bold)
    entry = results.entries[row, column]
    if entry.expected == 0:
        return ""
    partial = f" ({len(entry.scores)} of {entry.expected})" if len(entry.scores) < entry.expected else ""
    if mean is None:
        return f"missing{partial}"
    spread = "" if entry.deviation is None else f" ± {entry.deviation:.2f}"
    return _marked(f"{mean:.2f}{spread}", mean == results.best(row, column), bold) + partial


def _marked(text: str, best: bool, bold: str) -> str:
    return bold.format(text) if best else text


def _count(results: Results, row: Row) -> str:
    return " / ".join(f"{count:,}" for count in sorted(results.parameters[row])) or "?"


def _difference_lines(results: Results, differences: Mapping[tuple[Row, str], Difference]) -> Lines:
    lines = []
    for row in results.rows:
        found = [differences.get((row, column)) for column in results.columns]
        if any(found):
            lines.append([*row, *("" if each is None else _difference(each) for each in found)])
    return lines


def _difference(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]" + ("*" if found.is_clear else "")


def _about_intervals(results: Results, differences: Mapping[tuple[Row, str], Difference]) -> str:
    over, rule = results.study.report.over, ""
    if results.study.report.best_of:
        rule = f" All {over}s count here, not the best alone."
    kinds = {
        " and ".join([f"{over}s (Student's t)"] * (found.pairs > 1) + ["test rows (bootstrap)"] * found.rows)
        for found in differences.values()
        if found.low is not None
    }
    what = f"{COVERAGE:.0%} interval over {', or '.join(sorted(kinds))}; * excludes 0"
    if not kinds:
        what = f"no interval, which needs two {over}s, or the predictions of both runs"
    return f"Mean difference of runs with the same {over}; {what}.{rule}"


def _about_choice(results: Results) -> str:
    select = results.study.select
    assert select is not None
    seeds = ", ".join(map(str, select.seed if isinstance(select.seed, list) else [select.seed]))
    over = results.study.report.over
    runs = f"{select.budget} runs each ({over} {seeds}), none of which was tested"
    return f"`{select.over}`, by the best validation score of {runs}."


def _choices(choices: Sequence[Choice]) -> tuple[list[str], Lines]:
    lines = []
    for choice in choices:
        tried = "; ".join(f"{v}: {'failed' if s is None else f'{s:.4f}'}" for v, s in choice.scores.items())
        chosen = written(choice.value) if choice.value is not None else f"open ({choice.open})"
        lines.append([*choice.labels.values(), chosen, " and ".join(choice.monitors), tried])
    return [*choices[0].labels, "chosen", "by", "tried"], lines


def _markdown_table(header: Sequence[str], lines: Lines) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows)


def _tex(text: str) -> str:
    for sign in "&%#_":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r"$\pm$")
