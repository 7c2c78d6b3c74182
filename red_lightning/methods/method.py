"""The base class of all methods."""

from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from typing import Any, Literal

from torch import Tensor, nn

from red_lightning.editing import surgery
from red_lightning.errors import UsageError
from red_lightning.families import Architecture, record_of
from red_lightning.methods.options import options_of, require_kept

State = MutableMapping[Tensor, dict[str, Any]]


class Method(ABC):
    """A method that adapts a frozen backbone. Each subclass is one paper in one file.

    A method holds its options, named like the arguments of its class, and no state: its parameters become part of the
    backbone. Adapters record these options, and the import path of a custom class.
    """

    packs = True
    """Whether several texts packed into one row stay apart."""
    combines: Literal["affine", "mean"] | None = None
    """How adapters are combined: ``affine`` if all that is learned are tensors ``scaling`` and ``bias`` of modules
    whose output they edit column by column, ``mean`` if it is the backbone's own weights, None if they cannot be."""
    computed = False
    """Whether what the method adds is computed (:meth:`compute`) and not trained."""
    dense: str | None = None
    """For a method of quantized backbones, the class name of the same method on a backbone that is not quantized."""

    @property
    def virtual_tokens(self) -> int:
        """How many positions of the backbone the method takes up, before each text."""
        return 0

    @classmethod
    def limit(cls, record: Architecture | None, has_head: bool) -> str:
        """Return why the method does not run on a model family or in a task; empty where it runs.

        Args:
            record: The model family; None for one without a record.
            has_head: Whether the task trains a classification head.

        Returns:
            The reason and the way out, as the rest of a sentence that starts with the method's name.
        """
        return ""

    def refuse(self, config: Any, has_head: bool) -> None:
        """Refuse a combination that does not run, or whose adapter could not be loaded.

        Args:
            config: The backbone's Hugging Face configuration.
            has_head: Whether the task trains a classification head.

        Raises:
            UsageError: States the reason and the way out.
        """
        if reason := self.limit(record_of(config), has_head):
            raise UsageError(f"model.method {type(self).__name__} {reason}")
        require_kept(self, {option: value for option, value in self.describe().items() if option != "name"})

    @abstractmethod
    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach what trains.

        The output is at first unchanged, but for SSF, LoReFT, prefix and prompt tuning, whose first values are random.
        Those are drawn from torch's generator of the CPU, which the task seeds. What is attached is float32, whatever
        the backbone's dtype and torch's default dtype, on the backbone's device.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The parameters that train, by their name in the backbone.
        """

    def compute(self, backbone: nn.Module, tokenizer: Any) -> None:  # noqa: B027 - most methods compute nothing
        """Compute what the method adds but does not train (nothing, unless a method overrides this).

        A new run does so before its first step; a checkpoint and the edits hold the result.

        Args:
            backbone: The backbone that the method was applied to.
            tokenizer: Its Hugging Face tokenizer.

        Raises:
            UsageError: What it is computed from cannot be read.
        """

    def detach(self, backbone: nn.Module) -> None:
        """Remove what :meth:`apply` attached; the backbone is bit for bit what it was.

        Raises:
            UsageError: The method changes the backbone's own weights.
        """
        surgery.detach(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Merge what was learned into the backbone's own weights, and detach.

        Raises:
            UsageError: The method cannot be merged exactly.
        """
        raise UsageError(f"{type(self).__name__} cannot be merged into the backbone's weights; keep its adapter")

    def penalty(self, backbone: nn.Module) -> Tensor | None:
        """What an optimizer step minimises besides the mean loss of its rows; None if nothing.

        Args:
            backbone: The backbone that the method was applied to.

        Returns:
            A scalar, which depends on what is learned alone, or None.
        """
        return None

    def after_step(self, backbone: nn.Module, state: State, step: int, steps: int) -> None:  # noqa: B027
        """Do what follows each optimizer step (nothing, unless a method overrides this).

        Args:
            backbone: The backbone that the method was applied to, with the gradients of the step.
            state: What the optimizer remembers of each parameter, as part of each checkpoint: a method may add tensors
                of the parameter's shape, but only once the optimizer has taken a step with it.
            step: The optimizer step that was taken, counted from 1.
            steps: How many there are in the run.
        """

    def describe(self) -> dict[str, Any]:
        """The method's name and options as plain values, for artefacts and results."""
        options = options_of(type(self))
        return {"name": type(self).__name__, **{name: value for name, value in vars(self).items() if name in options}}
