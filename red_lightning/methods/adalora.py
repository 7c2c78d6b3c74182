"""AdaLoRA, Adaptive LoRA: ``h = W x + P E Q x``, with an individual rank per linear (arXiv 2303.10512).

``E`` is a diagonal (section 3.1, equation 3), ``P`` and ``Q`` are held near orthogonal (equation 4), and the entries of
``E`` that matter least are set to zero (section 3.2, equations 5 to 10) on a falling budget (section 3.3, equation 12).
"""

from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.quantization import is_quantized
from red_lightning.editing.surgery import EDITOR
from red_lightning.errors import UsageError, require_range
from red_lightning.methods.method import State
from red_lightning.methods.peft_layers import PeftLayers, adapted


class AdaLoRA(PeftLayers):
    """AdaLoRA: low-rank updates in SVD form, whose ranks are distributed over the linears during training.

    The update is multiplied by ``alpha / initial_rank``, as in the authors' code. The ``penalty`` follows their code
    too: the mean over all ``P`` and ``Q`` of the norm of ``P'P - I``. Equation 4 sums squares, but the published
    weights are for the mean. The importance scores are part of the optimizer's state and of checkpoints. Pruned
    triplets stay at zero, so the number of trainable parameters is that of the initial rank.

    Args:
        sites: Linears to adapt: site names, module-name patterns, or null for every linear of the blocks (the paper).
        target_rank: Mean rank of a linear at the end.
        initial_rank: Rank of each linear at the start (paper, section 3.3: 1.5 times the target).
        alpha: The update is multiplied by ``alpha / initial_rank``.
        dropout: Dropout probability of the input of the update, in training.
        orthogonality: Weight of the penalty (gamma in the paper).
        beta_importance: Decay of the moving average of the importance (beta 1 in the paper).
        beta_uncertainty: Decay of the moving average of its changes (beta 2 in the paper).
        initial_share: Share of the optimizer steps before the first pruning (t_i in the paper).
        final_share: Share of the optimizer steps after the last pruning (t_f in the paper).
        interval: Optimizer steps between two prunings (delta T in the paper).
        layers: Layers to adapt, counted from 0 (negative: from the last). null adapts all.
    """

    sizes = ("initial_rank",)
    weights = "unquantized"

    def __init__(
        self,
        sites: list[str] | None = None,
        target_rank: int = 8,
        initial_rank: int = 12,
        alpha: float = 16,
        dropout: float = 0.0,
        orthogonality: float = 0.1,
        beta_importance: float = 0.85,
        beta_uncertainty: float = 0.85,
        initial_share: float = 0.1,
        final_share: float = 0.5,
        interval: int = 10,
        layers: list[int] | None = None,
    ) -> None:
        require_range("model.method.target_rank", target_rank, 1, initial_rank)
        require_range("model.method.dropout", dropout, 0, 1)
        require_range("model.method.orthogonality", orthogonality, 0)
        require_range("model.method.beta_importance", beta_importance, 0, 1)
        require_range("model.method.beta_uncertainty", beta_uncertainty, 0, 1)
        require_range("model.method.initial_share", initial_share, 0, 1)
        require_range("model.method.final_share", final_share, 0, 1)
        require_range("model.method.interval", interval, 1)
        if initial_share + final_share > 1:
            raise UsageError("model.method.initial_share and final_share make more than 1; no steps would be left")
        self.sites = None if sites is None else list(sites)
        self.target_rank, self.initial_rank = target_rank, initial_rank
        self.alpha, self.dropout, self.orthogonality = alpha, dropout, orthogonality
        self.beta_importance, self.beta_uncertainty = beta_importance, beta_uncertainty
        self.initial_share, self.final_share, self.interval = initial_share, final_share, interval
        self.layers = None if layers is None else list(layers)

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """See :meth:`PeftLayers.apply`.

        Raises:
            UsageError: The backbone is quantized, or as there.
        """
        if is_quantized(backbone):
            raise UsageError(
                "AdaLoRA adds to the output of each linear in place, which quantized linears forbid; leave "
                "model.backbone_options.quantization out, or choose model.method QLoRA"
            )
        return super().apply(backbone)

    def config(self, backbone: nn.Module) -> Any:
        """Return peft's configuration, without a schedule: the state of its allocator is not part of checkpoints."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.target_rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            total_step=1,  # unused, but required
        )

    def penalty(self, backbone: nn.Module) -> Tensor:
        """Return the weighted distance of the learned matrices from orthogonal ones: float32, a scalar."""
        grams = []
        for p, _, q in _triplets(backbone):
            grams += [p.T @ p, q @ q.T]
        identity = torch.eye(self.initial_rank, device=grams[0].device)
        return self.orthogonality * torch.stack([(gram - identity).norm() for gram in grams]).mean()

    @torch.no_grad()
    def after_step(self, backbone: nn.Module, state: State, step: int, steps: int) -> None:
        """Update the importance scores, and prune the least important triplets.

        Args:
            backbone: The adapted backbone, with the gradients of the step.
            state: The optimizer's state, which stores the scores.
            step: Number of the optimizer step, counted from 1.
            steps: Optimizer steps of the run.
        """
        start, end = round(self.initial_share * steps), steps - round(self.final_share * steps)
        triplets = list(_triplets(backbone))
        if step < end:
            for parameter in (parameter for triplet in triplets for parameter in triplet):
                self._measure(parameter, state)
            if step > start and step % self.interval == 0 and _measured(triplets, state):
                share_left = 1 - (step - start) / (end - start)
                rank = self.target_rank + (self.initial_rank - self.target_rank) * share_left**3
                _prune(triplets, state, int(len(triplets) * rank))
            return
        if not _measured(triplets, state):  # all steps were skipped
            return
        if not all("kept" in state[e] for _, e, _ in triplets):  # the ranks are final from now on
            _prune(triplets, state, len(triplets) * self.target_rank)
            for _, e, _ in triplets:
                state[e]["kept"] = e.ne(0).to(e.dtype)
        for _, e, _ in triplets:
            e.mul_(state[e]["kept"])

    def _measure(self, parameter: Tensor, state: State) -> None:
        """Update the smoothed sensitivity ``|w * gradient|`` of each entry and its uncertainty (equations 8 to 10)."""
        if parameter.grad is None:  # the step was skipped
            return
        sensitivity = (parameter * parameter.grad).abs()
        known = state[parameter]
        importance = known.setdefault("importance", torch.zeros_like(parameter))
        importance.lerp_(sensitivity, 1 - self.beta_importance)
        uncertainty = known.setdefault("uncertainty", torch.zeros_like(parameter))
        uncertainty.lerp_((sensitivity - importance).abs(), 1 - self.beta_uncertainty)


Triplet = tuple[nn.Parameter, nn.Parameter, nn.Parameter]


def _triplets(backbone: nn.Module) -> list[Triplet]:
    """Return ``P`` (outputs x rank), ``E`` (rank x 1) and ``Q`` (rank x inputs) of each linear."""
    return [(layer.lora_B[EDITOR], layer.lora_E[EDITOR], layer.lora_A[EDITOR]) for _, layer in adapted(backbone)]


def _measured(triplets: list[Triplet], state: State) -> bool:
    return all("importance" in state.get(parameter, {}) for triplet in triplets for parameter in triplet)


def _prune(triplets: list[Triplet], state: State, budget: int) -> None:
    """Set all but the ``budget`` most important entries of all ``E`` together to zero (equations 6 and 7)."""
    scores = [_score(state, e).flatten() + _score(state, p).mean(0) + _score(state, q).mean(1) for p, e, q in triplets]
    every = torch.cat(scores)
    if budget >= len(every):
        return
    threshold = every.kthvalue(len(every) - budget).values
    for (_, e, _), score in zip(triplets, scores, strict=True):
        e.masked_fill_((score <= threshold)[:, None], 0)


def _score(state: State, parameter: Tensor) -> Tensor:
    return state[parameter]["importance"] * state[parameter]["uncertainty"]
