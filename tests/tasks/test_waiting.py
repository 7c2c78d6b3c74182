"""A training step asks the device for nothing, for which the processor would have to wait on a GPU."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from red_lightning.callbacks import BestCheckpoint, FiniteSteps
from red_lightning.methods import FullFineTuning, LoRA
from red_lightning.tasks import Classification
from tests.backbones_zoo import save_backbone
from tests.conversations import Conversations, tuning
from tests.labeled import make_labeled_data, make_writer
from tests.training import make_data, make_task, make_trainer

aten = torch.ops.aten
ASKING = {
    aten._local_scalar_dense,  # item, tolist, bool, int, float
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten.unique_consecutive,
    aten._unique,
    aten._unique2,
    aten.is_nonzero,
    aten.equal,
    aten.repeat_interleave,
    aten.bincount,
}
BY_MASK = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""They look for the places where a mask is true."""
OPTIMIZER = "torch/optim/"
ON_PROCESSOR = (OPTIMIZER, "collation.py")
"""An optimizer's own count of its steps, and the labels of a batch that is made, are on the processor."""


class Questions(TorchDispatchMode):
    """Counts the operations for whose answer the processor waits, by the file that asks."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        masks = packet in BY_MASK and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if packet in ASKING or masks:
            self.asked[self._file()] += 1
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _file() -> str:
        frame: Any = sys._getframe(2)
        while "/torch/" in frame.f_code.co_filename and OPTIMIZER not in frame.f_code.co_filename:
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        return OPTIMIZER if OPTIMIZER in str(path) else path.name


class Ask(Callback):
    """Listens to everything between the start and the end of each micro-batch but the first, which compares ways."""

    def __init__(self) -> None:
        self.questions = Questions()
        self.steps = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.steps += 1
        if self.steps > 1:
            self.questions.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.steps > 1:
            self.questions.__exit__(None, None, None)


def asked_by(task: Any, data: Any, folder: Path, **options: Any) -> Counter[str]:
    """How often each file asks in some training steps, per step."""
    ask = Ask()
    options["callbacks"] = [BestCheckpoint(), FiniteSteps(), ask]
    trainer = make_trainer(folder, max_epochs=1, limit_val_batches=0, gradient_clip_val=1.0, **options)
    trainer.fit(task, datamodule=data)
    assert ask.steps > 1 and task.trainer.global_step
    return Counter({name: -(-count // (ask.steps - 1)) for name, count in ask.questions.asked.items()})


def written(folder: Path, backbone: str, **options: Any) -> Any:
    """The data-to-text task and its data."""
    task = make_task(folder / backbone, label_smoothing=0.1, **options.pop("task", {}))
    return task, make_data(folder, **options)


def answered(folder: Path, backbone: str, **options: Any) -> Any:
    """Instruction tuning and its data."""
    return tuning(folder / backbone), Conversations(**options)


def classified(folder: Path, backbone: str, **options: Any) -> Any:
    """Classification by a head."""
    return Classification(str(folder / backbone), method=LoRA()), make_labeled_data(folder, **options)


def labelled(folder: Path, backbone: str, **options: Any) -> Any:
    """Classification by writing."""
    return make_writer(folder / backbone), make_labeled_data(folder, **options)


CASES: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "padded": (written, "gpt2", {}),
    "packed": (written, "gpt2", {"packing": True}),
    "shared sources": (written, "gpt2", {"share_sources": True}),
    "an encoder-decoder": (written, "t5", {}),
    "encoded once": (written, "t5", {"share_sources": True}),
    "a head that trains": (written, "gpt2", {"task": {"method": FullFineTuning()}}),
    "conversations": (answered, "llama", {"micro_batch_size": 2}),
    "packed conversations": (answered, "llama", {"packing": True}),
    "classes": (classified, "roberta", {}),
    "numbers": (classified, "gpt2", {"regression": True}),
    "written classes": (labelled, "t5", {}),
    "written numbers": (labelled, "t5", {"regression": True}),
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    for family in ("gpt2", "llama", "t5", "roberta"):
        save_backbone(family, folder / family)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_step_asks_only_whether_it_is_finite(name: str, backbones: Path, tmp_path: Path) -> None:
    """And transformers itself whether a mask masks anything."""
    make, backbone, options = CASES[name]
    task, data = make(backbones, backbone, **options)
    asked = asked_by(task, data, tmp_path)
    assert asked.pop("finite_steps.py") == 1
    assert not asked.keys() - {"masking_utils.py", *ON_PROCESSOR}


@pytest.mark.parametrize("accelerator", [CPUAccelerator(), CUDAAccelerator()])
def test_batches_for_a_gpu_are_page_locked(accelerator: Any, gpt2_folder: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path)
    data.connect(make_task(gpt2_folder).tokenizer, False)
    data.setup("fit")
    settings = {"global_rank": 0, "world_size": 1, "num_training_batches": 3}
    data.trainer = SimpleNamespace(accelerator=accelerator, **settings)  # type: ignore[assignment]
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert loader.pin_memory == isinstance(accelerator, CUDAAccelerator)
