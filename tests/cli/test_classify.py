"""A classifier of one's own texts through the command line: fit, test, predict, and what is refused."""

import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.backbones_zoo import save_backbone
from tests.cli.commands import results, rows, write_classifier, write_texts
from tests.cli.conftest import CLI, Outcome

FIT = ("fit", "--config", "texts.yaml")


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone("roberta", tmp_path_factory.mktemp("backbones") / "roberta")


@pytest.fixture
def texts(tmp_path: Path, roberta_folder: Path) -> Path:
    """An experiment on 60 texts of three classes, called ``texts.yaml``."""
    return write_classifier(tmp_path, roberta_folder)


@pytest.fixture
def trained(cli: CLI, texts: Path) -> Outcome:
    outcome = cli(*FIT, "--run.name", "first")
    assert outcome.status == 0, outcome.err
    return outcome


def test_fit_counts_the_head_apart_and_saves_it(trained: Outcome, tmp_path: Path) -> None:
    run = tmp_path / "runs/first"
    vectors, head = 2 * 2 * 32, 32 * 32 + 32 + 3 * 32 + 3
    assert f"training {vectors} of" in trained.out
    assert f"and the head's {head:,}" in trained.out
    written = results(run)
    assert written["trainable_parameters"] == vectors
    assert written["head_parameters"] == head
    assert written["labels"] == ["french", "italian", "thai"]
    assert written["head"] == {"pooling": "first", "hidden": True, "dropout": 0.5}
    assert list(written["scores"]) == ["accuracy", "macro_f1"]
    assert written["data"]["rows"] == {"train": 48, "validation": 6, "test": 6}
    tensors = load_file(run / "edits/edits.safetensors")
    assert sum(t.numel() for name, t in tensors.items() if name.startswith("head.")) == head
    assert sum(t.numel() for name, t in tensors.items() if not name.startswith("head.")) == vectors
    assert json.loads((run / "edits/edits.json").read_text())["labels"] == written["labels"]


def test_test_prints_each_class_and_draws_the_confusion(trained: Outcome, cli: CLI, tmp_path: Path) -> None:
    shown = cli("test", "--config", "texts.yaml", "--ckpt_path", "runs/first/checkpoints/best.ckpt", "--run.name", "t")
    assert shown.status == 0, shown.err
    run = tmp_path / "runs/t"
    predictions, written = rows(run / "test_predictions.jsonl"), results(run)
    for name in ("french", "italian", "thai"):
        line = next(line for line in shown.out.splitlines() if line.startswith(f"│ {name} "))
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        right = sum(row["label"] == row["reference"] == name for row in predictions)
        said = sum(row["label"] == name for row in predictions)
        true = sum(row["reference"] == name for row in predictions)
        assert cells[1:3] == [f"{right / max(1, said):.4f}", f"{right / true:.4f}"]
        assert cells[4] == str(true)
    assert sum(map(sum, written["confusion"])) == len(predictions) == 6
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert written["scores"] == results(tmp_path / "runs/first")["scores"]


def test_predict_needs_a_file_of_texts_only(trained: Outcome, cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("pub serves Thai food\n\nBurger King serves French food\n", encoding="utf-8")
    (tmp_path / "train.csv").unlink()
    options = ("--ckpt_path", "runs/first/checkpoints/best.ckpt", "--data.predict_file", "new.txt")
    shown = cli("predict", "--config", "texts.yaml", *options, "--run.name", "p")
    assert shown.status == 0, shown.err
    written = rows(tmp_path / "runs/p/predictions.jsonl")
    assert [row["text"] for row in written] == ["pub serves Thai food", "Burger King serves French food"]
    for row in written:
        assert list(row["scores"]) == ["french", "italian", "thai"]
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["scores"], key=row["scores"].get)
        assert "reference" not in row


def test_rows_that_were_trained_on_are_not_tested(trained: Outcome, cli: CLI, tmp_path: Path) -> None:
    options = ("test", "--config", "texts.yaml", "--ckpt_path", "runs/first/checkpoints/best.ckpt")
    seeded = cli(*options, "--seed_everything", "8").error
    assert "rows were held out by seed 7, now 8: rows that it was trained on or chosen by would be scored" in seeded
    assert cli(*options, "--seed_everything", "8", "--data.seed", "7").status == 0
    assert "rows were held out by test_share 0.1, now 0.5" in cli(*options, "--data.test_share", "0.5").error
    new = write_texts(tmp_path / "new.csv", ["thai", "italian", "french"], 9)
    assert cli(*options, "--data.test_file", str(new), "--data.validation_file", str(new)).status == 0
    assert cli(*options).status == 0
    scores = json.loads(newest(tmp_path / "runs", "results.json").read_text(encoding="utf-8"))["scores"]
    header, *lines = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    text = "\n".join([header, *random.Random(0).sample(lines, len(lines))]) + "\n"
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    shown = cli(*options)  # the same rows are tested, in another order
    assert "'train.csv' have another order than in the training; the same are held out" in shown.out
    assert json.loads(newest(tmp_path / "runs", "results.json").read_text(encoding="utf-8"))["scores"] == scores
    with (tmp_path / "train.csv").open("a", encoding="utf-8") as file:
        file.write("one more,thai\n")
    error = cli(*options).error
    assert error.startswith(
        "'train.csv' has changed since the checkpoint was trained: it had 60 rows and has 61 now; 0 of"
    )
    kept = cli(*options, "--data.changed_rows", "keep")
    assert kept.status == 0 and "the others stay held out" in kept.out
    assert json.loads(newest(tmp_path / "runs", "results.json").read_text(encoding="utf-8"))["scores"] == scores


def newest(folder: Path, name: str) -> Path:
    return max(folder.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime_ns)


def test_best_is_that_of_the_same_data(cli: CLI, texts: Path, tmp_path: Path) -> None:
    fit = ("fit", "--config", "texts.yaml", "--trainer.max_epochs", "1")
    predict = ("predict", "--config", "texts.yaml", "--ckpt_path", "best")
    assert cli(*fit).status == 0
    other = write_texts(tmp_path / "other.csv", ["thai", "italian"])
    assert cli(*fit, "--data.train_file", str(other)).status == 0
    first = min((tmp_path / "runs").glob("*/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert f"checkpoint: {first.relative_to(tmp_path)}" in cli(*predict).out
    error = cli(*predict, "--data.train_file", "third.csv").error
    assert "finds no run of texts with these data" in error and "has data.train_file" in error


def test_a_labelled_file_is_tested_without_training_rows(trained: Outcome, cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "train.csv").rename(tmp_path / "new.csv")
    options = ("--ckpt_path", "runs/first/checkpoints/best.ckpt", "--data.test_file", "new.csv")
    shown = cli("test", "--config", "texts.yaml", *options)
    assert shown.status == 0, shown.err


def test_predict_needs_a_trained_head(cli: CLI, texts: Path) -> None:
    assert cli("predict", "--config", "texts.yaml").error == "predict would use an untrained head; give --ckpt_path"
    shown = cli("test", "--config", "texts.yaml")
    assert "this is the untrained head" in shown.out


def test_one_bad_number_does_not_make_classes(cli: CLI, texts: Path, tmp_path: Path) -> None:
    numbers = [f"{index / 7:.3f}" for index in range(59)]
    lines = [f"text {index},{number}\n" for index, number in enumerate([*numbers, "n/a"])]
    (tmp_path / "train.csv").write_text("".join(["text,label\n", *lines]), encoding="utf-8")
    assert "59 of the 60 labels in 'train.csv' are numbers, but row 60 has 'n/a'" in cli(*FIT).error


def test_shipped_parts_are_found_from_anywhere(cli: CLI, texts: Path, tmp_path: Path) -> None:
    for part in ("methods/red_plus.yaml", "configs/methods/red_plus.yaml"):
        shown = cli("parameters", "--config", "texts.yaml", "--model.method", part)
        assert shown.status == 0, shown.err
        assert "RED (sites: ['query', 'key', 'value', 'attention', 'ffn']" in shown.out
    error = cli("parameters", "--config", "texts.yaml", "--model.method=methods/red_pls.yaml").error
    assert "'methods/red_pls.yaml' does not exist" in error
    assert "did you mean 'methods/red_plus.yaml'?" in error


def test_numbers_are_predicted_as_such(cli: CLI, texts: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "train.csv", ["0.5", "2.0", "4.25"])
    assert cli(*FIT, "--run.name", "numbers").status == 0
    run = tmp_path / "runs/numbers"
    assert list(results(run)["scores"]) == ["pearson", "spearman", "rmse", "mae"]
    assert not (run / "confusion.png").exists()
    assert all(isinstance(row["label"], float) for row in rows(run / "test_predictions.jsonl"))


def test_overlap_is_told_before_training(cli: CLI, texts: Path, tmp_path: Path) -> None:
    lines = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[1:4], "quite new,thai"]) + "\n", encoding="utf-8")
    shown = cli(*FIT, "--data.test_file", "test.csv", "--data.validation_file", "test.csv", "--run.name", "x")
    assert shown.status == 0, shown.err
    assert "warning: 3 of the 4 test rows are training rows too" in shown.out


def test_parameters_shows_the_head_apart(cli: CLI, texts: Path) -> None:
    shown = cli("parameters", "--config", "texts.yaml")
    assert shown.status == 0, shown.err
    assert "128" in shown.out
    assert "besides, the head trains 1,155 numbers" in shown.out


def test_head_of_other_labels_is_refused(trained: Outcome, cli: CLI, tmp_path: Path) -> None:
    write_texts(tmp_path / "train.csv", ["thai", "italian"])
    options = ("--ckpt_path", "runs/first/checkpoints/best.ckpt", "--data.changed_rows", "keep")
    error = cli("test", "--config", "texts.yaml", *options).error
    assert "trained for 3 classes (french, italian, thai), but the data have 2 classes (italian, thai)" in error


REFUSED = {
    "unknown task": (["--data", "GLUE", "--data.task", "mrcp"], "unknown GLUE task 'mrcp': did you mean 'mrpc'?"),
    "number metric": (["--model.metrics", "[pearson]"], "'pearson' measures numbers, but the labels are classes"),
    "unknown metric": (["--model.metrics", "[acuracy]"], "did you mean 'accuracy'?"),
    "f1 of three": (["--model.metrics", "[f1]"], "'f1' needs two classes, but there are 3"),
    "length": (["--data.max_length", "100"], "has 64 positions"),
    "column": (["--data.text_column", "txt"], "has no column 'txt': did you mean 'text'?"),
    "weights": (["--model.class_weights", "{tai: 2.0}"], "names 'tai', which is no class: did you mean 'thai'?"),
    "share": (["--data.train_size", "1.5"], "data.train_size is 1.5"),
    "many rows": (["--data.train_size", "100"], "data.train_size is 100, but the train split has 48 rows"),
    "shares": (["--data.test_share", "0.95"], "leave no training rows"),
    "task": (
        ["--model", "DataToText", "--checkpoint.monitor", "val_loss", "--checkpoint.mode", "min"],
        "DataToText cannot read the data module LabeledTexts",
    ),
    "mode": (["--checkpoint.mode", "min"], "val_score is best when largest; give --checkpoint.mode max"),
    "no mode": (["--checkpoint.monitor", "val_loss"], "val_loss is best when smallest; give --checkpoint.mode min"),
    "no list": (["--model.metrics", "accuracy"], "it takes a list such as '[a, b]'"),
    "no pooler": (["--model.head.pooling", "pooler"], "has no pretrained pooler; choose model.head.pooling first"),
    "monitor": (["--checkpoint.monitor", "val_acc"], "did you mean 'val_accuracy'?"),
    "pooler": (
        ["--model.head.pooling", "middle"],
        "model.head.pooling cannot be 'middle': it takes one of first, mean, last, pooler or null",
    ),
    "head": (["--model.head.poling", "first"], "model has no option 'head.poling'; --model.help Classification"),
    "labels": (["--data.labels", "[thai, italian, frnch]"], "has the label 'french', which is none of the classes"),
    "regression": (["--data.regression", "true"], "the label 'thai' in 'train.csv' is no number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, cli: CLI, texts: Path, tmp_path: Path) -> None:
    options, sentence = REFUSED[case]
    assert sentence in cli(*FIT, *options).error
    assert not any((tmp_path / "runs").glob("*/*")) if (tmp_path / "runs").exists() else True


def test_a_class_too_small_to_split_is_refused(cli: CLI, texts: Path, tmp_path: Path) -> None:
    with (tmp_path / "train.csv").open("a", encoding="utf-8") as file:
        file.write("a rare one,rare\n")
    assert "the class 'rare' has too few rows in 'train.csv' (1) for the 3 splits" in cli(*FIT).error
