"""Several trainings on one device that share a frozen backbone and its passes: replicas."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from red_lightning.backbones.merging import Call, Merged
from red_lightning.strategies.turns import StoppedError, Switch, Turns, Waiting


class Group:
    """The trainings that share a backbone: each is a Trainer of its own, in a thread of its own.

    Args:
        count: How many there are.
        switch: Called whenever the turn goes from one training (None: none) to another.
    """

    def __init__(self, count: int, switch: Switch = lambda before, after: None) -> None:
        self.merged = Merged()
        self.ending = False
        """Whether all are to end."""
        self.told: list[Callable[[], None]] = []
        """What tells each training of it. They hear of it in a pass, so that all end after the same step."""
        self.turns = Turns(count, _served_together, self._compute, switch)

    def call(self, call: Call) -> Any:
        """Have a part of the backbone computed for a training, and for the others that call it."""
        return self.turns.meet(call.member, call)

    def backward(self, member: int) -> None:
        """Have the gradients of a training's vectors computed, and those of the others'."""
        if self.merged.passes:
            self.turns.meet(member, None)

    def pass_on(self) -> None:
        """Tell each training that all are to end, if they are."""
        if self.ending:
            for tell in self.told:
                tell()

    def _compute(self, called: Waiting) -> dict[int, Any]:
        self.pass_on()
        calls = [call for call in called.values() if call is not None]
        if calls:
            return self.merged.compute(calls)
        self.merged.backward()
        return dict.fromkeys(called)


class Together(SingleDeviceStrategy):
    """Trains on a single device, where other trainings share the backbone.

    Args:
        group: The trainings.
        member: This training's number.
        device: The device of all.
    """

    strategy_name = "together"

    def __init__(self, group: Group, member: int, device: torch.device | str) -> None:
        super().__init__(device=device)
        self.group, self.member = group, member

    def load_backbone(self, task: Any) -> nn.Module:
        """The task's backbone, whose weights are every training's.

        Args:
            task: It says what to load (``load_backbone``).
        """
        return self.group.merged.join(self.member, task.load_backbone, self.group.call)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Go on through the backbone, with the others."""
        super().post_backward(closure_loss)
        self.group.backward(self.member)

    def validation_step(self, *args: Any, **options: Any) -> Any:
        """Validate; what is told in it ends after this batch."""
        self.group.pass_on()
        return super().validation_step(*args, **options)

    def test_step(self, *args: Any, **options: Any) -> Any:
        """Test, unless all are to end."""
        if self.group.ending:
            raise StoppedError(1)
        return super().test_step(*args, **options)

    def teardown(self) -> None:
        """End as always, but leave the weights where the others use them."""
        task, self._lightning_module = self._lightning_module, None
        super().teardown()
        self._lightning_module = task


def _served_together(waiting: Waiting, last: int) -> list[int]:
    """Which trainings go on first: those that wait for their gradients, or else those that call what the oldest calls.

    The last one that came computes, if it is among them.
    """
    served = [member for member, call in waiting.items() if call is None]
    if not served:
        first, call = next(iter(waiting.items()))
        likeness = call.likeness
        served = [other for other in waiting if other == first or (likeness and waiting[other].likeness == likeness)]
    return sorted(served, key=lambda member: (member != last, member))
