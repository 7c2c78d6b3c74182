"""The radar picture has one closed line a model."""

from pathlib import Path

import pytest

from red_lightning.errors import UsageError
from red_lightning.pictures.radar import draw_radar

GRADES = {"writing": 9.0, "math": 1.5, "stem": 7.0, "coding": None}


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_draws_models(tmp_path: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"radar.{ending}"
    draw_radar({"mine": GRADES, "other $x$ _y": {"writing": 3.0}}, target, "title", {"RED (paper)": GRADES})
    assert target.read_bytes().startswith(start)
    if ending == "svg":
        shown = target.read_text(encoding="utf-8")
        assert all(f"<!-- {text} -->" in shown for text in ("mine", "other $x$ _y", "RED (paper)", "STEM", "Math"))


def test_bad_input(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="at least three categories, but there are 2"):
        draw_radar({"mine": {"a": 1.0, "b": 2.0}}, tmp_path / "a.png", "")
    with pytest.raises(UsageError, match="cannot be written"):
        draw_radar({"mine": GRADES}, tmp_path / "none/a.png", "")
