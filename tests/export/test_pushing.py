"""Pushing to the hub's stand-in, loading back from there, and every refusal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch import Tensor

from tests.backbones_zoo import build, save_backbone
from tests.cli.commands import environment
from tests.export import pushes
from tests.export.exports import PROGRAM, TOKENS

TOKEN = "hf_test"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's working folder."""
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def found(shared: Path, place: Path) -> Iterator[dict[str, Any]]:
    """What the client found, and the logits of the merged model by plain transformers from the hub."""
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        from serve import client_env, serve
    finally:
        sys.path.pop(0)
    for name in ("hub/org/gpt2", "private/gpt2"):
        save_backbone("gpt2", place / name)
    (place / "hub/org/gpt2/README.md").write_text(
        "---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n", encoding="utf-8"
    )
    save_backbone("gpt2", place / "hub/org/wide", layers=3)
    with serve(place / "hub", uploads=place / "uploads", limit=pushes.LARGE, token=TOKEN) as endpoint:
        kept = {name: environment()[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        env = {**client_env(endpoint, place / "home"), **kept, "HF_TOKEN": TOKEN}
        first = run([pushes.__file__], place, env)
        merged = [str(PROGRAM), json.dumps(TOKENS.tolist()), "plain.safetensors", "tester/merged:AutoModelForCausalLM"]
        del env["PYTHONPATH"]
        run(merged, place, env)
    yield {**json.loads(first.stdout), "endpoint": endpoint, "streams": first.stdout + first.stderr}


def run(args: list[str], place: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=place, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_edits_come_back_as_they_were(found: dict[str, Any]) -> None:
    edits = found["as_edits"]
    commit, files = edits["state"]
    assert files == [".gitattributes", "README.md", "edits.json", "edits.safetensors"]
    said = edits["said"][0]
    assert said["status"] == 0, said["err"]
    assert f"{found['endpoint']}/tester/edits is at commit {commit}\n" in said["out"]
    assert said["out"].endswith('load it with red_lightning.load("tester/edits")\n')
    assert edits["equal"] == [True, True] and edits["changed"] and edits["old"]


def test_the_same_edits_make_no_commit_and_others_one(found: dict[str, Any]) -> None:
    _, again, third, branch = found["as_edits"]["said"]
    first = found["as_edits"]["state"][0]
    assert f"is at commit {first}, which had all of this already" in again["out"]
    (main, files), (trial, _) = found["as_edits"]["states"]
    assert main != first and files == found["as_edits"]["state"][1]
    assert f"is at commit {main}\n" in third["out"]
    assert branch["status"] == 0 and f"is at commit {trial}" in branch["out"]
    assert branch["out"].endswith('red_lightning.load("tester/edits", revision="trial")\n')


def test_the_card_tells_the_run_and_the_licence(found: dict[str, Any]) -> None:
    card = ModelCard(found["as_edits"]["card"])
    assert card.data.base_model == "org/gpt2" and card.data.base_model_relation == "adapter"
    licence = (card.data.license, card.data.license_name, card.data.license_link)
    assert licence == ("other", "ours", "https://huggingface.co/org/gpt2/blob/main/LICENSE")
    assert [result.metric_value for result in card.data.eval_results or ()] == [0.5]
    whole = sum(parameter.numel() for parameter in build("gpt2").parameters())
    for line in (
        f"4 vectors, 128 numbers, {128 / whole:.4%} of the backbone's {whole:,}",
        "| learning_rate | 0.0125 |",
        "| global_batch_size | 8 |",
        "| gradient_clip_val | 1 |",
        "| steps | 77 |",
        "| BLEU | 0.25 | 0.5 |",
        "| files | train: rows.csv, test: t.csv |",
    ):
        assert line in card.text, line


def test_nothing_names_a_folder_of_this_machine(found: dict[str, Any], place: Path) -> None:
    pushed = [*(place / "uploads").rglob("*.json"), *(place / "uploads").rglob("README.md")]
    assert len(pushed) > 10
    for file in pushed:
        text = file.read_text(encoding="utf-8")
        assert not [
            private for private in ("alice", "secret", str(place), "private/gpt2", "~/t.csv") if private in text
        ]
    assert json.loads(found["as_edits"]["record"])["data"]["files"] == {"train": "rows.csv", "test": "t.csv"}


def test_the_token_is_nowhere(found: dict[str, Any], place: Path) -> None:
    assert TOKEN not in found["streams"]
    files = [path for path in place.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_backbone_that_is_a_folder_gets_its_hub_id(found: dict[str, Any]) -> None:
    folder = found["of_a_folder"]
    refused, wrong, done = folder["said"]
    assert "private/gpt2' of this machine; say where others find it with --backbone" in refused["err"]
    assert "'org/wide' is not what was edited: its num_hidden_layers is 3 and not 2" in wrong["err"]
    assert done["status"] == 0, done["err"]
    record = json.loads(folder["record"])
    assert record["backbone"] == "org/gpt2" and len(record["commit"]) == 40
    assert folder["equal"] and folder["hidden"]


def test_a_merged_model_is_loaded_by_plain_transformers(found: dict[str, Any], place: Path) -> None:
    merged = found["as_merged"]
    assert merged["said"][0]["status"] == 0, merged["said"][0]["err"]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {*merged["state"][1]}
    assert not [name for name in merged["state"][1] if name.endswith((".bin", ".pt", ".pkl", ".ckpt"))]
    assert merged["said"][0]["out"].endswith('load it with AutoModelForCausalLM.from_pretrained("tester/merged")\n')
    assert merged["left"] == []
    card = ModelCard(merged["card"])
    assert (card.data.library_name, card.data.base_model_relation) == ("transformers", "finetune")
    plain: Tensor = load_file(place / "plain.safetensors")["merged"]
    assert torch.allclose(plain, load_file(place / "edited.safetensors")["logits"], atol=1e-5)


REFUSALS = {
    "merged over edits": "'tester/edits' holds something else (edits.json, edits.safetensors); choose another --to, or",
    "edits over merged": "'tester/merged' holds something else (config.json, ",
    "public": "'tester/edits' exists and is public; choose another --to",
    "namespace": "the token's user cannot write to 'somebody/edits', but to tester/...; choose another --to",
    "backbone": "'tester/edits' holds edits of another backbone, 'org/gpt2'; choose another --to",
    "model": "'tester/merged' holds another model, whose n_layer is 2 and not 3; choose another --to",
    "large": "does not take files as large as those for 'tester/edits'",
    "lost": "broke off (RemoteProtocolError), and 'tester/edits' is as it was unless the commit appears there",
    "wrong token": "the hub does not accept the token, or the token may not see 'tester/edits': log in with `hf auth",
    "no token": "pushing to 'tester/edits' needs a token of the hub: log in with `hf auth login`, or set HF_TOKEN",
    "server": "the token may not write to 'somebody/edits' (tester has no right to create models",
    "meanwhile": "'tester/edits' was changed by somebody else meanwhile; push again to build on that",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_sentence(case: str, found: dict[str, Any]) -> None:
    said = found["refused"]["said"][case]
    assert said["status"] == 2
    assert REFUSALS[case] in said["err"]
    assert len([line for line in said["err"].splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in said["err"]


def test_a_refused_push_leaves_the_repository_as_it_was(found: dict[str, Any]) -> None:
    assert {*found["refused"]["said"]} == {*REFUSALS}
    assert found["refused"]["unchanged"]
    assert found["refused"]["theirs"] == "---\nlicense: mit\n---\n"


def test_overwrite_replaces_all(found: dict[str, Any]) -> None:
    over, (_, files) = found["refused"]["over"], found["refused"]["state"]
    assert over["status"] == 0, over["err"]
    assert "deleted edits.json\ndeleted edits.safetensors\n" in over["out"]
    assert "config.json" in files and "edits.json" not in files
