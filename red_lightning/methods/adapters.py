"""Adapters: ``h2 = h1 + W_up f(W_down h1 + b_down) + b_up`` (arXiv 1902.00751, section 2.1; 2402.15179, equation 2)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from red_lightning.editing.learned import Learned
from red_lightning.editing.sites import Site, epsilon_of, find_sites, inside_blocks, norms
from red_lightning.editing.surgery import attach, freeze, require_unedited, trainable
from red_lightning.errors import UsageError, nearest, require_range
from red_lightning.methods.method import Method

Activation = Literal["gelu", "relu", "silu", "tanh"]
"""What makes a bottleneck nonlinear."""
Norms = Literal["blocks", "all", "none"]
"""Which of the backbone's norms train: those inside its blocks, those outside them too, or none."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class Bottleneck(Learned):
    """Edit one site: ``h2 = h1 + up(f(down(h1)))``, computed in float32 and rounded once.

    The up-projection starts at zero, so the output of the site is unchanged at first. The down-projection starts from
    N(0, 0.02), its bias at zero.

    Args:
        width: Columns of the site's output.
        rank: Width of the bottleneck.
        activation: Nonlinearity ``f``.

    Attributes:
        down: float32 linear with bias, ``width`` to ``rank``.
        up: float32 linear with bias, ``rank`` to ``width``.
    """

    def __init__(self, width: int, rank: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.activation = activation
        self.down = nn.Linear(width, rank, dtype=torch.float32)
        self.up = nn.Linear(rank, width, dtype=torch.float32)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        """Edit a representation.

        Args:
            hidden: Floating point, shape (..., width).

        Returns:
            The edited representation; shape and dtype of ``hidden``.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            change = self.up(ACTIVATIONS[self.activation](self.down(hidden.float())))
        return (hidden + change).to(hidden.dtype)


class TrainedNorm(Learned):
    """Train one norm of the backbone by learned differences to its frozen weight and bias.

    A norm is linear in both, ``y = w * n(x) + b``, so the trained norm is ``y + d_w * n(x) + d_b``. The differences are
    float32 beside 16-bit weights and get the gradients of ``w`` and ``b``. Weight decay pulls towards the pretrained
    values.

    Args:
        norm: LayerNorm or RMSNorm.

    Attributes:
        weight: ``d_w``, float32, shape (width,); starts at zeros.
        bias: ``d_b``, float32, shape (width,); starts at zeros. None if the norm has no bias.
    """

    reads_input = True

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        width, epsilon = len(norm.get_parameter("weight")), epsilon_of(norm)
        assert epsilon is not None
        biased = getattr(norm, "bias", None) is not None  # no RMSNorm is; DeBERTa v1 defines its LayerNorm
        self.epsilon, self.centres = epsilon, biased or isinstance(norm, nn.LayerNorm)
        self.weight = nn.Parameter(torch.zeros(width, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float32)) if biased else None

    def forward(self, output: Tensor, hidden: Tensor) -> Tensor:
        """Return the output of the trained norm.

        Args:
            output: Output of the frozen norm: floating point, shape (..., width).
            hidden: Input of the frozen norm, of the same shape.

        Returns:
            Shape and dtype of ``output``.
        """
        shape, hidden = self.weight.shape, hidden.float()
        with torch.autocast(hidden.device.type, enabled=False):
            if self.centres:
                change = functional.layer_norm(hidden, shape, self.weight, self.bias, self.epsilon)
            else:
                change = functional.rms_norm(hidden, shape, self.weight, self.epsilon)
        return (output + change).to(output.dtype)


class Adapter(Method):
    """Houlsby adapters: a bottleneck after attention and after FFN, with trainable norms (``Adapter`` in the tables).

    The bottleneck follows the last linear of the sub-layer, before residual and norm. It is nonlinear and cannot be
    merged. The T5 rows of the paper use ``rank: 24``, ``sites: ['*.SelfAttention.o', ffn]`` and ``norms: all``:
    1,855,104 parameters for T5-base (48 bottlenecks, none after cross-attention, and 62 norms).

    Args:
        rank: Width of the bottleneck (paper: 8, and 1 in Table 5).
        sites: Modules followed by a bottleneck: names and patterns as for RED. ``attention`` includes T5's
            cross-attention.
        norms: Trainable norms of the backbone: those inside the ``blocks`` (the paper's count), ``all`` or ``none``.
        activation: Nonlinearity: ``gelu`` (Houlsby's code), ``relu``, ``silu`` or ``tanh``.
    """

    sizes = ("rank",)

    def __init__(
        self,
        rank: int = 8,
        sites: list[str] = ["attention", "ffn"],  # noqa: B006 - never changed; a literal default shows in --help
        norms: Norms = "blocks",
        activation: Activation = "gelu",
    ) -> None:
        _check(rank, activation, norms)
        self.rank, self.sites, self.norms, self.activation = rank, list(sites), norms, activation

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach the bottlenecks. The output is bitwise unchanged at first.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The trainable parameters, by names such as ``transformer.h.0.mlp.c_proj.editor.down.weight`` and
            ``transformer.h.0.ln_1.editor.weight``: float32.

        Raises:
            UsageError: A site is unknown or matches nothing, or the backbone is edited already.
        """
        return _attach(backbone, find_sites(backbone, self.sites), self.rank, self.activation, self.norms)


class AdapterFFN(Method):
    """Pfeiffer adapters: a bottleneck after the FFN, without norms (arXiv 2005.00247; ``Adapter_FFN`` in the tables).

    Args:
        rank: Width of the bottleneck (paper: 16, and 1 in Table 5).
        activation: Nonlinearity: ``gelu``, ``relu`` (Pfeiffer's code), ``silu`` or ``tanh``.
    """

    sizes = ("rank",)

    def __init__(self, rank: int = 16, activation: Activation = "relu") -> None:
        _check(rank, activation)
        self.rank, self.activation = rank, activation

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach the bottlenecks; see :meth:`Adapter.apply`."""
        return _attach(backbone, find_sites(backbone, ["ffn"]), self.rank, self.activation)


class AdapterDrop(Method):
    """Adapters without those of the first layers (arXiv 2010.11918, section 3; ``AdapterDrop`` in the tables).

    The T5 row of the paper uses the options of :class:`Adapter` and ``drop: 5``: 1,101,984 parameters for T5-base.

    Args:
        rank: Width of the bottleneck.
        drop: Number of layers at the start of each stack without a bottleneck. Their norms are trained.
        sites: Modules followed by a bottleneck, as for ``Adapter``.
        norms: Trainable norms of the backbone: those inside the ``blocks``, ``all`` or ``none``.
        activation: Nonlinearity: ``gelu``, ``relu``, ``silu`` or ``tanh``.
    """

    sizes = ("rank",)

    def __init__(
        self,
        rank: int = 8,
        drop: int = 5,
        sites: list[str] = ["attention", "ffn"],  # noqa: B006 - never changed; a literal default shows in --help
        norms: Norms = "blocks",
        activation: Activation = "gelu",
    ) -> None:
        _check(rank, activation, norms)
        require_range("model.method.drop", drop, 0)
        self.rank, self.drop, self.sites, self.norms, self.activation = rank, drop, list(sites), norms, activation

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach the bottlenecks of the later layers; see :meth:`Adapter.apply`.

        Raises:
            UsageError: No layer is left besides.
        """
        every = find_sites(backbone, self.sites)
        kept = [site for site in every if site.layer is not None and site.layer >= self.drop]
        if not kept:
            layers = 1 + max((site.layer for site in every if site.layer is not None), default=-1)
            raise UsageError(
                f"model.method.drop is {self.drop}, but the backbone has {layers} layers (ALBERT's share one), so no "
                "adapter would be left; give a smaller number"
            )
        return _attach(backbone, kept, self.rank, self.activation, self.norms)


def _check(rank: int, activation: str, norms: str = "none") -> None:
    require_range("model.method.rank", rank, 1)
    if activation not in ACTIVATIONS:
        raise UsageError(f"unknown activation '{activation}': {nearest(activation, ACTIVATIONS)}")
    if norms not in ("blocks", "all", "none"):
        raise UsageError(f"unknown norms '{norms}': choose blocks, all or none")


def _attach(
    backbone: nn.Module, sites: Sequence[Site], rank: int, activation: Activation, train: Norms = "none"
) -> dict[str, nn.Parameter]:
    """Freeze the backbone, attach a bottleneck to each site, and make the chosen norms trainable."""
    require_unedited(backbone)
    trained = [] if train == "none" else norms(backbone)
    if train == "blocks":
        trained = inside_blocks(backbone, trained)
    if both := {site.module for site in sites} & {site.module for site in trained}:
        raise UsageError(f"'{min(both)}' cannot be trained and have an adapter; choose other sites, or norms: none")
    freeze(backbone)
    for site in sites:
        attach(backbone, site, Bottleneck(site.width, rank, activation))
    for site in trained:
        attach(backbone, site, TrainedNorm(backbone.get_submodule(site.module)))
    return trainable(backbone)
