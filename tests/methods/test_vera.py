"""VeRA: the closed form, shared projections that follow from their seed, and the paper's parameter counts."""

import pytest
import torch

from red_lightning.methods import VeRA
from tests.backbones_zoo import build
from tests.methods.guarantees import output, size
from tests.methods.real_sizes import on_meta


@pytest.mark.parametrize(
    ("backbone", "rank", "count"),
    [("roberta-base", 1024, 43_008), ("roberta-large", 256, 61_440)],  # 0.043M and 0.061M in its Table 2
)
def test_counts_of_the_paper(backbone: str, rank: int, count: int) -> None:
    assert size(VeRA(rank=rank).apply(on_meta(backbone))) == count


def test_equation_2_with_projections_that_all_share() -> None:
    model = build("llama")
    names = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qv"]
    plain = {name: model.get_submodule(name) for name in names}
    VeRA(rank=5, initial_d=0.2).apply(model)
    inputs = torch.randn(3, 32)
    pairs = set()
    for name in names:
        layer = model.get_submodule(name)
        a, b = layer.vera_A["editor"], layer.vera_B["editor"]
        pairs.add((a.data_ptr(), b.data_ptr()))
        scale_b, scale_d = layer.vera_lambda_b["editor"], layer.vera_lambda_d["editor"]
        assert torch.equal(scale_b, torch.zeros_like(scale_b))
        assert torch.equal(scale_d, torch.full((5,), 0.2))
        scale_b.data.normal_()
        expected = plain[name](inputs) + scale_b * ((inputs @ a.T * scale_d) @ b[: len(scale_b)].T)
        torch.testing.assert_close(layer(inputs), expected)
    assert len(pairs) == 1


def test_projections_follow_their_seed_alone_and_are_not_saved() -> None:
    outputs = []
    for run_seed, projection_seed in ((1, 0), (2, 0), (1, 3)):
        model = build("roberta")
        torch.manual_seed(run_seed)
        parameters = VeRA(rank=8, projection_seed=projection_seed).apply(model)
        for name, parameter in parameters.items():
            parameter.data.fill_(0.5 if name.endswith("lambda_b.editor") else 0.1)
        assert not any("vera_A" in name or "vera_B" in name for name in model.state_dict())
        outputs.append(output(model))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)
