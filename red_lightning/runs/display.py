"""Read, write and print the results of a run."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError
from red_lightning.pictures import draw_confusion

MOST_CLASSES = 40
"""How many classes a table shows."""

Scores = Mapping[str, float | None]


def shown(path: Path) -> str:
    """A path as a user reads it: from the working folder, if it is in there."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that neither a crash nor a full disk leaves a half-written file."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line; an absent file has none."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split at U+2028 inside a text
    return [json.loads(line) for line in lines if line]


def libraries() -> dict[str, str]:
    """Versions of the libraries that a result depends on."""
    names = ("red-lightning", "torch", "lightning", "transformers", "datasets", "torchmetrics")
    return {name: version(name) for name in names}


def print_scores(
    columns: Mapping[str, Scores],
    missing: Mapping[str, str],
    title: str = "Scores on the test split",
    console: Console | None = None,
) -> None:
    """Print one row per metric and one column per title.

    Args:
        columns: Title -> metric -> score.
        missing: Metric -> why it could not be measured.
        title: What stands above the table.
        console: Where to print.
    """
    console = console or Console()
    table = Table()
    table.add_column("metric")
    for column in columns:
        table.add_column(column, justify="right")
    for name in dict.fromkeys([*(name for scores in columns.values() for name in scores), *missing]):
        absent = "missing" if name in missing else "-"
        values = [scores.get(name) for scores in columns.values()]
        table.add_row(name, *(absent if value is None else f"{value:.4f}" for value in values))
    console.print(title, style="bold", highlight=False)
    console.print(table)
    for why in missing.values():
        console.print(why, markup=False, highlight=False, soft_wrap=True)


def print_result(run: Path, result: Mapping[str, Any], beside: Mapping[str, Scores], samples: int) -> None:
    """Print the result of a run: its scores beside others and by class, a few test rows, and how it was trained.

    Args:
        run: The run's folder, where the predictions are.
        result: What results.json holds.
        beside: Other scores to show: title -> metric -> score.
        samples: Number of test rows to show.
    """
    method, before_training = result["method"]["name"], result["baseline_scores"]
    columns = {} if before_training is None else {result["baseline"]: before_training}
    measured = result["scores"]
    comparable = {title: scores for title, scores in beside.items() if {*scores} & {*measured}}
    others = {title: {name: scores.get(name) for name in measured} for title, scores in comparable.items()}
    print_scores({**columns, method: measured, **others}, result["missing"])
    print_details(run, result)
    before, after = (read_jsonl(run / f"{name}_predictions.jsonl") for name in ("baseline", "test"))
    if not (after and "tokens" in after[0]):  # the losses of rows, not answers
        print_samples(before, after, samples, method)
    selection, train = result["selection"], result["train"]
    best = f"best {selection['monitor']} at step {selection['step']}" if selection["step"] else "it was never validated"
    speed = train.get("throughput", {}).get("tokens_per_second")
    said = f", {speed:,.0f} tokens/s" if speed else ""
    print(f"trained {train['steps']} steps in {train['seconds']:.0f} s{said}; {best}")


def print_samples(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    count: int,
    method: str,
    console: Console | None = None,
) -> None:
    """Print a few test rows: the texts, what the unedited and the adapted backbone answer, and a reference.

    Args:
        before: Rows that the unedited backbone wrote; may be empty.
        after: Rows that the adapted backbone wrote.
        count: Number of rows to show, spread over the split.
        method: What adapted it.
        console: Where to print.
    """
    console = console or Console()
    step = max(1, len(after) // max(1, count))
    unedited = {row["row"]: _answer(row) for row in before}
    for row in after[::step][:count]:
        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        given = {key: row[key] for key in ("source", "text", "text_pair") if key in row}
        references = row.get("references", [row.get("reference")])
        lines = {**given, "unedited": unedited.get(row["row"]), method: _answer(row)}
        lines["reference"] = next(iter(references), None)
        for name, value in lines.items():
            if value is not None:
                table.add_row(name, Text(str(value)))  # not markup: sources hold brackets
        console.print(table)


def _answer(row: Mapping[str, Any]) -> Any:
    """What was answered; if it is no label, what was written."""
    if "prediction" in row:
        return row["prediction"]
    return row.get("output") if row["label"] is None else row["label"]


def print_details(run: Path, details: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what a test found for each class, and draw its confusion matrix.

    Args:
        run: The run's folder, where ``confusion.png`` goes.
        details: What the task found, perhaps among other things.
        console: Where to print.
    """
    console = console or Console()
    if "per_class" in details:
        table = Table()
        table.add_column("class")
        for title in ("precision", "recall", "f1", "rows"):
            table.add_column(title, justify="right")
        for name, row in islice(details["per_class"].items(), MOST_CLASSES):
            shares = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
            table.add_row(Text(name), *shares, f"{int(row['support']):,}")
        console.print("By class", style="bold", highlight=False)
        console.print(table)
        if (more := len(details["per_class"]) - MOST_CLASSES) > 0:
            console.print(f"... and {more:,} classes more, in results.json", highlight=False)
        try:
            draw_confusion(details["confusion"], details["labels"], run / "confusion.png")
            console.print(f"confusion matrix: {run.name}/confusion.png", highlight=False, soft_wrap=True)
        except UsageError as error:
            console.print(f"no picture of the confusion matrix: {error}", highlight=False, soft_wrap=True)
    if details.get("unreadable"):
        console.print(f"{details['unreadable']:,} outputs could not be read as a label", highlight=False)
