"""The file of scores of one model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from red_lightning.evaluation.open_llm_scores import Questions, Scores


def test_a_changed_description_is_scored_anew(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    candidate: Any = SimpleNamespace(identity={"model": "m"})
    (tmp_path / "own/__pycache__").mkdir(parents=True)
    description = tmp_path / "own/short.yaml"
    description.write_text("task: short")

    def scores() -> Scores:
        return Scores(tmp_path / "out", candidate, Questions(include_path=str(tmp_path / "own")))

    scores().keep("short", {"score": 0.5})
    (tmp_path / "own/__pycache__/utils.pyc").touch()  # which lm-eval leaves there
    assert scores().has("short")
    description.write_text("task: short\nnum_fewshot: 1")
    assert not scores().has("short") and scores().was_asked_otherwise("short")
