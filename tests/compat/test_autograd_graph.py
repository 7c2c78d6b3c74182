"""What selective recomputation reads in torch's autograd graph, and what happens where it is not there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu

from red_lightning.compat.autograd_graph import output_of, saved, version_of
from red_lightning.efficiency import kept_tensors, recomputed_operations
from red_lightning.efficiency.kept_tensors import ForwardPass, Kept, Rebuilt

OF_TORCH = f"of torch {torch.__version__}, which selective recomputation reads, is gone: see compat/autograd_graph.py"
SAVED: list[tuple[str, Callable[[Tensor], Tensor], dict[str, Any]]] = [
    ("AddBackward0", lambda x: torch.add(x, x, alpha=2), {"alpha": 2}),
    ("MulBackward0", lambda x: x * torch.full((2, 3), 7.0), {"other": torch.full((2, 3), 7.0)}),
    ("MulBackward0", lambda x: torch.full((2, 3), 7.0) * x, {"self": torch.full((2, 3), 7.0)}),
    (
        "AddcmulBackward0",
        lambda x: torch.addcmul(x, torch.full((3,), 3.0, requires_grad=True), torch.full((3,), 4.0), value=2),
        {"value": 2, "tensor2": torch.full((3,), 4.0)},
    ),
    (
        "AddcmulBackward0",
        lambda x: torch.addcmul(x, torch.full((3,), 3.0), torch.full((3,), 4.0, requires_grad=True)),
        {"tensor1": torch.full((3,), 3.0)},
    ),
    ("GeluBackward0", lambda x: gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    (
        "NativeLayerNormBackward0",
        lambda x: layer_norm(x, (3,), torch.full((3,), 2.0), torch.full((3,), 5.0)),
        {"normalized_shape": (3,), "weight": torch.full((3,), 2.0), "bias": torch.full((3,), 5.0)},
    ),
    ("NativeDropoutBackward0", lambda x: torch.native_dropout(x, 0.25, True)[0], {"p": 0.25}),
    ("SiluBackward0", silu, {}),
    ("ToCopyBackward0", lambda x: x.to(torch.float16), {}),
    ("ViewBackward0", lambda x: x.view(6), {}),
]


def leaf() -> Tensor:
    return torch.arange(6.0).view(2, 3).clone().requires_grad_()


@pytest.mark.parametrize(("name", "compute", "expected"), SAVED)
def test_what_operations_have_saved(name: str, compute: Any, expected: dict[str, Any]) -> None:
    output = compute(leaf() * 1)
    node = output.grad_fn
    assert node.name() == name, f"{name} {OF_TORCH}"
    for key, value in expected.items():
        found = saved(node, key)
        assert found is not None, f"{name}._saved_{key} {OF_TORCH}"
        assert torch.equal(found, value) if isinstance(value, Tensor) else found == value
    made = output_of(node)
    assert made is not None, f"Node._input_metadata {OF_TORCH}"
    assert (tuple(made.shape), made.dtype, made.device) == (tuple(output.shape), output.dtype, output.device)


def test_a_dropouts_mask() -> None:
    x = leaf() + 1
    output, _ = torch.native_dropout(x, 0.5, True)
    mask = saved(output.grad_fn, "result1")
    assert mask is not None, f"NativeDropoutBackward0._saved_result1 {OF_TORCH}"
    assert torch.equal(mask, output != 0)


def test_versions() -> None:
    assert hasattr(torch.Tensor, "_version"), f"Tensor._version {OF_TORCH}"
    tensor = torch.zeros(2)
    before = version_of(tensor)
    assert version_of(tensor.add_(1)) == before + 1


@pytest.mark.parametrize("hidden", ["saved", "output_of"])
@pytest.mark.parametrize("compute", [compute for _, compute, expected in SAVED if "result1" not in expected])
def test_where_a_name_is_gone_the_tensor_is_kept(monkeypatch: pytest.MonkeyPatch, compute: Any, hidden: str) -> None:
    def packed() -> Any:
        x = leaf() * 1
        forward = ForwardPass(torch.nn.Identity())
        x.cos()  # keeps x
        output = compute(x)
        output.cos()
        found = forward.known[output.grad_fn, 0]
        forward.end()
        assert torch.equal(found.unpack(), output)
        return found

    assert isinstance(packed(), Rebuilt | Kept)
    for module in (recomputed_operations, kept_tensors):
        monkeypatch.setattr(module, hidden, lambda *_: None)
    found = packed()
    assert isinstance(found, Kept) or hidden == "saved"
    if hidden == "saved":  # then only what needs nothing that was saved is computed again
        assert isinstance(found, Rebuilt) == (compute(leaf() * 1).grad_fn.name()[:4] in ("Silu", "ToCo", "View"))


def test_a_node_without_private_names() -> None:
    assert saved(object(), "alpha") is None and output_of(object()) is None and version_of(object()) == 0  # type: ignore[arg-type]
