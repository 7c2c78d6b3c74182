"""Base of all tasks: backbone, method, optimizer, and checkpoints of trainable parameters."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from red_lightning.adapters.extensions import own_parts, shipped_name
from red_lightning.backbones.fingerprint import fingerprint, summary
from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.backbones.sharding import trained
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.compat.fit_loop import is_accumulating
from red_lightning.data import RowsDataModule
from red_lightning.editing.surgery import edited_columns
from red_lightning.errors import UsageError, require_range
from red_lightning.methods import Method
from red_lightning.tasks import checkpoint_identity as identity
from red_lightning.tasks.checkpoint_identity import RECORD
from red_lightning.tasks.module import TaskModule, measure
from red_lightning.tasks.optimization import add_gradient, build_optimizer, build_schedule, check_names
from red_lightning.tasks.reading import require_readable
from red_lightning.tasks.seeding import first_values, seed_batch


class BackboneTask(TaskModule):
    """Base of the tasks: a frozen backbone and a method. A subclass loads the backbone and has the steps.

    Args:
        backbone: Hub id or folder of the pretrained model.
        method: Method that adapts the backbone.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay of all trainable parameters.
        optimizer: ``AdamW``, ``Adam`` or ``SGD``.
        adam_epsilon: Epsilon of Adam (authors' code: 1e-6).
        schedule: Learning-rate schedule after the warmup: ``linear``, ``cosine`` or ``constant``.
        warmup_steps: Learning-rate warmup in optimizer steps. Overrides ``warmup_ratio``.
        warmup_ratio: Learning-rate warmup as a share of the run.
        decay_towards: Target of the weight decay of scalings: ``zero`` (authors' code) or ``identity``, which is 1.
        backbone_options: How the backbone is loaded.
    """

    def __init__(
        self,
        backbone: str,
        method: Method,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: str = "AdamW",
        adam_epsilon: float = 1e-8,
        schedule: str = "linear",
        warmup_steps: int = 0,
        warmup_ratio: float = 0.0,
        decay_towards: Literal["zero", "identity"] = "zero",
        backbone_options: BackboneOptions = BackboneOptions(),  # noqa: B008 - never changed
    ) -> None:
        super().__init__()
        check_names(optimizer, schedule)
        require_range("model.warmup_ratio", warmup_ratio, 0, 1)
        require_range("model.warmup_steps", warmup_steps, 0)
        require_range("model.learning_rate", learning_rate, 0, 1e30)
        require_range("model.weight_decay", weight_decay, 0)
        require_range("model.adam_epsilon", adam_epsilon, 0)
        self.method, self.backbone_options = method, backbone_options
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.optimizer_name, self.adam_epsilon, self.decay_towards = optimizer, adam_epsilon, decay_towards
        self.schedule, self.warmup_steps, self.warmup_ratio = schedule, warmup_steps, warmup_ratio
        self.source = find(backbone, backbone_options)
        method.refuse(self.source.config, self.has_head())
        self.tokenizer = load_tokenizer(self.source, backbone_options, self.needs_eos)
        self.backbone: Any = None
        self.backbone_fingerprint, self.restored = "", False
        self.trainable_shapes: dict[str, list[int]] = {}
        self.size: dict[str, int] = {}
        self.held_out_by: dict[str, Any] = {}
        self.encoding, self.content = {}, {}
        self.missing_metrics, self.details = {}, {}
        self.strict_loading = False  # a checkpoint holds only what trains; on_load_checkpoint checks the names

    data_class: Any = RowsDataModule  # the data modules that the task can read
    needs_eos = True  # whether texts must end with EOS
    validation_metrics: tuple[str, ...] = ()
    """What validation logs, by which a checkpoint can be chosen."""
    smaller_is_better: tuple[str, ...] = ("val_loss",)
    """Those of them that are best when smallest."""
    unedited = "unedited backbone"  # what the task is called before anything is trained
    metric_names: list[str]  # the test metrics, in the order in which tables show them
    missing_metrics: dict[str, str]  # test metrics that cannot be measured here, and why
    details: dict[str, Any]  # what a test found besides its scores, for results.json
    encoding: dict[str, Any]  # how rows become tokens, in the training of the checkpoint or in a fit
    content: dict[str, Any]  # likewise the training file by its content (see HeldOut)

    @property
    def encoder_decoder(self) -> bool:
        """Whether the backbone has an encoder and a decoder."""
        return bool(self.source.config.is_encoder_decoder)

    @abstractmethod
    def load_backbone(self, meta: bool = False) -> nn.Module:
        """Load the pretrained model (without weights if ``meta``)."""

    @classmethod
    def has_head(cls) -> bool:
        """Return whether the task trains a head besides the method's parameters."""
        return cls.build_head is not BackboneTask.build_head

    def build_head(self, meta: bool = False) -> None:
        """Make what is trained on top of the backbone (nothing, unless a task has a head)."""

    def setup(self, stage: str) -> None:
        """Refuse data of another kind, and a test on rows that a checkpoint was trained on or chosen by.

        Raises:
            UsageError: Names the data modules that would do, or the option by which other rows are held out.
        """
        data = getattr(self.trainer, "datamodule", None)
        require_readable(self, data)
        held_out_by = dict(getattr(data, "held_out_by", {}))
        if stage in ("test", "validate") and held_out_by and self.held_out_by:
            identity.refuse_other_rows(self.held_out_by, held_out_by, known=bool(self.content))
        if stage == "fit":
            self.content = getattr(getattr(data, "held_out", None), "content", {})
            self.held_out_by, self.encoding = held_out_by, dict(getattr(data, "encoding", {}))
        elif self.encoding and data is not None:
            data.warnings += identity.other_encoding(self.encoding, data.encoding)

    def configure_model(self) -> None:
        """Load the backbone, apply the method and make the head, once."""
        if self.backbone is None:
            divide = getattr(getattr(self.attached, "strategy", None), "load_backbone", None)  # FSDP2 loads in parts
            self.backbone = divide(self) if divide else self.load_backbone()
            self.backbone_fingerprint = fingerprint(self.backbone)
            with first_values():
                self.method.apply(self.backbone)
            with first_values():
                self.build_head()
            self.size = measure(self)  # now, because a strategy may divide them
            self.trainable_shapes = {name: list(p.shape) for name, p in self.trainable_parameters().items()}
            for name, columns in edited_columns(self.backbone).items():  # GPT-2's query and key share a module
                for parameter in (p for p in self.trainable_shapes if p.startswith(f"backbone.{name}.")):
                    self.trainable_shapes[parameter] += [edge for edges in columns for edge in edges]

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return trained(self)

    def trainable_counts(self) -> dict[str, int]:
        """How many numbers train: those of the method (``trainable_parameters``), and those of the head, if any."""
        head = self.size["head"]
        return {"trainable_parameters": self.size["trained"], **({"head_parameters": head} if head else {})}

    def configure_optimizers(self) -> Any:
        """AdamW over what trains, and the schedule, whose warm-up is resolved here."""
        trainable, rate = self.trainable_parameters(), self.learning_rate
        if not trainable:
            raise UsageError(f"model.method {type(self.method).__name__} trains nothing, and there is no head to train")
        if self.method.computed:  # the head alone is trained; without one, the one step that a run takes does nothing
            head = {name: p for name, p in trainable.items() if not name.startswith("backbone.")}
            trainable, rate = (head, rate) if head else (trainable, 0.0)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer = build_optimizer(
            trainable, self.optimizer_name, rate, self.weight_decay, self.adam_epsilon, self.decay_towards, scaled
        )
        if not math.isfinite(steps := self.trainer.estimated_stepping_batches):
            raise UsageError("the run has no end: give trainer.max_epochs or trainer.max_steps")
        after = self.method.after_step
        if self.method.follows_steps:  # DeepSpeed takes no such hooks
            optimizer.register_step_post_hook(
                lambda own, *_: after(self.backbone, own.state, self.trainer.global_step + 1, int(steps))
            )
        schedule = build_schedule(optimizer, self.schedule, int(steps), self.warmup_steps, self.warmup_ratio)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Let the method compute what it does not train, unless a checkpoint held it, which has to fit."""
        if self.restored:
            identity.require_fitting_state(self.trainer.optimizers)
        else:
            self.method.compute(self.backbone, self.tokenizer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout a function of the run's seed and the step, so that a resumed run draws the same numbers."""
        seed_batch(self.current_epoch, batch_idx, self.global_rank, self.device)
        if self.method.computed and not self.size["head"]:
            self.trainer.should_stop = True  # after a validation, which keeps the checkpoint

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Follow the method's penalty too: here and not in the loss, so that it counts once per optimizer step."""
        add_gradient(self.method.penalty(self.backbone), self.backbone.parameters())

    def share(self, total: Tensor, batch: Mapping[str, Any], weight: int | Tensor = 1) -> Tensor:
        """What a training step returns, so that an optimizer step follows the mean loss over all its labels.

        Lightning takes the mean over micro-batches and processes, whatever each of them holds. This undoes it.

        Args:
            total: The sum of the losses of a micro-batch, over its labels: float32, a scalar.
            batch: It, with the ``step_weight`` that the data module's loader has put in.
            weight: How many labels it has, for a batch without ``step_weight`` from another loader.
        """
        if "step_weight" not in batch:
            return total / weight
        return total * (self.trainer.accumulate_grad_batches * self.trainer.world_size / batch["step_weight"])

    def in_original_units(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the trained parameters as an adapter holds them."""
        return dict(learned)

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take from the :meth:`record` of a checkpoint what it was trained for, before the data are read."""
        self.held_out_by, self.encoding = record.get("held_out_by", {}), record.get("encoding", {})
        self.content = record.get("content", {})

    def record(self) -> dict[str, Any]:
        """What the learned parameters belong to, as plain values."""
        return {
            "task": shipped_name(type(self)),
            **own_parts(self.method, type(self), getattr(self.attached, "datamodule", None)),
            "backbone": self.source.name,
            "commit": self.source.commit,
            "fingerprint": self.backbone_fingerprint,
            "architecture": summary(self.source.config),
            **self.backbone_options.format,
            "method": self.method.describe(),
            "held_out_by": self.held_out_by,
            "encoding": self.encoding,
            "shapes": self.trainable_shapes,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what trains."""
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self.trainable_shapes}
        checkpoint[RECORD] = {
            **self.record(),
            "accumulation": self.trainer.accumulate_grad_batches,
            "whole_step": not is_accumulating(self.trainer),
            "content": self.content,
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that belongs to something else.

        Raises:
            UsageError: Another backbone, other sites, other data, or a file that another program wrote.
        """
        self.configure_model()
        self.restored = True
        record = identity.belonging(checkpoint, self.record())
        if self.attached is not None and self.attached.state.fn == "fit":
            if not record["whole_step"]:
                raise UsageError(
                    "the checkpoint was written by a validation within an accumulation, so that training cannot go on "
                    "from it; give last.ckpt, which lies beside it"
                )
            identity.refuse_other_content(record.get("content"), self.content)
            identity.recount(
                checkpoint["loops"]["fit_loop"], record["accumulation"], self.trainer.accumulate_grad_batches
            )
