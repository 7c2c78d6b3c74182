"""The base class of all methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, Literal

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

    The class attributes below state what a method can do. The rest of the package asks them, never the class's name.
    The defaults suit a method that attaches trainable modules which treat each token alone.
    """

    packs: ClassVar[bool] = True
    """Whether packed sequences stay apart: no token's edit depends on the other texts of its row."""
    combines: ClassVar[Literal["affine", "mean"] | None] = None
    """How adapters are combined. ``affine``: all parameters are tensors ``scaling`` and ``bias`` of modules, whose
    output they edit column by column. ``mean``: the parameters are the backbone's own weights. None: not at all."""
    unites: ClassVar[bool] = False
    """Whether adapters with different options can be combined. The method then overrides :meth:`unite`."""
    computed: ClassVar[bool] = False
    """Whether :meth:`compute` sets the parameters and no gradient does."""
    folds: ClassVar[bool] = False
    """Whether adapters merge into the weights. Set to true for a class that overrides :meth:`fold`."""
    follows_steps: ClassVar[bool] = False
    """Whether it acts after optimizer steps. Set to true for a class that overrides :meth:`after_step`."""
    weights: ClassVar[Literal["any", "float32", "quantized", "unquantized"]] = "any"
    """The backbone weights that the method adapts. :meth:`apply` refuses others."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """Options that are a dimension of a parameter. Loading compares them with the stored shapes before it allocates."""
    files: ClassVar[tuple[str, ...]] = ()
    """Options that name a local file. A pushed adapter keeps the file's name without its folder."""
    tags: ClassVar[tuple[str, ...]] = ("parameter-efficient-fine-tuning",)
    """Hub tags of a model card, besides the method's name."""
    summary: ClassVar[str] = ""
    """Sentences in a model card that explain the method."""
    citation: ClassVar[str] = ""
    """BibTeX entry in a model card."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Set the attributes that follow from what the class overrides, unless it declares them."""
        super().__init_subclass__(**options)
        if "folds" not in vars(cls):
            cls.folds = cls.fold is not Method.fold
        if "follows_steps" not in vars(cls):
            cls.follows_steps = cls.after_step is not Method.after_step

    @property
    def virtual_tokens(self) -> int:
        """Number of the backbone's positions that the method occupies before each text."""
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

    def dense(self) -> "Method":
        """Return the method that computes the same on dequantized weights, into which an adapter merges: this one.

        A method that refuses unquantized backbones (``weights``) and can be merged overrides it.
        """
        return self

    @classmethod
    def unite(cls, options: Sequence[Mapping[str, Any]], modules: Sequence[str]) -> dict[str, Any]:
        """Return the options of a combined adapter: those of the first, unless a method that ``unites`` overrides this.

        Args:
            options: Name and options of each adapter, as :meth:`describe` returns them, complete with defaults.
            modules: Names of all edited modules.

        Raises:
            UsageError: No options describe all the edits and nothing else.
        """
        return dict(options[0])

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
        """Freeze the backbone and attach the trainable parameters.

        The output is unchanged at first, except for SSF, LoReFT, prefix and prompt tuning, which start from random
        values. They draw from torch's CPU generator, which the task seeds. Attached parameters are float32 on the
        backbone's device, whatever the backbone's dtype and torch's default dtype.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The trainable parameters, by their name in the backbone.
        """

    def compute(self, backbone: nn.Module, tokenizer: Any) -> None:  # noqa: B027 - most methods compute nothing
        """Set the parameters of a ``computed`` method. The default does nothing.

        A new run calls it before the first step. Checkpoints and adapters store the result.

        Args:
            backbone: The adapted backbone.
            tokenizer: Its Hugging Face tokenizer.

        Raises:
            UsageError: The input of the computation cannot be read.
        """

    def detach(self, backbone: nn.Module) -> None:
        """Remove what :meth:`apply` attached. The backbone is bitwise identical to the one before.

        Raises:
            UsageError: The method changes the backbone's own weights.
        """
        surgery.detach(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Merge the adapter into the backbone's weights, and detach.

        Raises:
            UsageError: The method cannot be merged exactly.
        """
        raise UsageError(f"{type(self).__name__} cannot be merged into the backbone's weights; keep its adapter")

    def penalty(self, backbone: nn.Module) -> Tensor | None:
        """Return a regularization term that is added to the mean loss of each optimizer step; None for none.

        Args:
            backbone: The adapted backbone.

        Returns:
            A scalar that depends on the trainable parameters only, or None.
        """
        return None

    def after_step(self, backbone: nn.Module, state: State, step: int, steps: int) -> None:  # noqa: B027
        """Act after each optimizer step. The default does nothing.

        Args:
            backbone: The adapted backbone, with the gradients of the step.
            state: The optimizer's state by parameter, part of each checkpoint. A method may add tensors of the
                parameter's shape, but only after the optimizer's first step with the parameter.
            step: Number of the optimizer step, counted from 1.
            steps: Optimizer steps of the run.
        """

    def describe(self) -> dict[str, Any]:
        """Return the method's name and options as plain values, for adapters and results."""
        options = options_of(type(self))
        return {"name": type(self).__name__, **{name: value for name, value in vars(self).items() if name in options}}
