import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from red_lightning.errors import UsageError
from red_lightning.metrics import BLEU, E2E_METRICS, NIST, ROUGEL, CIDEr
from red_lightning.metrics.predictions import Row, pack, unpack
from red_lightning.metrics.text_metric import TextMetric

CLASSES: list[type[TextMetric]] = [BLEU, NIST, ROUGEL, CIDEr]


def scores_of(rows: list[Row]) -> dict[str, float]:
    """One update per row, and an update without rows, as uneven data loaders give them."""
    scores = {}
    for cls in CLASSES:
        metric = cls()
        metric.update([], [])
        for prediction, group in rows:
            metric.update([prediction], [list(group)])
        scores[cls.__name__] = metric.compute().item()
    return scores


def worker(rank: int, splits: list[list[list[Row]]], folder: str) -> None:
    """Score each split of the rows among two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps([scores_of(shares[rank]) for shares in splits]))
    os._exit(0)  # torch 2.7 may deadlock in the destructor of a Gloo group: it joins a thread that waits for the GIL


def test_two_processes_equal_one_bit_for_bit(random_rows: list[Row], tmp_path: Path) -> None:
    uneven, second_empty, first_empty = 47, len(random_rows), 0
    splits = [[random_rows[:n], random_rows[n:]] for n in (uneven, second_empty, first_empty)]
    multiprocessing.spawn(worker, (splits, str(tmp_path)), nprocs=2)
    expected = scores_of(random_rows[::-1])
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [expected] * len(splits)


def test_rows_survive_packing() -> None:
    rows: list[Row] = [("b\n|||\u2028", ("é £", "")), ("a\ud800", ("x",)), ("", ("",))]
    assert unpack(torch.cat([pack(rows[:1]), pack([]), pack(rows[1:])])) == sorted(rows)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("cls", CLASSES)
def test_no_rows_say_so(cls: type[TextMetric]) -> None:
    with pytest.raises(UsageError, match=f"{cls.__name__} has no rows"):
        cls().compute()


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [], "1 predictions for 0 groups"),
        (["a", "b"], [["a"], []], "Row 1 has no reference"),
        (["a"], ["a"], r"row 0 are one string; give a list of strings, \['a'\]"),
        ("a", [["a"]], "got one string for 1 groups"),
        ([3], [["a"]], "Row 0 holds something that is not text"),
    ],
)
def test_bad_rows(predictions: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BLEU().update(predictions, references)


def test_forward_reset_and_pickle() -> None:
    metric = ROUGEL()
    assert metric(["a pub"], [["a pub"]]).item() == pytest.approx(1)
    assert metric(["a"], [["b"]]).item() == 0
    assert pickle.loads(pickle.dumps(metric)).compute().item() == pytest.approx(0.5)
    metric.reset()
    metric.update(["a"], [["b"]])
    assert metric.compute().item() == 0
    assert metric.compute().dtype == torch.float64


def test_names_are_in_the_order_of_the_official_script() -> None:
    assert list(E2E_METRICS) == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]
