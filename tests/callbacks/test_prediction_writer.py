"""The files that test and predict write."""

import json
from pathlib import Path
from typing import Any

import pytest

from red_lightning.callbacks import PredictionWriter
from red_lightning.data import TextPairs
from tests.training import make_data, make_task, make_trainer, write_pairs


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]


def test_test_writes_each_source_in_the_files_order(gpt2_folder: Path, tmp_path: Path) -> None:
    rows = []
    for size in (1, 3, 16):
        writer = PredictionWriter()
        trainer = make_trainer(tmp_path, callbacks=[writer])
        trainer.test(make_task(gpt2_folder), datamodule=make_data(tmp_path, eval_batch_size=size), verbose=False)
        rows.append(read(tmp_path / "test_predictions.jsonl"))
        assert writer.rows == rows[-1]
    assert rows[0] == rows[1] == rows[2]
    given: dict[str, list[str]] = {}
    for line in (tmp_path / "validation.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        given.setdefault(row["source"], []).append(row["target"])
    assert [row["source"] for row in rows[0]] == list(given)
    assert [row["references"] for row in rows[0]] == list(given.values())
    assert [row["row"] for row in rows[0]] == [0, 1, 2, 3]
    assert all(set(row) == {"row", "source", "prediction", "references"} for row in rows[0])


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_predict_needs_sources_only(encoder_decoder: bool, gpt2_folder: Path, t5_folder: Path, tmp_path: Path) -> None:
    sources = ["a much longer source than the others are", "ünï\u2028cödé 日本", "two\nlines", "b"]
    file = tmp_path / "predict.jsonl"
    file.write_text("".join(json.dumps({"source": source}) + "\n" for source in sources))
    data = TextPairs(predict_file=str(file), eval_batch_size=2)
    trainer = make_trainer(tmp_path, callbacks=[PredictionWriter(predict_file="mine.jsonl")])
    task = make_task(t5_folder if encoder_decoder else gpt2_folder)
    returned = trainer.predict(task, datamodule=data)
    written = read(tmp_path / "mine.jsonl")
    assert [row["source"] for row in written] == sources
    assert [row["references"] for row in written] == [[]] * 4
    assert returned is not None
    assert written == sorted((row for batch in returned for row in batch), key=lambda row: row["row"])


def test_a_second_run_starts_afresh(gpt2_folder: Path, tmp_path: Path) -> None:
    writer = PredictionWriter("first.jsonl", "second.jsonl")
    trainer = make_trainer(tmp_path, callbacks=[writer])
    task, data = make_task(gpt2_folder), make_data(tmp_path)
    trainer.test(task, datamodule=data, verbose=False)
    trainer.predict(task, datamodule=data)
    assert read(tmp_path / "first.jsonl") == read(tmp_path / "second.jsonl")
    write_pairs(tmp_path / "validation.jsonl", 2)
    trainer.test(task, datamodule=TextPairs(test_file=str(tmp_path / "validation.jsonl")), verbose=False)
    assert len(read(tmp_path / "first.jsonl")) == 2
