"""The scores of classifiers equal closed forms, however the rows are spread over batches and processes."""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torchmetrics import Metric

from red_lightning.errors import UsageError
from red_lightning.metrics import CLASS_METRICS, NUMBER_METRICS, Confusion, check_metrics, per_class

Pair = tuple[np.ndarray, np.ndarray]

# predictions and targets by the number of classes; a prediction equal to that number is no class
CASES: dict[str, tuple[int, list[int], list[int]]] = {
    "mixed": (2, [1, 0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0, 1]),
    "all right": (2, [1, 0, 1], [1, 0, 1]),
    "all wrong": (2, [0, 1, 0], [1, 0, 1]),
    "all one class": (2, [1, 1, 1], [1, 0, 1]),
    "constant targets": (2, [1, 0, 1], [0, 0, 0]),
    "both constant and right": (2, [0, 0], [0, 0]),
    "both constant and wrong": (2, [1, 1], [0, 0]),
    "some no class": (2, [2, 0, 1, 2, 0], [1, 0, 1, 0, 1]),
    "only no class": (2, [2, 2], [1, 0]),
    "one row": (2, [1], [1]),
    "three": (3, [0, 1, 2, 2, 1, 0, 3, 1], [0, 1, 2, 1, 1, 2, 0, 0]),
    "three all right": (3, [2, 0, 1, 1], [2, 0, 1, 1]),
    "three all wrong": (3, [1, 2, 0, 2], [0, 1, 2, 0]),
    "class absent": (3, [0, 1, 0, 1], [0, 1, 1, 1]),
    "class never true": (3, [0, 2, 0, 1], [0, 1, 1, 1]),
    "class never predicted": (3, [0, 1, 0, 1], [0, 2, 1, 1]),
    "three only no class": (3, [3, 3, 3], [0, 1, 2]),
}


def count(classes: int, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    table = np.zeros((classes, classes + 1), dtype=int)
    for prediction, target in zip(predictions, targets, strict=True):
        table[target, prediction] += 1
    return table


def f1_of(table: np.ndarray, label: int) -> float:
    """From precision and recall, which are independent of the formula under test."""
    hits, true, predicted = table[label, label], table[label].sum(), table[:, label].sum()
    if hits == 0:
        return 0.0
    precision, recall = hits / predicted, hits / true
    return 2 * precision * recall / (precision + recall)


def correlation_of_indicators(classes: int, predictions: np.ndarray, targets: np.ndarray) -> float:
    """Gorodkin's definition: the covariance of the indicators of the classes, summed over the classes."""
    x, y = (np.eye(classes + 1)[side] for side in (predictions, targets))
    x, y = x - x.mean(0), y - y.mean(0)
    spread = (x * x).sum() * (y * y).sum()
    return (x * y).sum() / math.sqrt(spread) if spread > 1e-12 else 0.0


def class_scores(classes: int, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    table = count(classes, predictions, targets)
    scores = {
        "accuracy": float((predictions == targets).mean()),
        "macro_f1": sum(f1_of(table, label) for label in range(classes)) / classes,
        "matthews": correlation_of_indicators(classes, predictions, targets),
    }
    return scores | ({"f1": f1_of(table, 1)} if classes == 2 else {})


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """By definition: each number's rank is the mean of the places that its equals take."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def compute(metric: Metric, predictions: object, targets: object) -> float:
    metric.update(torch.as_tensor(predictions), torch.as_tensor(targets))
    return metric.compute().item()


def random_classes(classes: int, rows: int, seed: int) -> Pair:
    source = np.random.default_rng(seed)
    return source.integers(0, classes + 1, rows), source.integers(0, classes, rows)


def random_numbers(rows: int, seed: int) -> Pair:
    """Numbers with many ties, as similarity scores have them."""
    source = np.random.default_rng(seed)
    targets = source.integers(0, 21, rows) / 4
    return np.round(targets + source.normal(size=rows), 1), targets


@pytest.mark.parametrize("case", CASES)
def test_classes_equal_closed_forms(case: str) -> None:
    classes, *sides = CASES[case]
    predictions, targets = (np.array(side) for side in sides)
    for name, expected in class_scores(classes, predictions, targets).items():
        assert compute(CLASS_METRICS[name](classes), predictions, targets) == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_many_random_rows_equal_closed_forms(classes: int) -> None:
    predictions, targets = random_classes(classes, 500, seed=classes)
    predictions = np.where(np.random.default_rng(0).random(500) < 0.6, targets, predictions)
    for name, expected in class_scores(classes, predictions, targets).items():
        assert compute(CLASS_METRICS[name](classes), predictions, targets) == pytest.approx(expected, abs=1e-6), name
    table = Confusion(classes)
    table.update(torch.as_tensor(predictions), torch.as_tensor(targets))
    assert table.compute().dtype == torch.int64
    assert table.compute().tolist() == count(classes, predictions, targets).tolist()


@pytest.mark.parametrize(
    ("case", "name", "expected"),
    [
        ("all right", "matthews", 1.0),
        ("three all right", "matthews", 1.0),
        ("all wrong", "matthews", -1.0),
        ("all one class", "matthews", 0.0),
        ("both constant and right", "matthews", 0.0),
        ("both constant and right", "f1", 0.0),
        ("only no class", "accuracy", 0.0),
        ("some no class", "accuracy", 2 / 5),
        ("some no class", "f1", 1 / 2),
        ("some no class", "macro_f1", 1 / 2),
        ("class absent", "macro_f1", (2 / 3 + 4 / 5 + 0) / 3),
    ],
)
def test_known_values(case: str, name: str, expected: float) -> None:
    classes, predictions, targets = CASES[case]
    assert compute(CLASS_METRICS[name](classes), predictions, targets) == pytest.approx(expected, abs=1e-6)


def test_correlations_equal_closed_forms() -> None:
    predictions, targets = (torch.as_tensor(side).float() for side in random_numbers(300, seed=1))
    x, y = predictions.double().numpy(), targets.double().numpy()
    assert compute(NUMBER_METRICS["pearson"](), predictions, targets) == pytest.approx(pearson(x, y), abs=1e-6)
    expected = pearson(ranks(x), ranks(y))
    assert compute(NUMBER_METRICS["spearman"](), predictions, targets) == pytest.approx(expected, abs=1e-6)
    assert compute(NUMBER_METRICS["mse"](), predictions, targets) == pytest.approx(float(((x - y) ** 2).mean()))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        ([0.1] * 3, [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0, 3.0], [0.1] * 3, 0.0),
        ([0.1] * 3, [0.7] * 3, 0.0),
        ([2.0], [3.0], 0.0),
        ([0.0, -0.0], [1.0, 2.0], 0.0),
        ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0], math.nan),
        ([1.0, math.inf, 3.0], [1.0, 2.0, 3.0], math.nan),
        ([math.nan] * 3, [1.0, 2.0, 3.0], math.nan),
        ([math.nan, 1.0, 1.0], [1.0] * 3, math.nan),
        ([-math.inf] * 2, [1.0] * 2, math.nan),
    ],
)
def test_constants_give_zero_and_nan_is_never_hidden(
    name: str, predictions: list[float], targets: list[float], expected: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute(NUMBER_METRICS[name](), predictions, targets) == pytest.approx(expected, nan_ok=True)


def all_metrics() -> Iterator[tuple[str, Callable[[], Metric], Pair]]:
    for classes in (2, 3):
        for name, make in CLASS_METRICS.items():
            if name != "f1" or classes == 2:
                yield f"{name} of {classes}", partial(make, classes), random_classes(classes, 41, seed=3)
    yield "confusion", partial(Confusion, 3), random_classes(3, 41, seed=3)
    for name, number in NUMBER_METRICS.items():
        yield name, number, random_numbers(41, seed=3)


def scores_of(cuts: list[int], reverse: bool = False, part: slice = slice(None)) -> dict[str, list]:
    """The values of all metrics, updated with the rows between the cuts."""
    scores = {}
    for name, make, sides in all_metrics():
        predictions, targets = (torch.as_tensor(side[part]) for side in sides)
        metric = make()
        batches = list(zip(predictions.tensor_split(cuts), targets.tensor_split(cuts), strict=True))
        for batch in batches[:: -1 if reverse else 1]:
            if len(batch[0]):
                metric.update(*batch)
        scores[name] = metric.compute().tolist()
    return scores


def same(scores: dict[str, list], expected: dict[str, list]) -> bool:
    return scores.keys() == expected.keys() and all(np.allclose(scores[name], expected[name]) for name in expected)


def test_batches_and_their_order_make_no_difference() -> None:
    expected = scores_of([])
    assert same(scores_of([1, 8, 8, 30]), expected)
    assert same(scores_of(list(range(1, 41)), reverse=True), expected)


def worker(rank: int, cuts: list[int], folder: str) -> None:
    """Score the rows below each cut on the first process, the others on the second."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    scores = [scores_of([2], part=slice(cut, None) if rank else slice(cut)) for cut in cuts]
    Path(folder, f"{rank}.json").write_text(json.dumps(scores))
    os._exit(0)  # torch 2.7 may deadlock in the destructor of a Gloo group: it joins a thread that waits for the GIL


def test_two_processes_equal_one(tmp_path: Path) -> None:
    cuts = [15, 0, 41]  # uneven, the first process without a row, the second
    multiprocessing.spawn(worker, (cuts, str(tmp_path)), nprocs=2)
    for rank in range(2):
        for scores in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert same(scores, scores_of([]))


def test_per_class() -> None:
    table = torch.tensor([[3, 1, 0, 2], [0, 0, 0, 0], [2, 0, 2, 0]])
    assert per_class(table, ["a", "b", "c"]) == {
        "a": {"precision": 3 / 5, "recall": 3 / 6, "f1": 6 / 11, "support": 6},
        "b": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
        "c": {"precision": 1.0, "recall": 2 / 4, "f1": 4 / 6, "support": 4},
    }
    assert json.loads(json.dumps(per_class(table, "abc")))["b"]["support"] == 0
    with pytest.raises(ValueError, match="shorter"):
        per_class(table, ["a", "b"])


def test_fitting_metrics_pass() -> None:
    check_metrics(list(CLASS_METRICS), 2)
    check_metrics(["accuracy", "macro_f1", "matthews"], 3)
    check_metrics(list(NUMBER_METRICS), 0)
    check_metrics([], 0)


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        (
            "acuracy",
            2,
            "unknown metric 'acuracy': did you mean 'accuracy'? known: accuracy, f1, macro_f1, mae, matthews, mse",
        ),
        ("spearmann", 2, "did you mean 'spearman'?"),
        ("f1", 3, "the metric 'f1' needs two classes, but there are 3; choose macro_f1"),
        (
            "pearson",
            2,
            "the metric 'pearson' measures numbers, but the labels are classes; "
            "choose accuracy or f1 or macro_f1 or matthews",
        ),
        ("mse", 3, "measures numbers, but the labels are classes; choose accuracy or macro_f1 or matthews"),
        ("f1", 0, "the metric 'f1' measures classes, but the labels are numbers; choose pearson or spearman or mse"),
    ],
)
def test_unfitting_metrics_say_why(name: str, classes: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_metrics([*(["accuracy"] if classes else ["pearson"]), name], classes)
    assert message in str(caught.value)
    if name == "f1" and classes:
        with pytest.raises(UsageError) as caught:
            CLASS_METRICS[name](classes)
        assert str(caught.value) == message
