"""The largest absolute value among tensors, with and without torch's own function."""

import math

import pytest
import torch

from red_lightning.compat.norms import largest_magnitude


@pytest.fixture(params=[True, False])
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.delattr(torch.nn.utils, "get_total_norm", raising=False)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -5.0], 5),
        ([3e38, 3e38], 3e38),
        ([math.inf, 1.0], math.inf),
        ([-math.inf, 1.0], math.inf),
        ([math.nan, 1.0], math.nan),
    ],
)
def test_it_is_the_largest(values: list[float], expected: float) -> None:
    tensors = [torch.tensor([values[0], 0.5]), torch.tensor(values[1]), torch.ones(2, 2, dtype=torch.bfloat16)]
    for order in (tensors, tensors[::-1]):
        found = float(largest_magnitude(order))
        assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.skipif(torch.__version__ < "2.6", reason="get_total_norm came with torch 2.6")
def test_torch_has_it() -> None:
    assert hasattr(torch.nn.utils, "get_total_norm"), (
        "torch.nn.utils.get_total_norm is gone, so that looking at gradients is slower: see compat/norms.py"
    )
