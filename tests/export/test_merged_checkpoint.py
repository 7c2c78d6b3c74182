"""Folded checkpoints: what plain transformers computes with them is what the edited model computes."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from red_lightning import methods
from red_lightning.adapters import load, read_edits, save_edits
from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.errors import UsageError
from red_lightning.export import Merged, export_merged, largest_difference, merged_checkpoint
from red_lightning.generation import Decoding, Writer
from red_lightning.methods import RED, FullFineTuning, Method
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import FAMILIES, LACKING, save_backbone
from tests.export.exports import in_plain_transformers, logits, trained

ONLY_SCALING = ("gemma", "gemma2", "gemma3", "qwen3", "t5")
"""Families with no place for the bias of an FFN, nor an equivalent that has one."""
AS_LLAMA = ("mistral", "phi3", "qwen2")


def red_plus(family: str) -> RED:
    sites = [site for site in RED_PLUS_SITES if site not in LACKING.get(family, ())]
    return RED(sites, "scaling" if family in ONLY_SCALING else "both")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Merged, Tensor, Tensor]]:
    """By family: what was exported, the edited model's logits, and those of plain transformers in another process."""
    root = tmp_path_factory.mktemp("merged")
    exported, expected = {}, {}
    for family in FAMILIES:
        backbone = save_backbone(family, root / "backbones" / family)
        model, _ = trained(root / "runs" / family, backbone, red_plus(family))
        expected[family] = logits(model)
        exported[family] = export_merged(root / "runs" / family, root / family)
    got = in_plain_transformers(list(exported.values()), root)
    return {family: (exported[family], expected[family], got[family]) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_computes_the_same(
    family: str, every: dict[str, tuple[Merged, Tensor, Tensor]], tmp_path: Path
) -> None:
    exported, expected, got = every[family]
    assert got.shape == expected.shape
    most = 1e-4 if family == "t5" else 1e-5  # T5 scales no attention scores, which makes rounding larger
    assert (got - expected).abs().max() <= most * expected.abs().max()
    assert exported.architecture == ("LlamaForCausalLM" if family in AS_LLAMA else exported.architecture)
    assert bool(exported.notes) == (family in (*AS_LLAMA, "llama", "modernbert"))


def test_an_attention_window_becomes_the_greatest_length(every: dict[str, tuple[Merged, Tensor, Tensor]]) -> None:
    exported, _, _ = every["mistral"]
    config = json.loads((exported.folder / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == 8  # the window of the tiny backbone
    assert "8 tokens" in exported.notes[0]
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]  # for what reads the older name


def folds(family: str) -> dict[str, Method]:
    return {
        "LoRA": methods.LoRA(None, rank=4),
        "IA3": methods.IA3(),
        "VeRA": methods.VeRA(rank=8),
        "AdaLoRA": methods.AdaLoRA(initial_rank=4, target_rank=2),
        "BitFit": methods.BitFit(),
        "SSF": methods.SSF(),
        "FullFineTuning": methods.FullFineTuning(),
        "LastBlocks": methods.LastBlocks(1),
        "RED of a LayerNorm": RED(["*.ln_1", "ffn"]),
    }


@pytest.mark.parametrize("name", folds("gpt2"))
def test_every_method_that_folds(name: str, gpt2_folder: Path, tmp_path: Path) -> None:
    model, _ = trained(tmp_path / "run", gpt2_folder, folds("gpt2")[name])
    export_merged(tmp_path / "run", tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (logits(plain) - logits(model)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("family", "method", "sentence"),
    [
        ("t5", RED(), "t5 has no place for a bias in .*wo'.*--format edits"),
        ("qwen3", RED(), "qwen3 has no place for a bias"),
        ("gpt2", RED(["residual"]), "GPT2Block cannot be merged.*--format edits"),
        ("llama", methods.SSF(), "LlamaRMSNorm cannot be merged"),
        ("gpt2", methods.LoReFT(), "LoReFT cannot be merged.*--format edits"),
        ("gpt2", methods.PrefixTuning(), "PrefixTuning cannot be merged"),
        ("gpt2", RED(["*lm_head"]), "'lm_head' is another module's too"),
    ],
)
def test_what_cannot_be_folded_exactly_is_refused(family: str, method: Method, sentence: str, tmp_path: Path) -> None:
    trained(tmp_path / "run", save_backbone(family, tmp_path / family), method)
    with pytest.raises(UsageError, match=sentence):
        export_merged(tmp_path / "run", tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([family, "run"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("name", "bits"), [("RED", "nf4"), ("QLoRA", "nf4"), ("RED", "int8")])
def test_a_quantized_backbone_folds_into_a_16_bit_copy(family: str, name: str, bits: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    method = RED() if name == "RED" else methods.QLoRA(rank=4)
    model, _ = trained(tmp_path / "run", save_backbone(family, tmp_path / family), method, quantization=bits)
    expected = logits(model)
    whole = export_merged(tmp_path / "run", tmp_path / "whole", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(whole.folder)
    near = 1e-5 if bits == "nf4" else 0.1  # int8 rounds what it reads, too
    assert (logits(plain) - expected).abs().max() < near
    merged_16 = export_merged(tmp_path / "run", tmp_path / "merged")
    assert merged_16.dtype == "bfloat16" and "quantization_config" not in plain.config.to_dict()
    assert merged_16.size < 0.6 * whole.size


@pytest.mark.parametrize(
    ("name", "bits"), [("RED", "float8_weight_only"), ("RED", "int8_weight_only"), ("QLoRA", "int8_weight_only")]
)
def test_what_torchao_stores_folds_too(name: str, bits: str, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    method = RED() if name == "RED" else methods.QLoRA(rank=4)
    model, _ = trained(tmp_path / "run", save_backbone("llama", tmp_path / "llama"), method, quantization=bits)
    whole = export_merged(tmp_path / "run", tmp_path / "whole", dtype="float32")
    assert (logits(AutoModelForCausalLM.from_pretrained(whole.folder)) - logits(model)).abs().max() < 1e-5


def test_the_dtype_is_that_of_the_training(tmp_path: Path) -> None:
    backbone = save_backbone("llama", tmp_path / "llama")
    AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.bfloat16).save_pretrained(backbone)
    trained(tmp_path / "run", backbone, RED())
    tensors, record = read_edits(tmp_path / "run/edits")
    for dtype in ("float32", "bfloat16"):
        save_edits(tmp_path / "run/edits", tensors, {**record, "dtype": dtype})
        exported = export_merged(tmp_path / "run", tmp_path / dtype)
        assert exported.dtype == dtype
        stored = load_file(exported.folder / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
        difference, largest, _ = largest_difference(exported, tmp_path / "run")
        assert difference < (1e-5 if dtype == "float32" else 0.05) * largest


def test_full_fine_tuning_of_a_16_bit_backbone_is_exported_in_its_own_dtype(tmp_path: Path) -> None:
    backbone = save_backbone("llama", tmp_path / "llama")
    AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.bfloat16).save_pretrained(backbone)
    trained(tmp_path / "run", backbone, FullFineTuning())
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    assert exported.dtype == "float32" and largest_difference(exported, tmp_path / "run").largest < 1e-5
    half = export_merged(tmp_path / "run", tmp_path / "half", dtype="bfloat16")
    rounded = largest_difference(half, tmp_path / "run")
    assert 0 < rounded.largest < 0.05 * rounded.scale


def test_a_failed_check_leaves_nothing(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())

    def refuse(merged: Merged) -> None:
        assert (merged.folder / "model.safetensors").is_file()
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        export_merged(tmp_path / "run", tmp_path / "merged", check=refuse)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    export_merged(tmp_path / "run", tmp_path / "merged")


def test_16_bit_weights_are_rounded_once(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED(RED_PLUS_SITES))
    exact = load_file(export_merged(tmp_path / "run", tmp_path / "float32").folder / "model.safetensors")
    half = load_file(export_merged(tmp_path / "run", tmp_path / "bf16", dtype="bfloat16").folder / "model.safetensors")
    assert exact.keys() == half.keys()
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in exact.items())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16")
    assert plain.dtype == torch.bfloat16  # as its config says
    difference = (logits(plain.float()) - logits(AutoModelForCausalLM.from_pretrained(tmp_path / "float32"))).abs()
    assert 0 < difference.max() < 0.05  # the weights' rounding alone: relative 2**-9 each


@pytest.mark.parametrize(
    ("method", "times", "dtype", "sentence"),
    [
        (RED(), 1e6, "float16", "too large for float16; give --dtype bfloat16 or float32"),
        (methods.LoRA(None, rank=4), 1e25, "float32", "would hold NaN or infinite numbers"),
        (methods.LoRA(None, rank=4), 1e25, "bfloat16", "would hold NaN or infinite numbers"),
    ],
)
def test_what_a_number_format_cannot_hold_is_refused(
    method: Method, times: float, dtype: Any, sentence: str, gpt2_folder: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "run", gpt2_folder, method)
    tensors, record = read_edits(tmp_path / "run" / "edits")
    save_edits(tmp_path / "run" / "edits", {name: times * tensor for name, tensor in tensors.items()}, record)
    with pytest.raises(UsageError, match=sentence):
        export_merged(tmp_path / "run", tmp_path / "merged", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_outputs_that_are_not_finite_are_no_small_difference(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED(["ffn"], "scaling"))
    tensors, record = read_edits(tmp_path / "run" / "edits")
    save_edits(tmp_path / "run" / "edits", {name: 1e37 * tensor for name, tensor in tensors.items()}, record)
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    assert not math.isfinite(largest_difference(exported, tmp_path / "run").largest)


def test_all_files_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    trained(tmp_path / "run", save_backbone("electra", tmp_path / "electra"), RED(), HeadOptions("first", True))
    before = os.umask(0o027)
    try:
        folder = export_merged(tmp_path / "run", tmp_path / "merged", max_shard_bytes=40_000).folder
    finally:
        os.umask(before)
    assert (folder / "head.safetensors").is_file()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"head": None}, "must both have a classification head"),
        ({"head": "absent"}, "must both have a classification head"),
        ({"labels": []}, "the head tells 3 classes, of 0 labels"),
    ],
)
def test_a_damaged_head_is_refused_first(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    backbone = save_backbone("electra", tmp_path / "electra")
    trained(tmp_path / "run", backbone, RED(), HeadOptions("first", True), ["a", "b", "c"])
    tensors, record = read_edits(tmp_path / "run" / "edits")
    record = {name: value for name, value in {**record, **changes}.items() if value != "absent"}
    save_edits(tmp_path / "run" / "edits", tensors, record)
    for use in (load, lambda edits: export_merged(edits, tmp_path / "merged")):
        with pytest.raises(UsageError, match=sentence):
            use(tmp_path / "run")
    assert not (tmp_path / "merged").exists()


def test_files_of_limited_size_have_an_index(gpt2_folder: Path, tmp_path: Path) -> None:
    model, _ = trained(tmp_path / "run", gpt2_folder, RED())
    exported = export_merged(tmp_path / "run", tmp_path / "merged", max_shard_bytes=40_000)
    files = sorted(exported.folder.glob("*.safetensors"))
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((exported.folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    total = 0
    for file in files:
        with safe_open(file, "pt") as opened:
            assert {index["weight_map"][name] for name in opened.keys()} == {file.name}  # noqa: SIM118
            size = sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118
            assert size <= 40_000
            total += size
    assert index["metadata"]["total_size"] == total
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(exported.folder)), plain_logits(tmp_path))
    assert (plain_logits(tmp_path) - logits(model)).abs().max() < 1e-5


def plain_logits(folder: Path) -> Tensor:
    """Of the same edits in one file."""
    if not (folder / "one").exists():
        export_merged(folder / "run", folder / "one")
    return logits(AutoModelForCausalLM.from_pretrained(folder / "one"))


def test_tokenizer_and_generation_config_are_the_backbones(tmp_path: Path) -> None:
    backbone = save_backbone("qwen2", tmp_path / "qwen2")
    GenerationConfig(max_new_tokens=7, eos_token_id=0, repetition_penalty=1.1).save_pretrained(backbone)
    trained(tmp_path / "run", backbone, RED())
    export_merged(tmp_path / "run", tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (backbone / name).read_bytes()
    text = "Blue Spice serves Thai food, déjà vu."
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")(text) == AutoTokenizer.from_pretrained(backbone)(text)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.generation_config.max_new_tokens == 7


@pytest.mark.parametrize("beams", [1, 3])
def test_a_merged_model_decodes_as_the_run_did(beams: int, tmp_path: Path) -> None:
    backbone = save_backbone("gpt2", tmp_path / "gpt2")
    GenerationConfig(do_sample=True, temperature=0.6, max_new_tokens=3, eos_token_id=[1, 2]).save_pretrained(backbone)
    trained(tmp_path / "run", backbone, RED())
    tensors, record = read_edits(tmp_path / "run/edits")
    decoding = Decoding(beams, 0.5, no_repeat_ngram_size=2, max_new_tokens=9, stop_at_blank_line=False)
    save_edits(tmp_path / "run/edits", tensors, {**record, "decoding": asdict(decoding)})
    export_merged(tmp_path / "run", tmp_path / "merged")
    config = GenerationConfig.from_pretrained(tmp_path / "merged")
    assert (config.do_sample, config.max_new_tokens, config.eos_token_id) == (False, 9, [0, 1, 2])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    inputs = tokenizer(f"name[Zizzi]{tokenizer.eos_token}", return_tensors="pt")
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    tokens = plain.generate(**kept, pad_token_id=tokenizer.pad_token_id)
    written = tokenizer.decode(tokens[0, kept["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert written == Writer(load(tmp_path / "run")).write(["name[Zizzi]"])[0]


def test_weights_that_are_no_safetensors_are_folded_all_the_same(gpt2_folder: Path, tmp_path: Path) -> None:
    backbone = save_backbone("gpt2", tmp_path / "gpt2")
    model, _ = trained(tmp_path / "run", backbone, RED())
    tensors = load_file(backbone / "model.safetensors")
    (backbone / "model.safetensors").unlink()
    torch.save(tensors, backbone / "pytorch_model.bin")
    export_merged(tmp_path / "run", tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(plain) - logits(model)).abs().max() < 1e-5


def test_another_backbone_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    other = save_backbone("gpt2", tmp_path / "other", seed=5)
    with pytest.raises(UsageError, match="belong to another backbone"):
        export_merged(tmp_path / "run", tmp_path / "merged", backbone=str(other))


def test_an_output_that_holds_something_is_left_as_it_is(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something already; give a new or empty folder"):
        export_merged(tmp_path / "run", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_crash_leaves_nothing_that_looks_whole(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    part = tmp_path / ".merged.part"  # of a process that was killed
    part.mkdir()
    (part / "model-00001-of-00009.safetensors").write_bytes(b"half")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(merged_checkpoint, "_write_config", full)
        with pytest.raises(UsageError, match="cannot be written: No space left on device"):
            export_merged(tmp_path / "run", tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "merged").mkdir()  # an empty folder is taken
    export_merged(tmp_path / "run", tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("*00009*")) and not part.exists()


def test_the_difference_is_measured(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    difference, largest, of = largest_difference(exported, tmp_path / "run")
    assert difference < 1e-5 < largest and of == "logit"
    other = AutoModelForCausalLM.from_pretrained(gpt2_folder)
    other.save_pretrained(tmp_path / "merged")  # the unedited weights
    assert largest_difference(exported, tmp_path / "run")[0] > 0.01


def test_llama_cpp_takes_decoders_alone(gpt2_folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    assert export_merged(tmp_path / "run", tmp_path / "gpt2", for_llama_cpp=True).architecture == "GPT2LMHeadModel"
    trained(tmp_path / "encoder", save_backbone("roberta", tmp_path / "roberta"), RED())
    with pytest.raises(UsageError, match=r"llama\.cpp does not run a RobertaModel, but .*gpt2.*--format merged"):
        export_merged(tmp_path / "encoder", tmp_path / "merged", for_llama_cpp=True)
    trained(tmp_path / "qwen", save_backbone("qwen3", tmp_path / "qwen3"), RED(["attention"]))
    with pytest.raises(UsageError, match="does not read the biases of qwen3 with attention_bias"):
        export_merged(tmp_path / "qwen", tmp_path / "merged", for_llama_cpp=True)
