"""Classes that look alike are one class, and values of YAML are the classes that a person means."""

from pathlib import Path

import pytest

from red_lightning.data import LabeledTexts
from red_lightning.data.label_names import merge_alike, spelled
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer


def test_labels_that_look_alike_have_one_spelling() -> None:
    labels = ["1", "1.0", "01", "caf\u00e9", "cafe\u0301", "good", "good\u200b", "2"]
    assert merge_alike(labels) == {
        "1": "1", "1.0": "1", "01": "01", "caf\u00e9": "caf\u00e9", "cafe\u0301": "caf\u00e9",
        "good": "good", "good\u200b": "good", "2": "2",
    }  # fmt: skip
    assert merge_alike(["1", "x"], ["1.0"]) == {"1": "1.0", "x": "x"}
    assert merge_alike(["A", "a", "nan", "inf"]) == {name: name for name in ("A", "a", "nan", "inf")}


@pytest.mark.parametrize(
    ("value", "names", "expected"),
    [
        (False, ["no", "yes"], "no"), (True, ["off", "On"], "On"), (0, ["0", "1"], "0"), (1.0, ["1", "2"], "1"),
        (7, ["a"], "7"), ("no", [], "no"), (False, ["False", "True"], "False"),
    ],
)  # fmt: skip
def test_values_of_yaml(value: str | float, names: list[str], expected: str) -> None:
    assert spelled(value, names, "data.labels") == expected


def test_a_boolean_that_means_no_class_is_to_be_quoted() -> None:
    with pytest.raises(UsageError, match=r"data\.labels has no or false without quotes, .* Quote it, such as \"no\""):
        spelled(False, ["no", "off"], "data.labels")


def test_a_file_with_labels_that_look_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"t{n},{label}" for n in range(8) for label in ("1", "1.0", "2")]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    data = LabeledTexts(str(path))
    data.connect(build_tokenizer(), False)
    data.setup("fit")
    assert data.labels == ["1", "2"]
    assert f"the label '1.0' of '{path}' looks like '1': 8 rows are read as that" in data.warnings
    assert LabeledTexts(str(path), labels=[1, 2]).label_names() == ["1", "2"]
    with pytest.raises(UsageError, match=r"data\.text_column is None; give the name of a column"):
        LabeledTexts(str(path), text_column=None)  # type: ignore[arg-type]
