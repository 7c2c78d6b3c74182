"""Edits in three lines: ``red_lightning.load`` gives the model that was trained."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import red_lightning
from red_lightning.adapters import save_edits
from red_lightning.adapters.edited import find_edits, has_edits
from red_lightning.backbones import loading
from red_lightning.backbones.classification_head import ClassificationHead, HeadOptions
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.methods import RED
from tests.adapters.test_file_format import outputs
from tests.backbones_zoo import save_backbone
from tests.cli.commands import REPOSITORY, run_apart


def trained(run: Path, folder: Path, head: ClassificationHead | None = None) -> torch.nn.Module:
    """Leave random edits of a backbone's folder behind, as a run does, and return the edited model."""
    options = loading.BackboneOptions()
    source = loading.find(str(folder), options)
    model = loading.load_generator(source, options) if head is None else loading.load_encoder(source, options, False)
    record = {"backbone": str(folder), "commit": None, "fingerprint": fingerprint(model), "method": RED().describe()}
    learned = RED().apply(model)
    for number, vector in enumerate(learned.values()):
        vector.data += 0.3 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(number))
    if head is not None:
        learned = {**learned, **{f"head.{name}": tensor for name, tensor in head.state_dict().items()}}
        record |= {"head": asdict(HeadOptions("first", True, 0.5)), "labels": ["no", "yes"]}
    save_edits(run / "edits", learned, record)
    return model.eval()


@pytest.mark.parametrize("place", ["run", "run/edits"])
def test_a_run_is_loaded_with_its_backbone_and_tokenizer(place: str, gpt2_folder: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", gpt2_folder)
    edited = red_lightning.load(tmp_path / place)
    assert torch.equal(outputs(edited.backbone), outputs(model))
    assert edited.head is None and not edited.backbone.training
    assert edited.tokenizer("a")["input_ids"]


def test_a_classifier_is_loaded_with_its_head(tmp_path: Path) -> None:
    head = ClassificationHead(32, 2)
    model = trained(tmp_path / "run", save_backbone("roberta", tmp_path / "roberta"), head)
    edited = red_lightning.load(tmp_path / "run")
    assert edited.head is not None and torch.equal(outputs(edited.backbone), outputs(model))
    states = outputs(model)[:, 0]
    assert torch.equal(edited.head(states), head.eval()(states))


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", save_backbone("roberta", tmp_path / "roberta"), ClassificationHead(31, 2))
    with pytest.raises(UsageError, match="are damaged: the head is not as wide as the backbone"):
        red_lightning.load(tmp_path / "run")


@pytest.mark.parametrize("device", ["foo", "cuda"])
def test_a_device_that_is_not_there_is_refused(device: str, gpt2_folder: Path, tmp_path: Path) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    trained(tmp_path / "run", gpt2_folder)
    with pytest.raises(UsageError, match=f"the device '{device}' cannot be used"):
        red_lightning.load(tmp_path / "run", device=device)


def test_a_backbone_that_has_moved_is_given_by_its_place(gpt2_folder: Path, tmp_path: Path) -> None:
    moved = save_backbone("gpt2", tmp_path / "here")
    trained(tmp_path / "run", moved)
    moved.rename(tmp_path / "there")
    with pytest.raises(UsageError, match="does not exist"):
        red_lightning.load(tmp_path / "run")
    assert red_lightning.load(tmp_path / "run", backbone=str(tmp_path / "there")).record["backbone"] == str(moved)


@pytest.mark.slow
def test_a_hub_repository_is_loaded_at_its_revisions(shared: Path, tmp_path: Path) -> None:
    """Edits of a backbone on the hub are pushed to the hub, and loaded there by their id, in a process of its own."""
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        from serve import client_env, serve
    finally:
        sys.path.pop(0)
    vectors = {
        f"transformer.h.{layer}.mlp.c_proj.delta_vector.activation_{kind}": torch.full((1, 32), start)
        for layer in (0, 1)
        for kind, start in (("scaling", 1.1), ("bias", 0.2))
    }
    torch.save(vectors, tmp_path / "delta_vector.pth")
    with serve(uploads=tmp_path / "uploads") as endpoint:
        env = {**client_env(endpoint, tmp_path / "home"), "HF_TOKEN": "hf_test", "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": str(REPOSITORY)}
        line = ("import", "delta_vector.pth", "--backbone", "openai-community/gpt2-medium", "--output", "edits")
        done = run_apart(tmp_path, *line, env=env)
        assert done.returncode == 0, done.stderr
        done = subprocess.run(
            [sys.executable, "-c", HUB_CLIENT], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["equal"] and answer["edited"] and len(answer["commit"]) == 40
    assert answer["first"] == pytest.approx(1.1) and answer["second"] == 3.0
    assert answer["refusals"] == [
        "the set of edits 'tester/edits' has no revision 'absent'; leave revision out for its main branch",
        f"the set of edits 'tester/absent' does not exist, neither as a folder nor on {endpoint}",
        "the hub repository 'openai-community/gpt2-medium' does not exist or holds no set of edits (a file it needs "
        "is missing); check the id",
    ]


HUB_CLIENT = """
import json, torch, red_lightning
from pathlib import Path
from huggingface_hub import HfApi
from safetensors.torch import load_file
from red_lightning.errors import UsageError

api = HfApi()
api.create_repo("tester/edits")
first = api.upload_folder(repo_id="tester/edits", folder_path="edits").oid
here, there = red_lightning.load("edits"), red_lightning.load("tester/edits")
tokens = torch.tensor([[5, 6, 7]])
with torch.no_grad():
    logits = there.backbone(tokens).logits
    plain = type(there.backbone).from_pretrained("openai-community/gpt2-medium", dtype=torch.float32)(tokens).logits
    equal = torch.equal(here.backbone(tokens).logits, logits)
name = "transformer.h.0.mlp.c_proj.scaling"
changed = {**load_file("edits/edits.safetensors"), name: torch.full((32,), 3.0)}
red_lightning.adapters.save_edits(Path("edits"), changed, red_lightning.adapters.read_edits("edits")[1])
api.upload_folder(repo_id="tester/edits", folder_path="edits")
values = [
    edited.backbone.get_parameter(name.replace(".scaling", ".editor.scaling"))[0].item()
    for edited in (red_lightning.load("tester/edits", revision=first), red_lightning.load("tester/edits"))
]
refusals = []
wrong = [("tester/edits", "absent"), ("tester/absent", None), ("openai-community/gpt2-medium", None)]
for place, revision in wrong:
    try:
        red_lightning.load(place, revision=revision)
    except UsageError as error:
        refusals.append(str(error))
answer = {"equal": equal, "edited": not torch.allclose(logits, plain), "commit": there.record["commit"]}
print(json.dumps({**answer, "first": values[0], "second": values[1], "refusals": refusals}))
"""


@pytest.mark.parametrize(
    ("said", "options", "dtype"),
    [
        ("bfloat16", None, torch.bfloat16),
        ("bfloat16", loading.BackboneOptions(attention="eager"), torch.bfloat16),
        ("bfloat16", loading.BackboneOptions(dtype="float32"), torch.float32),
        ("int7", None, torch.float32),
        (None, loading.BackboneOptions(attention="eager"), torch.float32),
    ],
)
def test_the_backbone_has_the_dtype_of_the_training(
    said: str | None, options: loading.BackboneOptions | None, dtype: torch.dtype, gpt2_folder: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "run", gpt2_folder)
    path = tmp_path / "run/edits/edits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **({"dtype": said} if said else {})}))
    assert red_lightning.load(tmp_path / "run", options=options).backbone.dtype == dtype


def test_a_folder_comes_before_the_shipped_backbone_of_its_name(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not has_edits("quickstart")
    trained(tmp_path / "quickstart", gpt2_folder)
    assert has_edits("quickstart") and find_edits("quickstart") == Path("quickstart/edits")
    assert loading.find("quickstart", loading.BackboneOptions()).config.n_embd == 128  # which ships
