"""A fast path that another library's release makes wrong is caught at its first use, and the run stays right."""

import copy
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from red_lightning import RED
from red_lightning.data.packing import collate_packed
from red_lightning.data.source_groups import collate_shared
from red_lightning.editing import virtual_tokens
from red_lightning.editing.structure import structure_changed
from red_lightning.efficiency import loss_head, verification
from red_lightning.efficiency.fused_kernels import fuse
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.packed_loss import packed_losses
from red_lightning.efficiency.shared_sources import encodes_once, shared_losses
from red_lightning.efficiency.verification import (
    FastPathWarning,
    difference,
    refused_paths,
    require_equal,
    verdicts_of,
    verified,
)
from red_lightning.errors import UsageError
from red_lightning.families import can_pack, depends_on_length, record_of
from red_lightning.generation import uncached as uncached_decoding
from red_lightning.generation.decoding import Decoding, write
from red_lightning.generation.logits_processors import Processors
from red_lightning.methods import LoReFT, PromptTuning
from tests.backbones_zoo import VOCABULARY, build
from tests.sequences import TEXTS, padded

REPORTED = r"^the fast path '{}' (differs|raised) .* with transformers [\d.]+ and torch .*: please report this line"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test has compared anything before."""
    monkeypatch.setattr(verification, "_verdicts", {})


def randomised(family: str, method: Any = None, **options: Any) -> Any:
    model: Any = build(family, dropout=0.0, **options)
    generator = torch.Generator().manual_seed(1)
    for vector in (method or RED()).apply(model).values():
        vector.data += 0.2 * torch.randn(vector.shape, generator=generator)
    return model


def uncached(model: Any, text: list[int], new: int) -> list[int]:
    """Greedy decoding of one row by passes over all of its tokens."""
    tokens = torch.tensor([text])
    with torch.no_grad():
        for _ in range(new):
            following = model(input_ids=tokens, use_cache=False).logits[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, following], dim=1)
    return tokens[0, len(text) :].tolist()


def decoded(model: Any, new: int = 5) -> list[list[int]]:
    batch = padded(TEXTS, left=True)
    decoding = Decoding(1, 1.0, 0, max_new_tokens=new)
    return write(model, *batch.values(), decoding, Processors(), [VOCABULARY + 1], 0).tolist()


def drop_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that takes the cache under a third name, and swallows the others."""
    forward = LlamaForCausalLM.forward

    def renamed(self: Any, input_ids: Tensor, cache: Any = None, **others: Any) -> Any:
        others.pop("past_key_values", None)
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(LlamaForCausalLM, "forward", renamed)


@pytest.mark.parametrize("method", [RED, lambda: LoReFT(2), lambda: PromptTuning(3)], ids=["RED", "LoReFT", "prompt"])
def test_a_renamed_cache_argument_is_caught(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised("llama", method())
    right = [uncached(model, text, 5) for text in TEXTS]
    assert decoded(model) == right
    monkeypatch.setattr(verification, "_verdicts", {})
    structure_changed()
    drop_cache(monkeypatch)
    with pytest.warns(FastPathWarning) as caught:
        assert decoded(model) == right
    assert [str(warning.message).split("'")[1] for warning in caught] == [
        "decoding with our own cache",
        "generate with a cache",
    ]
    with warnings.catch_warnings(action="error"):  # said once
        assert decoded(model) == right
    assert set(refused_paths(model)) == set(verdicts_of(model))


def test_virtual_tokens_that_do_not_see_the_cache_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers 5.24 did to PromptTuning: each new token had the virtual tokens before it once more."""
    model = randomised("gpt2", PromptTuning(3))
    right = [uncached(model, text, 5) for text in TEXTS]
    monkeypatch.setattr(virtual_tokens, "seen_tokens", lambda named: 0)
    with pytest.warns(FastPathWarning) as caught:
        assert decoded(model) == right
    paths = ["decoding with our own cache", "generate with a cache"]  # transformers' is not right then, either
    for path, warning in zip(paths, caught, strict=True):
        assert re.match(REPORTED.format(path), str(warning.message))


def test_positions_that_generate_gets_wrong_are_caught() -> None:
    """RoBERTa counts its positions from the padding token; transformers' ``generate`` counts them from 0."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RobertaConfig(vocab_size=VOCABULARY, pad_token_id=1, is_decoder=True, initializer_range=0.5, **sizes)
    model: Any = RobertaForCausalLM(config).eval()
    right = [uncached(model, text, 5) for text in TEXTS]
    with pytest.warns(FastPathWarning) as caught:
        assert decoded(model) == right
    assert len(caught) == 2


def test_short_prompts_are_compared_with_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GPT2LMHeadModel.forward

    def without_positions(self: Any, **given: Any) -> Any:
        return forward(self, **{**given, "position_ids": None})

    monkeypatch.setattr(GPT2LMHeadModel, "forward", without_positions)
    model = randomised("gpt2")
    batch = padded([[5, 6, 7, 8, 9, 10]], left=True)
    with pytest.warns(FastPathWarning):
        write(model, *batch.values(), Decoding(1, 1.0, 0, max_new_tokens=2), Processors(), [VOCABULARY + 1], 0)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_longest_row(kind: str) -> None:
    config = build("llama").config
    assert can_pack(config) and not depends_on_length(config)
    config.rope_parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    assert depends_on_length(config) and not can_pack(config)


def test_a_strict_model_raises_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised("llama")
    require_equal(model)
    model = copy.deepcopy(model)
    drop_cache(monkeypatch)
    with pytest.raises(UsageError, match=r"decoding with our own cache.*leave --model.backbone_options.strict out"):
        decoded(model)


def test_a_head_of_another_family_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohere multiplies its logits; with Llama's record it would train another loss."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = CohereForCausalLM(CohereConfig(vocab_size=VOCABULARY, logit_scale=0.25, **sizes)).eval()
    llama = record_of(build("llama").config)
    assert llama is not None
    monkeypatch.setattr(loss_head, "record_of", lambda config: replace(llama, model_types=("cohere",)))
    model.requires_grad_(False)
    ids = torch.randint(6, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    with pytest.warns(FastPathWarning, match=REPORTED.format("loss at the labels alone, by a frozen head")):
        losses = label_losses(model, ids, input_ids=ids, use_cache=False)
    assert losses[:, 1:].mean().item() == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), rel=1e-5)


def examples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(6, VOCABULARY, (n,), generator=generator).tolist() for n in (9, 14, 5)]
    return [{"row": row, "tokens": text, "learned": [(2, len(text))]} for row, text in enumerate(texts)]


def drop_argument(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A release that ignores an argument."""
    forward = LlamaForCausalLM.forward

    def ignoring(self: Any, **given: Any) -> Any:
        if name in given and ((given[name] is not None and given[name].dim() != 2) or name == "position_ids"):
            given.pop(name)
        return forward(self, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", ignoring)


def test_packed_sequences_that_see_each_other_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised("llama")
    batch = collate_packed(examples())
    given = (model, batch["labels"], batch["input_ids"], batch["position_ids"], batch["label_places"])
    right = packed_losses(*given)
    assert verdicts_of(model)["packed sequences"].holds and not refused_paths(model)
    monkeypatch.setattr(verification, "_verdicts", {})
    structure_changed()
    drop_argument(monkeypatch, "position_ids")
    with pytest.warns(FastPathWarning, match=REPORTED.format("packed sequences")):
        torch.testing.assert_close(packed_losses(*given), right, rtol=1e-5, atol=1e-5)


def test_targets_that_see_each_other_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised("llama")
    rows = [
        {"row": row, "source": own["tokens"][: 3 + row % 2], "target": own["tokens"][4:]}
        for row, own in enumerate([*examples(), *examples()])
    ]
    batch = collate_shared(rows, pad_id=1)
    names = ("labels", "predictors", "input_ids", "position_ids", "sources", "targets")
    given = [batch[name] for name in names]
    right = shared_losses(model, *given, places=batch["label_places"])
    assert verdicts_of(model)["shared sources"].holds
    monkeypatch.setattr(verification, "_verdicts", {})
    structure_changed()
    drop_argument(monkeypatch, "attention_mask")
    with pytest.warns(FastPathWarning, match=REPORTED.format("shared sources")):
        found = shared_losses(model, *given, places=batch["label_places"])
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    vectors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(right.sum(), vectors)
    for own, other in zip(torch.autograd.grad(found.sum(), vectors), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_an_encoder_whose_rows_depend_on_their_batch_is_caught() -> None:
    model = randomised("t5")
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    assert encodes_once(model, ids, torch.ones_like(ids))

    def shift(module: nn.Module, args: Any, output: Any) -> None:
        output["last_hidden_state"] += len(output["last_hidden_state"])

    model.get_encoder().register_forward_hook(shift)
    structure_changed()
    model.config.initializer_range = 7.0  # another kind of model
    with pytest.warns(FastPathWarning, match=REPORTED.format("sources encoded once")):
        assert not encodes_once(model, ids, torch.ones_like(ids))


@pytest.mark.parametrize("wrong", [False, True])
def test_kernels_that_compute_something_else_are_not_used(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for Liger's modules, in torch's own operations."""

    class Norm(nn.Module):
        def __init__(self, width: int, eps: float, **_: Any) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

        def forward(self, states: Tensor) -> Tensor:
            return nn.functional.rms_norm(states, states.shape[-1:], self.weight, 1.0 if wrong else self.eps)

    class FFN(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            wide, narrow = config.intermediate_size, config.hidden_size
            self.gate_proj, self.up_proj = (nn.Linear(narrow, wide, False) for _ in range(2))
            self.down_proj = nn.Linear(wide, narrow, False)

        def forward(self, states: Tensor) -> Tensor:
            return self.down_proj(nn.functional.silu(self.gate_proj(states)) * self.up_proj(states))

    stand_in = SimpleNamespace(LigerRMSNorm=Norm, LigerSwiGLUMLP=FFN)
    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace(transformers=stand_in))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model: Any = build("llama")
    ids = torch.tensor([[5, 6, 7]])
    right = model(input_ids=ids).logits
    if wrong:
        with pytest.warns(FastPathWarning, match=REPORTED.format("fused kernels")):
            fuse(model, "liger")
    else:
        fuse(model, "liger")
    assert any(isinstance(module, Norm) for module in model.modules()) != wrong
    torch.testing.assert_close(model(input_ids=ids).logits, right, rtol=1e-5, atol=1e-5)


def test_a_fast_path_that_raises_is_not_taken() -> None:
    def fast() -> Tensor:
        raise TypeError("forward() got an unexpected keyword argument 'past_key_values'\nand more")

    model = build("gpt2")
    with pytest.warns(
        FastPathWarning, match=r"'some path' raised TypeError: forward\(\) got an unexpected .* on a GPT2"
    ):
        assert not verified("some path", model, fast, lambda: torch.arange(3.0))


def test_a_comparison_changes_neither_modes_nor_random_numbers() -> None:
    model = build("gpt2").train()
    model.get_submodule("transformer.h.0").eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    ran: list[bool] = []

    def way() -> Tensor:
        ran.append(model.training or torch.is_grad_enabled())
        return model(input_ids=torch.tensor([[5, 6, 7]])).logits

    assert verified("some path", model, way, way)
    assert verified("some path", model, way, way)
    assert ran == [False, False]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_values_that_tell_nothing_are_compared_again() -> None:
    """A text of one token has no loss; NaN is equal to nothing."""
    model = build("llama")
    one = torch.tensor([[7]])
    label_losses(model, one, input_ids=one, use_cache=False)
    empty = {"input_ids": torch.tensor([[1, 1], [1, 7]]), "attention_mask": torch.tensor([[0, 0], [0, 1]])}
    assert uncached_decoding.reads_with_cache(model, **empty)
    for values in ([1.0, 1.0], [torch.nan, torch.nan]):
        assert verified("some path", model, lambda: torch.ones(5), lambda values=values: torch.tensor(values))
    assert verdicts_of(model) == {}
    with pytest.warns(FastPathWarning):
        assert not verified("some path", model, lambda: torch.ones(2), lambda: torch.tensor([1.0, 2.0]))


def others() -> Iterator[Any]:
    """Models of other kinds than a GPT-2 with two layers in float32."""
    yield build("gpt2", layers=1)
    yield build("gpt2").bfloat16()
    yield randomised("gpt2")
    scaled: Any = build("gpt2")
    scaled.config.scale_attn_weights = False
    yield scaled


def test_a_verdict_holds_for_its_kind_of_model_alone() -> None:
    ran: list[int] = []

    def way() -> Tensor:
        ran.append(1)
        return torch.arange(2.0)

    for seed in (0, 1):
        verified("some path", build("gpt2", seed=seed), way, way)
    assert len(ran) == 2
    for count, other in enumerate(others(), start=2):
        verified("some path", other, way, way)
        assert len(ran) == 2 * count
    verified("another path", build("gpt2"), way, way)
    assert len(ran) == 2 * count + 2


@pytest.mark.parametrize(
    ("fast", "plain", "expected"),
    [
        ([1.0, 3.0], [1.0, 3.0], 0.0),
        ([1.0, 3.5], [1.0, 3.0], 0.25),  # of a spread of 2
        ([1.0, 1.0], [1.0, 1.0], 0.0),
        ([1.1, 1.0], [1.0, 1.0], 10.0),  # without a spread, of a hundredth of the largest
        ([1.0, -torch.inf, 2.0], [1.0, -torch.inf, 2.0], 0.0),
        ([1.0, 5.0, 2.0], [1.0, -torch.inf, 2.0], torch.inf),
        ([torch.nan, 2.0], [1.0, 2.0], torch.inf),
        ([1.0, -1e9, 2.0, 3.5], [1.0, -1e9, 2.0, 3.0], 0.25),  # part of a vocabulary is masked
        ([1.0, 1.5, 2.0, 3.0], [1.0, -1e9, 2.0, 3.0], torch.inf),
        ([1.0], [1.0, 2.0], torch.inf),
    ],
)
def test_the_difference_is_a_share_of_the_spread(fast: list[float], plain: list[float], expected: float) -> None:
    assert difference(torch.tensor(fast), torch.tensor(plain)) == pytest.approx(expected, rel=1e-5)
