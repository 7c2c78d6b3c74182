"""The picture of the edits holds one panel per site and vector."""

import sys
from pathlib import Path

import pytest
import torch

from red_lightning import RED
from red_lightning.adapters import save_edits
from red_lightning.cli.draw import draw
from red_lightning.errors import UsageError
from red_lightning.pictures import draw_edits
from red_lightning.pictures.edits_by_layer import _panels
from tests.backbones_zoo import build


def save(folder: Path, red: RED) -> Path:
    record = {"backbone": "tiny", "fingerprint": "0", "method": red.describe()}
    save_edits(folder / "edits", red.apply(build("t5")), record)
    return folder


def test_panels_gather_the_layers_of_a_site() -> None:
    names = [f"h.{layer}.{site}.{vector}" for layer in (0, 1) for site in ("a", "b") for vector in ("scaling", "bias")]
    panels = _panels({name: torch.full((3,), float(index)) for index, name in enumerate(names)})
    assert sorted(panels) == [(f"h.*.{site}", vector) for site in ("a", "b") for vector in ("bias", "scaling")]
    assert {layer: vector[0].item() for layer, vector in panels["h.*.a", "scaling"].items()} == {0: 0.0, 1: 4.0}


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_draws_a_run(tmp_path: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"edits.{ending}"
    draw(save(tmp_path, RED(["ffn", "attention"])), target)
    assert target.read_bytes().startswith(start)


def test_one_vector_only_draws_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(save(tmp_path, RED(vectors="bias")) / "edits", tmp_path / "edits.png")
    assert (tmp_path / "edits.png").stat().st_size > 5_000


def test_bad_input_gets_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="holds no edits"):
        draw(tmp_path)
    with pytest.raises(UsageError, match="nothing to draw"):
        draw_edits({"transformer.wte.weight": torch.ones(3, 4)}, "", tmp_path / "a.png")
    run = save(tmp_path / "run", RED())
    with pytest.raises(UsageError, match="cannot be written"):
        draw(run, tmp_path / "missing" / "a.png")
    with pytest.raises(UsageError, match="cannot be written"):
        draw(run, tmp_path / "a.words")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        draw(run, tmp_path / "a.png")
