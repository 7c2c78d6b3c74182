"""Liger's kernels against the models' own code, on a GPU, or interpreted on a CPU: with ``TRITON_INTERPRET=1``."""

import copy
import os
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import BackboneOptions, find, load_encoder, load_generator
from red_lightning.benchmark.memory import saved_bytes
from red_lightning.editing.surgery import detach
from red_lightning.efficiency import fused_kernels
from red_lightning.efficiency.fused_kernels import fuse
from red_lightning.efficiency.preparation import prepare, prepared
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.errors import UsageError
from red_lightning.methods import RED, Adapter, FullFineTuning, LoRA, PrefixTuning
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import VOCABULARY, build, save_backbone
from tests.sequences import generated, randomise

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"]
MISSING = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
needs_kernels = pytest.mark.skipif(
    bool(MISSING) or (DEVICE == "cpu" and not INTERPRETED),
    reason=f"needs {MISSING[0]}" if MISSING else "needs a GPU, or TRITON_INTERPRET=1",
)


@pytest.fixture(scope="module", autouse=True)
def interpreter() -> Iterator[None]:
    """Give Triton's interpreter what Triton's compiler has: scalars in float32, and two functions of CUDA's library."""
    if MISSING or not INTERPRETED:
        yield
        return
    import numpy as np
    import triton.language as tl
    from liger_kernel.ops import geglu, rms_norm
    from triton.runtime import interpreter

    convert = interpreter._implicit_cvt

    def with_scalars(value: Any) -> Any:
        if not isinstance(value, float):
            return convert(value)
        handle = interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_implicit_cvt", with_scalars)
        patch.setattr(rms_norm, "rsqrt", lambda x: tl.math.rsqrt(x))
        patch.setattr(geglu, "tanh", lambda x: 2 * tl.sigmoid(2 * x) - 1)
        yield


def pair(family: str, method: Any = None, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Any, Any]:
    """A model with fused kernels and a plain one, equally edited, in training mode and without dropout."""
    plain = build(family, seed=seed, dropout=0.0).to(DEVICE, dtype).train()
    ours = copy.deepcopy(plain)
    fuse(ours, "liger")
    for model in (ours, plain):
        torch.manual_seed(2)
        randomise((method or RED(["ffn", "attention"])).apply(model), 0.3)
    return ours, plain


def inputs() -> dict[str, Tensor]:
    """Two texts of which the first is shorter."""
    ids = torch.randint(2, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def result(model: Any) -> tuple[Tensor, Tensor]:
    """The logits, and the gradients of what trains, in one vector."""
    torch.manual_seed(5)  # of dropout
    logits = model(**inputs(), use_cache=False).logits
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(logits.float().pow(2).mean(), trained)
    return logits, torch.cat([gradient.flatten() for gradient in gradients])


def distance(models: tuple[Any, Any]) -> float:
    """The larger relative difference of their norms."""
    pairs = zip(*map(result, models), strict=True)
    return max(((own.double() - other).norm() / other.double().norm()).item() for own, other in pairs)


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_the_plain_ones(family: str) -> None:
    models = pair(family)
    assert distance(models) < 1e-6
    names = [list(dict(model.named_parameters())) for model in models]
    assert names[0] == names[1]
    kinds = {type(module).__name__ for module in models[0].modules()}
    assert not any(kind.endswith(("RMSNorm", "MLP")) and not kind.startswith("Liger") for kind in kinds)
    ours, plain = (saved_bytes(partial(lambda model: model(**inputs()).logits, model), model) for model in models)
    assert ours < plain


@needs_kernels
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_they_are_in_float16(family: str) -> None:
    assert distance(pair(family, dtype=torch.float16)) < 1e-2


@needs_kernels
@pytest.mark.parametrize(
    "method",
    [
        RED(["*.mlp.gate_proj", "*.mlp.up_proj", "*.mlp.down_proj", "*layernorm", "model.norm"]),
        RED([*RED_PLUS_SITES, "residual"], vectors="bias"),
        LoRA(["*.mlp.gate_proj", "*.mlp.up_proj", "*.mlp.down_proj"]),
        Adapter(),
        PrefixTuning(),
        FullFineTuning(),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_methods_train_as_with_the_models_own_code(family: str, method: Any) -> None:
    """Those that change what the kernels read, too, whose gradients are written over it."""
    assert distance(pair(family, method)) < 1e-5


@needs_kernels
def test_what_keeps_less_goes_with_it() -> None:
    models = pair("llama", RED(["*.mlp.gate_proj", "*.mlp.up_proj", "ffn", "residual"]))
    recompute_selectively(models[0], always=True)
    assert distance(models) < 1e-6
    models = pair("gemma3")
    prepare(models[0], BackboneOptions(gradient_checkpointing=True, selective_recomputation=False))
    assert distance(models) < 1e-6


@needs_kernels
def test_edits_come_and_go() -> None:
    ours, plain = pair("qwen3")
    for model in (ours, plain):
        detach(model)
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs()).logits, plain(**inputs()).logits)
    assert fingerprint(ours) == fingerprint(plain)


@needs_kernels
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_option(llama_folder: Path, quantization: Any) -> None:
    if quantization and find_spec("bitsandbytes") is None:
        pytest.skip("needs bitsandbytes")
    plain_options = BackboneOptions(quantization=quantization, selective_recomputation=False)
    options = BackboneOptions(quantization=quantization, kernels="liger")
    source = find(str(llama_folder), options)
    models: Any = [prepared(load_generator, source, chosen).to(DEVICE) for chosen in (options, plain_options)]
    for model in models:
        randomise(RED().apply(model), 0.3)
    assert distance((models[0], models[1])) < 1e-6
    assert len(models[0]._forward_hooks) == len(models[1]._forward_hooks)  # nothing computes again by itself
    texts = [[5, 6, 7], [9, 10, 11, 12, 13, 14]]
    assert DEVICE == "cuda" or generated(models[0].eval(), texts, 2) == generated(models[1].eval(), texts, 2)
    meta = prepared(load_generator, source, options, meta=True)
    assert [name for name, _ in meta.named_parameters()] == [
        name for name, _ in load_generator(source, BackboneOptions(), meta=True).named_parameters()
    ]


@needs_kernels
def test_encoders(tmp_path: Path) -> None:
    options = BackboneOptions(kernels="liger")
    source = find(str(save_backbone("gemma", tmp_path)), options)
    outputs = []
    for chosen in (options, BackboneOptions()):
        torch.manual_seed(5)
        outputs.append(prepared(load_encoder, source, chosen, False).to(DEVICE)(**inputs())[0])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)


@needs_kernels
def test_what_has_no_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = build("llama")
    other.model.layers[1].mlp.act_fn = nn.GELU()  # type: ignore[union-attr, index]
    with pytest.raises(UsageError, match="computes silu in a LlamaMLP, which has GELU here; leave kernels out"):
        fuse(other, "liger")
    foreign: Any = nn.Module()
    foreign.config = build("llama").config
    with pytest.raises(
        UsageError, match="finds nothing to replace in a Module, whose code is not that of transformers"
    ):
        fuse(foreign, "liger")
    ours = build("llama")
    fuse(ours, "liger")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UsageError, match="needs a CUDA device, but the backbone is on cpu"):
        ours(torch.tensor([[5, 6]]))


def test_what_cannot_be_is_refused_before_weights_are_read(
    llama_folder: Path, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(folder: Path, **others: Any) -> str:
        options = BackboneOptions(kernels="liger", **others)
        with pytest.raises(UsageError) as refused:
            prepared(load_generator, find(str(folder), options), options)
        return str(refused.value)

    assert "is for llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3, but this is a gpt2" in refusal(
        gpt2_folder
    )
    assert "model.backbone_options.compile each make the blocks' kernels; give one" in refusal(
        llama_folder, compile=True
    )
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: None if name == "triton" else True)
    assert "pip install 'red-lightning[liger]'" in refusal(llama_folder)
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "needs a CUDA device, and this machine has none" in refusal(llama_folder)
