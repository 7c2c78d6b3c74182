"""The command ``push`` without a hub: dry runs, cards, and refusals before anything is sent."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from red_lightning.export import merged_checkpoint
from tests.cli.conftest import CLI
from tests.export.pushes import leave_run


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A run on the backbone that ships with the package."""
    leave_run(tmp_path / "mine", "quickstart")
    return tmp_path / "mine"


def test_a_dry_run_shows_the_card_and_the_files(mine: Path, cli: CLI) -> None:
    done = cli("push", "mine", "--to", "me/mine", "--dry_run", "true")
    assert done.status == 0, done.err
    card, files = done.out.split("would push edits.safetensors")
    assert ModelCard(card).data.library_name == "red_lightning" and "| steps | 77 |" in card
    assert "would push edits.json" in files and "would push README.md" in files
    assert "alice" not in done.out and str(mine) not in done.out


def test_a_card_is_written_once_and_then_the_users(mine: Path, cli: CLI) -> None:
    line = ("push", "mine", "--to", "me/mine", "--dry_run", "true", "--card", "card.md")
    assert cli(*line).status == 0
    card = mine.with_name("card.md")
    assert ModelCard(card.read_text(encoding="utf-8")).data.pipeline_tag == "text-generation"
    card.write_text("---\nlicense: mit\n---\nmine", encoding="utf-8")
    done = cli(*line)
    assert f"would push README.md ({card.stat().st_size} bytes)" in done.out
    assert card.read_text(encoding="utf-8").endswith("mine")


def test_a_dry_run_writes_no_merged_weights(mine: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_checkpoint, "write_shards", lambda *_: pytest.fail("the weights are written"))
    mine.with_name("scratch").mkdir()
    options = ("--format", "merged", "--scratch", "scratch", "--dry_run", "true")
    done = cli("push", "mine", "--to", "me/mine", *options)
    assert done.status == 0, done.err
    assert "writing the merged model" not in done.out and "would push config.json" in done.out
    assert "would push model*.safetensors (" in done.out and "would push edits.json" not in done.out
    assert not [*mine.with_name("scratch").iterdir()]


def test_refusals_before_anything_is_sent(mine: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine.parent / "bad.md").write_text("---\n- a\n---\n", encoding="utf-8")
    push = ("push", "mine", "--to", "me/mine")
    assert cli(*push).error == (
        "nothing was pushed to 'me/mine': HF_HUB_OFFLINE is set; check the connection, or see what would be pushed "
        "with --dry_run true"
    )
    assert "the card 'absent.md' cannot be read" in cli(*push, "--card", "absent.md").error
    assert "the card 'bad.md' has metadata that are no YAML of a model card" in cli(*push, "--card", "bad.md").error
    assert "must be a hub id" in cli(*push, "--backbone", str(mine)).error
    for name in ("mine", "a/b/c", "/me/mine", "me/mi ne"):
        assert f"--to is '{name}', but must be a hub id" in cli("push", "mine", "--to", name).error
    assert "holds no edits" in cli("push", str(mine.parent), "--to", "me/mine").error
    (mine.parent / "exported").mkdir()
    (mine.parent / "exported/config.json").touch()
    exported = cli("push", "exported", "--to", "me/mine").error
    assert exported == "'exported' is a model without edits; name the run's folder, with --format merged for the model"
    assert "scratch" in cli(*push, "--format", "merged", "--dry_run", "true", "--scratch", "absent").error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert "http://127.0.0.1:9 cannot be reached" in cli(*push).error
