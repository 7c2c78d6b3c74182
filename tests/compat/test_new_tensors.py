"""Every tensor that is made is seen, and none of those that were there."""

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from red_lightning.compat.new_tensors import tensors_in, watch_tensors


def test_outputs_of_operations_inside_operations_are_seen() -> None:
    seen: list[Tensor] = []
    x = torch.arange(6.0).view(2, 3)
    with watch_tensors(seen.append):
        largest, places = x.max(dim=1)
        torch.nn.functional.layer_norm(x, (3,))
    shapes = [tuple(tensor.shape) for tensor in seen]
    assert any(tensor is largest for tensor in seen) and any(tensor is places for tensor in seen)
    assert shapes.count((2, 1)) == 2, (
        "TorchDispatchMode of torch.utils._python_dispatch does not see what a LayerNorm saves: compat/new_tensors.py"
    )
    assert not any(tensor is x for tensor in seen)
    before = len(seen)
    x.exp()
    assert len(seen) == before


def test_tensors_in_what_a_model_returns() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    output = BaseModelOutput(last_hidden_state=one, hidden_states=(two, [three]))  # type: ignore[arg-type]
    assert [len(tensor) for tensor in tensors_in(output)] == [1, 2, 3]
    assert not list(tensors_in((None, 3, "text")))
