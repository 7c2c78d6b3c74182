"""Tables of a study: what is averaged, compared, marked and said to be missing."""

import csv
import io
import json
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from torchmetrics.functional import matthews_corrcoef, pearson_corrcoef

from red_lightning.pictures.study_scores import draw_results
from red_lightning.studies.cell_results import Results, collect
from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.paired_differences import accuracy, compare, interval, matthews, pearson, student
from red_lightning.studies.study_tables import against, as_csv, latex, markdown
from tests.studies.study_files import STUDY, cells_of, finish, study_of

PUBLISHED = {"table": "table1_glue_roberta", "row": "{method} (base)", "std": "table14_glue_roberta_std"}
SCORES = {"RED": [0.88, 0.90, 0.92], "LoRA": [0.80, 0.84], "FT": [0.95, 0.93, 0.94]}


def filled(tmp_path: Path, **report: object) -> tuple[Results, StudyFolder]:
    """A study whose runs on MRPC have scores, LoRA's one too few; of CoLA there is nothing."""
    study = study_of(tmp_path, report={**STUDY["report"], "published": PUBLISHED, **report})
    folder = StudyFolder(tmp_path / "out")
    for cell in cells_of(study).values():
        scores = dict(zip(("42", "43", "44"), SCORES[cell.labels["method"]], strict=False))
        if cell.labels["task"] == "mrpc" and cell.labels["seed"] in scores:
            finish(folder, cell, scores={"accuracy": scores[cell.labels["seed"]], "f1": 0.1}, head_parameters=3)
    return collect(study, cells_of(study).values(), folder.state), folder


def table(text: str) -> list[list[str]]:
    """The cells of the first Markdown table."""
    lines = text.split("\n\n")[2].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_mean_and_deviation_over_seeds_beside_the_papers(tmp_path: Path) -> None:
    results, folder = filled(tmp_path)
    text = markdown(results, folder.runs)
    rows = table(text)
    assert rows[0] == ["method", "# parameters", "mrpc", "cola", "Avg"]
    percent = [100 * score for score in SCORES["RED"]]
    place = rows.index(["RED", "7", f"{fmean(percent):.2f} ± {stdev(percent):.2f}", "missing (0 of 3)", ""])
    assert rows[place + 1] == ["paper", "0.02M", "89.20 ± 0.98", "61.00 ± 2.96", "84.30"]
    assert rows[place + 2] == ["ours - paper", "", "+0.80", "", ""]
    assert ["LoRA", "7", "82.00 ± 2.83 (2 of 3)", "missing (0 of 3)", ""] in rows
    assert ["FT", "7", "**94.00 ± 1.00**", "missing (0 of 3)", ""] in rows
    assert "the classification head trains besides" in text
    assert "QQP of RED (large) is 88.8 in Table 1" in text  # slips of the paper are named
    assert "Table 14 prints 84.7" in text


def test_the_average_needs_every_column(tmp_path: Path) -> None:
    results, folder = filled(tmp_path)
    for cell in cells_of(results.study).values():
        if cell.labels["task"] == "cola" and cell.labels["method"] == "RED":
            finish(folder, cell, scores={"matthews": 0.5})
    results = collect(results.study, cells_of(results.study).values(), folder.state)
    assert results.mean(("RED",), "Avg") == pytest.approx((90 + 50) / 2)
    assert results.mean(("LoRA",), "Avg") is None
    assert results.best(("FT",), "Avg") == results.mean(("RED",), "Avg")


def test_the_authors_rule_is_named_and_needs_its_runs(tmp_path: Path) -> None:
    results, folder = filled(tmp_path, best_of={"mrpc": [2, 3]})
    text = markdown(results, folder.runs)
    assert "mrpc: mean of the best 2 of 3 seeds by the test score (the authors' rule)" in text
    assert results.mean(("RED",), "mrpc") == pytest.approx(91.0)
    assert ["LoRA", "7", "missing (2 of 3)", "missing (0 of 3)", ""] in table(text)
    assert "All seeds count here, not the best alone." in text
    plain = markdown(*_with(filled(tmp_path)))
    assert "authors' rule" not in plain
    assert "All seeds" not in plain


def _with(found: tuple[Results, StudyFolder]) -> tuple[Results, Path]:
    return found[0], found[1].runs


def test_columns_of_metrics_and_the_smaller_the_better(tmp_path: Path) -> None:
    axes = {"method": {"a": {}, "b": {}}, "seed": {"1": {}, "2": {}}}
    study = study_of(tmp_path, axes=axes, report={"rows": "method"})
    folder = StudyFolder(tmp_path / "out")
    for cell in cells_of(study).values():
        worse = cell.labels["method"] == "b"
        finish(
            folder, cell, scores={"loss": 2.0 + worse, "NIST": 8.5 - worse, "BLEU": 0.65 - worse / 10, "METEOR": None}
        )
    results = collect(study, cells_of(study).values(), folder.state)
    rows = table(markdown(results, folder.runs))
    assert rows[0] == ["method", "# parameters", "loss", "NIST", "BLEU", "METEOR"]
    assert rows[1] == ["a", "7", *(f"**{x} ± 0.00**" for x in ("2.00", "8.50", "65.00")), "missing (0 of 2)"]


def test_csv_has_every_number(tmp_path: Path) -> None:
    results, _ = filled(tmp_path)
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(rows) == 3 * 2
    (red,) = [row for row in rows if (row["method"], row["column"]) == ("RED", "mrpc")]
    assert float(red["mean"]) == pytest.approx(90)
    assert float(red["difference"]) == pytest.approx(0.8)
    assert (red["published"], red["published_deviation"], red["seeds"], red["expected"]) == ("89.2", "0.98", "3", "3")
    assert red["scores"] == "42:88 43:90 44:92"
    results.parameters["RED",] = {1234567, 9}
    assert "9 1234567" in as_csv(results)


def test_latex_escapes_what_is_special(tmp_path: Path) -> None:
    results, _ = filled(tmp_path)
    text = latex(results)
    assert r"FT & 7 & \textbf{94.00 $\pm$ 1.00} & missing (0 of 3) &  \\" in text
    assert r"method & \# parameters & mrpc & cola & Avg \\" in text
    assert text.count(r"\\") == 1 + 3 * 3


def test_failures_are_listed(tmp_path: Path) -> None:
    results, folder = filled(tmp_path)
    assert "## Failed\n\n- LoRA-mrpc-44: no rows" in markdown(
        results, folder.runs, failures={"LoRA-mrpc-44": "no rows"}
    )


def test_rows_are_compared_seed_by_seed(tmp_path: Path) -> None:
    results, folder = filled(tmp_path)
    found = against(results, folder.runs)
    assert set(found) == {(("FT",), "mrpc"), (("LoRA",), "mrpc")}
    lora, full = found[("LoRA",), "mrpc"], found[("FT",), "mrpc"]
    assert (lora.pairs, full.pairs) == (2, 3)
    assert lora.mean == pytest.approx(-7)
    assert full.mean == pytest.approx((7 + 3 + 2) / 3)
    assert full.low is not None and full.high is not None
    half = 4.3027 * stdev([7, 3, 2]) / 3**0.5
    assert (full.low, full.high) == (pytest.approx(4 - half, abs=1e-3), pytest.approx(4 + half, abs=1e-3))
    assert not full.is_clear and not full.rows
    text = markdown(results, folder.runs)
    assert "## Against RED" in text
    assert "95% interval over seeds (Student's t); * excludes 0" in text
    assert "+4.00 [-2.57, +10.57]" in text


@pytest.mark.parametrize("seeds", [2, 3, 5, 16])
@pytest.mark.parametrize("by_rows", [False, True])
def test_an_interval_covers_the_truth_as_often_as_it_says(seeds: int, by_rows: bool) -> None:
    """Differences of mean 0 that vary with the seed and, alike for all seeds, with the test rows."""
    generator = np.random.default_rng(seeds)
    covered = []
    for _ in range(4000):
        rows = generator.normal(size=400 if by_rows else 1)
        found = generator.normal(scale=0.08, size=seeds) + by_rows * rows.mean()
        draws = found[:, None] + generator.normal(scale=rows.std() / 20, size=(seeds, 100)) if by_rows else None
        low, high = interval(found, draws) or (0, 0)
        covered.append(low <= 0 <= high)
    assert 0.938 <= fmean(covered) <= (0.99 if by_rows else 0.962)


def test_students_t_is_that_of_the_tables() -> None:
    for freedom, value in {1: 12.706, 2: 4.303, 10: 2.228, 11: 2.201, 15: 2.131, 30: 2.042, 120: 1.980}.items():
        assert student(freedom) == pytest.approx(value, abs=2.5e-3)


def test_rows_follow_the_report_and_are_marked_within_a_group(tmp_path: Path) -> None:
    axes = {"method": {"b": {}, "a": {}}, "size": {"large": {}, "base": {}}, "seed": {"1": {}}}
    study = study_of(tmp_path, axes=axes, report={"rows": ["size", "method"]})
    folder = StudyFolder(tmp_path / "out")
    for cell in cells_of(study).values():
        better = (cell.labels["size"] == "large") / 2 + (cell.labels["method"] == "a") / 8
        finish(folder, cell, scores={"accuracy": better})
    results = collect(study, cells_of(study).values(), folder.state)
    text = markdown(results, folder.runs)
    assert [row[:2] for row in table(text)[1:]] == [["large", "b"], ["large", "a"], ["base", "b"], ["base", "a"]]
    assert [row[3] for row in table(text)[1:]] == ["50.00", "**62.50**", "0.00", "**12.50**"]
    assert "over 1 seed; the best of each column for each size is bold" in text
    lines = latex(results).splitlines()
    assert [index for index, line in enumerate(lines) if line == r"\midrule"] == [4, 7]


def write(path: Path, labels: list[object], references: list[object]) -> Path:
    lines = [
        json.dumps({"row": i, "label": a, "reference": b})
        for i, (a, b) in enumerate(zip(labels, references, strict=True))
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_interval_over_rows_is_that_of_the_binomial(tmp_path: Path) -> None:
    """400 rows, of which one run has 60 more right: the difference has a standard error of sqrt(p - d^2) / 20."""
    truth: list[object] = ["a"] * 400
    ours = write(tmp_path / "a", ["a"] * 300 + ["b"] * 100, truth)
    theirs = write(tmp_path / "b", ["a"] * 240 + [None] * 160, truth)
    found = compare({"1": 75.0}, {"1": 60.0}, [(ours, theirs)], "accuracy", 100)
    assert found is not None and found.low is not None and found.high is not None
    error = 100 * np.sqrt(0.15 - 0.15**2) / 20
    assert found.rows
    assert found.mean == 15
    assert found.low == pytest.approx(15 - 1.96 * error, abs=0.6)
    assert found.high == pytest.approx(15 + 1.96 * error, abs=0.6)


def test_without_rows_one_pair_has_no_interval(tmp_path: Path) -> None:
    one = compare({"1": 75.0}, {"1": 60.0, "2": 3.0})
    assert one is not None and (one.mean, one.low, one.pairs, one.is_clear) == (15, None, 1, False)
    assert compare({"1": 75.0}, {"2": 3.0}) is None
    other_rows = (write(tmp_path / "a", ["x"], ["x"]), write(tmp_path / "b", ["x"], ["y"]))
    other = compare({"1": 75.0}, {"1": 60.0}, [other_rows], "accuracy")
    assert other is not None and not other.rows


def test_scores_on_drawn_rows_are_those_of_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(3, size=50), generator.integers(3, size=50)
    b[:30] = a[:30]
    weights = generator.integers(4, size=50)
    rows = [torch.from_numpy(np.repeat(column, weights)) for column in (a, b)]
    theirs = matthews_corrcoef(rows[0], rows[1], task="multiclass", num_classes=3)
    assert matthews(a, b, weights) == pytest.approx(float(theirs), abs=1e-6)
    assert accuracy(a, b, weights) == pytest.approx(float((rows[0] == rows[1]).float().mean()), abs=1e-6)
    assert matthews(a, np.zeros_like(a), weights) == 0
    x, y = a + generator.normal(size=50), b + generator.normal(size=50)
    rows = [torch.from_numpy(np.repeat(column, weights)) for column in (x, y)]
    assert pearson(x, y, weights) == pytest.approx(float(pearson_corrcoef(*rows)), abs=1e-6)
    assert pearson(x, np.ones(50), weights) == 0


def test_the_picture_has_a_panel_for_each_column(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, _ = filled(tmp_path)
    draw_results(results, tmp_path / "scores.svg")
    drawn = (tmp_path / "scores.svg").read_text(encoding="utf-8")
    assert drawn.count('<g id="axes_') == 2


def test_what_chose_the_checkpoints_is_said_where_it_differs(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    folder = StudyFolder(tmp_path / "out")
    first, second, third = list(cells_of(study).values())[:3]
    asked = {"monitor": "val_score", "mode": "max", "score": 0.5, "step": 1, "wanted": "val_score", "reason": None}
    for cell in (first, second):
        finish(folder, cell, scores={"accuracy": 0.5}, selection=asked)
    assert "best checkpoint was chosen" not in markdown(collect(study, [first, second], folder.state), folder.runs)
    replaced = {**asked, "monitor": "val_loss", "mode": "min", "reason": "lm-eval is not installed"}
    finish(folder, third, scores={"accuracy": 0.5}, selection=replaced)
    text = markdown(collect(study, [first, second, third], folder.state), folder.runs)
    assert (
        "the best checkpoint was chosen by val_score in 2 of 3 runs and by val_loss in 1 of 3 runs; "
        "it was to be val_score (lm-eval is not installed)"
    ) in text
