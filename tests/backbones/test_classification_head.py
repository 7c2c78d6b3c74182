"""The classification head: what stands for a text by hand, and the authors' head by the authors' own numbers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from red_lightning.backbones.classification_head import ClassificationHead, HeadOptions, pool
from red_lightning.errors import UsageError
from tests.backbones_zoo import MASKED, build
from tests.conftest import SHARED
from tests.labeled import CLASSIFIERS
from tests.methods.test_oracle import Case

ORACLES = sorted((SHARED / "oracle/forward").glob("roberta*.pt"))
HIDDEN = [[[1.0, 10.0], [2.0, 20.0], [6.0, 30.0], [7.0, 70.0]], [[5.0, 50.0], [8.0, 80.0], [9.0, 90.0], [0.5, 0.5]]]
RIGHT, LEFT = [[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 1, 1, 1], [0, 0, 0, 1]]

BY_HAND = {
    ("first", "right"): [[1.0, 10.0], [5.0, 50.0]],
    ("mean", "right"): [[3.0, 20.0], [5.0, 50.0]],
    ("last", "right"): [[6.0, 30.0], [5.0, 50.0]],
    ("first", "left"): [[2.0, 20.0], [0.5, 0.5]],
    ("mean", "left"): [[5.0, 40.0], [0.5, 0.5]],
    ("last", "left"): [[7.0, 70.0], [0.5, 0.5]],
    ("first", "none"): [[1.0, 10.0], [5.0, 50.0]],
    ("mean", "none"): [[4.0, 32.5], [5.625, 55.125]],
    ("last", "none"): [[7.0, 70.0], [0.5, 0.5]],
}


@pytest.mark.parametrize(("pooling", "padding"), BY_HAND)
def test_pooling_by_hand(pooling: str, padding: str) -> None:
    mask = {"right": RIGHT, "left": LEFT, "none": [[1] * 4] * 2}[padding]
    output = SimpleNamespace(last_hidden_state=torch.tensor(HIDDEN), pooler_output=None)
    pooled = pool(output, torch.tensor(mask), pooling)  # type: ignore[arg-type]
    assert pooled.tolist() == BY_HAND[pooling, padding]


def test_the_pooler_is_the_models_own() -> None:
    pooled = torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    output = SimpleNamespace(last_hidden_state=torch.tensor(HIDDEN), pooler_output=pooled)
    assert torch.equal(pool(output, torch.tensor(RIGHT), "pooler"), pooled)
    for without in (SimpleNamespace(last_hidden_state=0, pooler_output=None), SimpleNamespace(last_hidden_state=0)):
        with pytest.raises(UsageError, match=r"no pooler; choose model\.head\.pooling first, mean or last"):
            pool(without, torch.tensor(RIGHT), "pooler")


DEFAULTS = {
    **dict.fromkeys(CLASSIFIERS, ("last", False, 0.1)),
    **dict.fromkeys(MASKED, ("first", True, 0.5)),  # the paper's head
    **dict.fromkeys(("bert", "albert"), ("pooler", False, 0.1)),
}


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_default_is_what_the_family_was_made_for(family: str) -> None:
    options = HeadOptions().resolved(build(family).config)
    assert (options.pooling, options.hidden, options.dropout) == DEFAULTS[family]


def test_options_that_are_given_stay() -> None:
    config = AutoConfig.for_model("roberta")
    mean = HeadOptions("mean").resolved(config)
    assert (mean.pooling, mean.hidden, mean.dropout) == ("mean", True, 0.5)
    last = HeadOptions("last").resolved(config)
    assert (last.pooling, last.hidden, last.dropout) == ("last", False, 0.1)
    given = HeadOptions("last", True, 0.0).resolved(config)
    assert (given.pooling, given.hidden, given.dropout) == ("last", True, 0.0)
    plain = HeadOptions(hidden=False).resolved(config)
    assert (plain.pooling, plain.hidden, plain.dropout) == ("first", False, 0.1)
    modern = AutoConfig.for_model("modernbert", classifier_pooling="mean")
    assert HeadOptions().resolved(modern).pooling == "mean"
    for dropout in (-0.1, 1.1):
        with pytest.raises(UsageError, match=rf"model\.head\.dropout is {dropout}, .* between 0 and 1"):
            HeadOptions(dropout=dropout).resolved(config)


@pytest.mark.skipif(not ORACLES, reason="the reference material is not beside the repository")
@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
@torch.no_grad()
def test_the_head_is_the_authors(path: Path) -> None:
    case = Case(path)
    weights = case.expected["classifier"]
    outputs, width = weights["out_proj.weight"].shape
    head = ClassificationHead(width, outputs).eval()
    head.load_state_dict(weights)
    logits = head(pool(case.model(**case.inputs), case.inputs["attention_mask"], "first"))
    torch.testing.assert_close(logits, case.expected["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 300.0), (torch.bfloat16, 3.0)])
def test_the_mean_of_a_long_text_keeps_its_precision(dtype: torch.dtype, value: float) -> None:
    """The sum of 301 times 300 is no float16, and 301 is no bfloat16."""
    output = SimpleNamespace(last_hidden_state=torch.full((1, 301, 2), value, dtype=dtype))
    pooled = pool(output, torch.ones(1, 301, dtype=torch.int64), "mean")
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[value, value]]


@pytest.mark.parametrize("hidden", [True, False])
def test_the_head_computes_in_float32(hidden: bool) -> None:
    """Whatever the backbone's format: the result is that of the same numbers in float32."""
    torch.manual_seed(0)
    head = ClassificationHead(8, 3, hidden).eval()
    pooled = torch.randn(5, 8, dtype=torch.bfloat16)
    logits = head(pooled)
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    x = pooled.float().numpy()
    if head.dense is not None:
        x = torch.tensor(x @ head.dense.weight.detach().numpy().T + head.dense.bias.detach().numpy()).tanh().numpy()
    expected = x @ head.out_proj.weight.detach().numpy().T + head.out_proj.bias.detach().numpy()
    torch.testing.assert_close(logits.detach(), torch.tensor(expected), atol=1e-6, rtol=0)


def kept(head: ClassificationHead, which: str, pooled: Tensor) -> float:
    """The share of the inputs of a layer that are not dropped."""
    seen: list[Tensor] = []
    layer = getattr(head, which)
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(pooled)
    hook.remove()
    return (seen[0] != 0).double().mean().item()


@pytest.mark.parametrize("dropout", [0.5, 0.2])
def test_dropout_acts_before_both_layers_in_training_only(dropout: float) -> None:
    torch.manual_seed(0)
    head, pooled = ClassificationHead(50, 2, dropout=dropout), torch.randn(400, 50)
    for layer in ("dense", "out_proj"):
        assert kept(head.train(), layer, pooled) == pytest.approx(1 - dropout, abs=0.02)  # 20,000 draws: 0.0035
        assert kept(head.eval(), layer, pooled) == 1
    assert not torch.equal(head.train()(pooled), head(pooled))
    assert torch.equal(head.eval()(pooled), head(pooled))
    plain = ClassificationHead(50, 2, hidden=False, dropout=dropout)
    assert plain.dense is None
    assert kept(plain.train(), "out_proj", pooled) == pytest.approx(1 - dropout, abs=0.02)


def test_the_expected_output_does_not_depend_on_dropout() -> None:
    """What is kept is scaled up: the mean over many draws is the output without dropout."""
    torch.manual_seed(0)
    head = ClassificationHead(20, 1, hidden=False, dropout=0.5)
    pooled = torch.randn(1, 20)
    draws = head(pooled.expand(20_000, -1)).detach()
    spread = float(draws.std() / 20_000**0.5)
    assert draws.mean().item() == pytest.approx(head.eval()(pooled).item(), abs=5 * spread)
    assert spread > 0
