"""Every decoder with a record computes what transformers computes: loss, logits, texts, packed rows, export."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import EDITOR, edited_modules
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.shared_sources import can_share, shared_mask
from red_lightning.errors import UsageError
from red_lightning.export import export_merged
from red_lightning.families import ARCHITECTURES, architecture_of, can_pack
from red_lightning.families.mixtures import MIXTURES
from red_lightning.families.positions import position_limit
from red_lightning.families.unsupported import UNSUPPORTED
from red_lightning.generation import Decoding
from red_lightning.methods import RED
from tests.backbones_zoo import VOCABULARY
from tests.export.exports import logits, trained
from tests.families.decoder_zoo import VARIANTS, build_variant
from tests.generation.test_decoding import one_thread  # noqa: F401 - a fixture
from tests.generation.test_search import EOS, plainly, prompts, together

LENGTHS = (5, 13, 1, 9)
FAST = (
    "bloom",
    "cohere",
    "cohere2",
    "falcon-new",
    "gemma4",
    "gpt_neo",
    "granite",
    "llama4",
    "mixtral",
    "mpt",
    "phi4",
    "qwen3_5",
)
"""One variant for each way through our code; the slow tests compare the rest."""
EVERY = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in VARIANTS]
HOLDS_BIASES = (
    "arcee",
    "bloom",
    "bloom-post",
    "ernie4_5",
    "falcon",
    "falcon-alibi",
    "falcon-heads",
    "falcon-new",
    "falcon-one-norm",
    "gpt_bigcode",
    "gpt_bigcode-heads",
    "gpt_neox-serial",
    "granite",
    "granite-biases",
    "nemotron",
    "seed_oss",
    "smollm3",
    "smollm3-biases",
    "starcoder2",
    "starcoder2-bare",
)
"""Variants whose linears all have a bias, or get one from a field of the configuration."""


def known(name: str) -> str:
    """The name of a variant, if this version of transformers has its family."""
    if VARIANTS[name][0] not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {VARIANTS[name][0]}")
    return name


def edited(name: str, vectors: Any = "both") -> tuple[Any, dict[str, nn.Parameter]]:
    """A model with random edits at all of its sites."""
    model: Any = build_variant(known(name))
    learned = RED([site for site in architecture_of(model.config).sites if site != "residual"], vectors).apply(model)
    generator = torch.Generator().manual_seed(0)
    for vector in learned.values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    return model, learned


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def relative(found: Any, expected: Any) -> float:
    """The largest difference of some tensors, relative to their largest norm: some gradients are 0 but for rounding."""
    differences = [(a - b).norm().item() for a, b in zip(found, expected, strict=True)]
    return max(differences) / max(b.norm().item() for b in expected)


def loss_differences(name: str) -> tuple[float, float]:
    """Of losses and of their gradients, from those of cross-entropy on the logits of transformers."""
    model, learned = edited(name)
    ids = torch.nn.utils.rnn.pad_sequence([texts()[1], texts()[3]], batch_first=True, padding_value=1)
    mask = (ids != 1).long()
    labels = ids.masked_fill(mask == 0, -100)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    plain = cross_entropy(model(**inputs).logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    ours = label_losses(model, labels, **inputs)[:, 1:]
    vectors = list(learned.values())
    gradients = [torch.autograd.grad(loss.sum(), vectors) for loss in (ours, plain)]
    assert all(gradient.any() for gradient in gradients[1])
    assert ours.max() > 0.5
    return (ours - plain).abs().max().item(), relative(*gradients)


@torch.no_grad()
def edit_difference(name: str) -> float:
    """Of edited logits, from those of a model whose modules are edited by hooks of this test alone."""
    model, _ = edited(name)
    plain: Any = build_variant(name)
    ids = torch.stack([texts()[1], texts()[1].flip(0)])
    before = plain(input_ids=ids).logits

    def by_hand(editor: Any) -> Any:
        scaling, bias = editor.vectors()

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] * scaling + bias, *output[1:])
            return output * scaling + bias

        return hook

    identity: Any = build_variant(name)
    RED(list(architecture_of(plain.config).sites)).apply(identity)
    assert torch.equal(identity(input_ids=ids).logits, before)
    for module, edit in edited_modules(model):
        plain.get_submodule(module).register_forward_hook(by_hand(edit.get_submodule(EDITOR)))
    found, expected = model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert (expected - before).abs().max() > 0.05
    return ((found - expected).abs().max() / expected.abs().max()).item()


def packing_differences(name: str) -> tuple[float, float]:
    """Of the losses of packed texts, and of texts that share their beginning, from those of each text alone."""
    model, _ = edited(name)
    with torch.no_grad():
        alone = [model(input_ids=text[None], use_cache=False).logits[0] for text in texts()]
        ids, positions = torch.cat(texts())[None], torch.cat([torch.arange(length) for length in LENGTHS])[None]
        options = {"use_cache": False}
        accepted = "position_ids" in inspect.signature(model.forward).parameters
        if accepted:
            options["position_ids"] = positions
        packed = model(input_ids=ids, **options).logits[0].split(LENGTHS)
        difference = max((a - b).abs().max().item() for a, b in zip(packed, alone, strict=True))
        if not accepted or not can_share(model.config, None, 12):
            return difference, 0.0
        source, targets = texts()[3][:5], [texts()[1][:4], texts()[1][4:7]]
        expected = [model(input_ids=torch.cat([source, target])[None]).logits[0, 5:] for target in targets]
        mask = shared_mask(model, torch.ones(1, 12).long(), torch.tensor([[0] * 5 + [1] * 4 + [2] * 3]))
        places = torch.tensor([[*range(5), *range(5, 9), *range(5, 8)]])
        row = torch.cat([source, *targets])[None]
        found = model(input_ids=row, position_ids=places, attention_mask=mask, use_cache=False).logits[0, 5:]
    return difference, (found - torch.cat(expected)).abs().max().item()


def export_difference(name: str, folder: Path, vectors: str) -> float:
    """Of the logits of the exported model, from those of the edited one."""
    backbone: Any = build_variant(known(name))
    backbone.save_pretrained(folder / "model")
    sites = [site for site in architecture_of(backbone.config).sites if site != "residual"]
    model, _ = trained(folder / "run", folder / "model", RED(sites, vectors))  # type: ignore[arg-type]
    merged = export_merged(folder / "run", folder / "merged")
    plain = AutoModelForCausalLM.from_pretrained(merged.folder).eval()
    expected = logits(model)
    return ((logits(plain) - expected).abs().max() / expected.abs().max()).item()


DECODINGS = [Decoding(1, 0.9, 0, 1.2, max_new_tokens=8), Decoding(3, 0.9, 3, 1.0, max_new_tokens=8)]


def decoded(name: str) -> list[bool]:
    """Whether a batch gets what transformers generates for each row alone, greedily and with beams."""
    model, _ = edited(name)
    rows = [row for row in prompts() if len(row) > 1][:3]
    return [
        together(model, rows, decoding, [EOS, 20]) == plainly(model, rows, decoding, [EOS, 20])
        for decoding in DECODINGS
    ]


@pytest.mark.parametrize("name", EVERY)
def test_loss_logits_and_texts_are_those_of_transformers(name: str) -> None:
    loss, gradients = loss_differences(name)
    assert loss < 3e-6
    assert gradients < 3e-6
    assert edit_difference(name) < 2e-6
    assert decoded(name) == [True, True]


@pytest.mark.parametrize("name", EVERY)
def test_what_packs_is_apart_and_shares(name: str) -> None:
    model = build_variant(known(name))
    packed, shared = packing_differences(name)
    if can_pack(model.config):
        assert packed < 5e-6
        assert shared < 5e-6


@pytest.mark.parametrize("name", EVERY)
def test_the_export_computes_the_same_or_says_why_not(name: str, tmp_path: Path) -> None:
    """In full, with the scaling alone where there is no place for a bias, or not at all: a mixture of experts."""
    try:
        assert export_difference(name, tmp_path / "both", "both") < 3e-6
        assert name in HOLDS_BIASES
    except UsageError as error:
        assert name not in HOLDS_BIASES
        assert "--format edits" in str(error)
        if any(VARIANTS[name][0] in record.model_types for record in MIXTURES):
            assert "cannot be merged" in str(error)
        else:
            assert "has no place for a bias" in str(error)
            assert export_difference(name, tmp_path / "scaling", "scaling") < 5e-6


LIMITS = {"bloom": None, "mpt": 64, "falcon": 64, "falcon-alibi": None, "gptj": 64, "gpt_neo": 64, "gemma4": 64}


@pytest.mark.parametrize("name", LIMITS)
def test_how_long_a_text_may_be(name: str) -> None:
    """Where there is a limit it is the last length that works, or the one that the model was made for."""
    model: Any = build_variant(known(name))
    assert position_limit(model.config) == LIMITS[name]
    with torch.no_grad():
        assert model(input_ids=torch.full((1, LIMITS[name] or 100), 5)).logits.isfinite().all()
        if name in ("mpt", "gptj", "gpt_neo"):  # whose positions are rows of a table
            with pytest.raises((RuntimeError, IndexError)):
                model(input_ids=torch.full((1, 65), 5))


@pytest.mark.parametrize("name", ["mixtral", "llama4", "gpt_oss", "qwen3_moe-dense"])
def test_a_mixture_is_edited_where_its_experts_are_summed_up(name: str) -> None:
    model = build_variant(known(name))
    sites = find_sites(model, ["ffn"])
    assert [(site.layer, site.width) for site in sites] == [(0, 32), (1, 32)]
    assert all(site.module.endswith((".mlp", ".feed_forward")) for site in sites)
    RED().apply(model)
    with pytest.raises(UsageError, match="cannot be merged: only the output of a linear"):
        RED().fold(model)


@pytest.mark.parametrize(
    ("model_type", "options", "sentence"),
    [
        ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact to false"),
        ("granitemoehybrid", {"num_local_experts": 2}, "sums up a mixture of experts and another FFN"),
        ("granitemoeshared", {}, "sums up a mixture of experts and a shared FFN"),
        ("mamba", {}, "its blocks have no FFN"),
        ("gemma3", {}, r"only its text part \(gemma3_text\) can be edited"),
    ],
)
def test_what_has_no_sites_says_why(model_type: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        architecture_of(AutoConfig.for_model(model_type, **options))


def test_no_unsupported_family_has_a_record() -> None:
    assert not {name for record in ARCHITECTURES for name in record.model_types} & UNSUPPORTED.keys()
