"""LoReFT: ``h + R^T (W h + b - R h)`` at chosen tokens, the rows of R orthonormal (arXiv 2404.03592, equation 2)."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from red_lightning.editing.hooks import add_hook, remove_hooks
from red_lightning.editing.learned import Learned
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import attach, detach, freeze, require_unedited, trainable
from red_lightning.editing.virtual_tokens import arguments, seen_tokens, stack_of
from red_lightning.errors import UsageError, require_range
from red_lightning.families import Architecture
from red_lightning.methods.method import Method


class SubspaceEditor(Learned):
    """Edit hidden states in a learned subspace: replace them there by a learned linear function of themselves.

    The orthonormal rows are those of the QR decomposition of a free matrix.

    Args:
        width: Columns of the hidden states.
        rank: Dimensions of the subspace.

    Attributes:
        rotation: R before orthonormalisation, float32, shape (rank, width).
        weight: W, float32, shape (rank, width).
        bias: b, float32, shape (rank,).
        where: Tokens to edit: bool, shape (rows, tokens, 1). None edits all.
        idle: Whether no token of this pass is edited.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.rotation = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, width, dtype=torch.float32, device="cpu")))
        source = nn.Linear(width, rank, device="cpu", dtype=torch.float32)  # pyreft's first values
        self.weight, self.bias = source.weight, source.bias
        self.where: Tensor | None = None
        self.idle = False

    def subspace(self) -> Tensor:
        """Return R: float32, shape (rank, width), with orthonormal rows."""
        return torch.linalg.qr(self.rotation.T).Q.T

    def forward(self, hidden: Tensor) -> Tensor:
        """Edit hidden states.

        Args:
            hidden: Floating point, shape (rows, tokens, width).

        Returns:
            The edited hidden states; shape and dtype of ``hidden``.
        """
        if self.idle:
            return hidden
        with torch.autocast(hidden.device.type, enabled=False):
            states, subspace = hidden.float(), self.subspace()
            edited = states + (states @ (self.weight - subspace).T + self.bias) @ subspace
        edited = edited.to(hidden.dtype)
        return edited if self.where is None else torch.where(self.where, edited, hidden)


class LoReFT(Method):
    """LoReFT, Low-rank Linear Subspace ReFT: edit the outputs of the blocks at the first and last tokens of each text.

    Decoding edits the same tokens as training. A decoder's training row holds prompt and answer, so tokens are counted
    from the start of the row, and ``last`` must be 0 if the model generates. In an encoder-decoder the encoder's tokens
    are edited. W and b start at random, as in pyreft, so the output changes from the start.

    Args:
        rank: Dimensions of the subspace in each layer.
        first: Number of edited tokens at the start of each text (pyreft: 1 for GLUE, 5 for instructions).
        last: Number of edited tokens at its end. Padding does not count.
        positions: ``ends`` edits the first and last tokens, ``all`` every token, including generated ones.
        layers: Layers to edit, counted from 0 (negative: from the last). null edits all.
    """

    packs = False
    sizes = ("rank",)

    def __init__(
        self,
        rank: int = 4,
        first: int = 5,
        last: int = 0,
        positions: Literal["ends", "all"] = "ends",
        layers: list[int] | None = None,
    ) -> None:
        require_range("model.method.rank", rank, 1)
        require_range("model.method.first", first, 0)
        require_range("model.method.last", last, 0)
        if positions not in ("ends", "all"):
            raise UsageError(f"unknown positions '{positions}': choose ends or all")
        if positions == "ends" and first == last == 0:
            raise UsageError("model.method.first and last are both 0, so that no token would be edited")
        self.rank, self.first, self.last, self.positions = rank, first, last, positions
        self.layers = None if layers is None else list(layers)

    @classmethod
    def limit(cls, record: Architecture | None, has_head: bool) -> str:
        """Refuse families whose blocks' output is no module."""
        if record and "residual" not in record.sites:
            return f"edits the output of each block, which in {record.name} is the output of no module; choose RED"
        return super().limit(record, has_head)

    def apply(self, backbone: Any) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach an editor to each block's output.

        Args:
            backbone: A Hugging Face model.

        Returns:
            ``rotation`` and ``weight``, each float32 of shape (rank, width), and ``bias``, float32 of shape (rank,), of
            each block, such as ``transformer.h.0.editor.rotation``.

        Raises:
            UsageError: A layer does not exist or is narrower than the rank, or the last tokens cannot be known.
        """
        require_unedited(backbone)
        sites = find_sites(backbone, ["residual"], self.layers)
        if self.positions == "ends" and backbone.config.is_encoder_decoder:
            sites = [site for site in sites if "encoder" in site.module.split(".")]
        elif self.positions == "ends" and self.last and backbone.get_output_embeddings() is not None:
            raise UsageError(
                "LoReFT cannot edit the last tokens of a prompt here, because in training the answer follows in the "
                "same row; set model.method.last to 0, or model.method.positions to all"
            )
        if (narrow := min(site.width for site in sites)) < self.rank:
            raise UsageError(f"model.method.rank is {self.rank}, but the hidden states have {narrow} columns")
        freeze(backbone)
        for site in sites:
            attach(backbone, site, SubspaceEditor(site.width, self.rank))
        if self.positions == "ends":
            choose = partial(_choose_ends, self.first, self.last)
            add_hook(stack_of(backbone), choose, before=True, with_kwargs=True)
        return trainable(backbone)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the editors. The backbone is bitwise identical to the one before."""
        detach(backbone)
        remove_hooks(stack_of(backbone), _choose_ends)


def _choose_ends(first: int, last: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Set in the editors which tokens are the first and last ones of their text (forward pre-hook of the stack)."""
    named = arguments(module, args, kwargs)
    seen = seen_tokens(named)
    text = named["inputs_embeds"] if named.get("input_ids") is None else named["input_ids"]
    rows, tokens = text.shape[:2]
    mask = named.get("attention_mask")
    real = torch.ones(rows, seen + tokens, dtype=torch.int64, device=text.device) if mask is None else mask.long()
    before, after = real.cumsum(1), real.flip(1).cumsum(1).flip(1)  # counted from 1
    where = ((real > 0) & ((before <= first) | (after <= last)))[:, -tokens:]
    idle = seen >= first and not last and mask is None  # without a synchronization with the device
    for editor in module.modules():
        if isinstance(editor, SubspaceEditor):
            editor.where, editor.idle = where[..., None], idle
