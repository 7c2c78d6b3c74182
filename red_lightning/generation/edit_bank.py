"""Many adapters of one backbone in memory, another one for each row of a batch.

Row ``r`` of a batch becomes ``h2[r] = scaling[e(r)] * h1[r] + bias[e(r)]`` at each edited site, where ``e(r)`` is the
row's edit. The vectors of all edits lie stacked at their site, and those of a batch are gathered by row once, when it
begins; a step then costs one fused multiply-add per site, as with a single edit.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.adapters.attaching import place_edits
from red_lightning.adapters.edited import find_edits
from red_lightning.adapters.file_format import read_edits
from red_lightning.adapters.record_checks import method_class
from red_lightning.editing.row_edits import BATCH, Rows, StackedEditor
from red_lightning.editing.sites import Site, width_of
from red_lightning.editing.surgery import (
    EDITOR,
    attach,
    detach,
    edited_modules,
    freeze,
    require_unedited,
    shared_copy,
)
from red_lightning.errors import UsageError, nearest
from red_lightning.families import record_of
from red_lightning.methods import that_combine

Vectors = tuple[Tensor | None, Tensor | None]
"""A site's scaling and bias: float32, shape (width,); None for ones and for zeros."""


class EditBank:
    """Many edits of one backbone, of which each row of a batch uses its own.

    For example::

        bank = EditBank(AutoModelForCausalLM.from_pretrained("openai-community/gpt2-medium").eval())
        bank.add("thai", "runs/thai")
        bank.add("pub", "runs/pub")
        with bank.use(["thai", None, "pub"]):  # one for each row; None leaves a row unedited
            tokens = bank.backbone.generate(**tokenizer(prompts, padding=True, return_tensors="pt"))

    Each row gets what it would get in the same batch with its edit alone, in the plain forward pass and in
    transformers' ``generate`` with caches, beams and several samples of a row. ``use`` concerns the thread (or asyncio
    task) that enters it, so several may compute with one backbone at once; a thread that is started inside enters it
    itself. Classification heads, rows into which several texts are packed, and a backbone that is divided over
    processes (FSDP) are not supported.

    Args:
        backbone: A Hugging Face model, unedited; its parameters are frozen, and it may move to another device later.

    Raises:
        UsageError: The backbone is edited already.
    """

    def __init__(self, backbone: nn.Module) -> None:
        require_unedited(backbone)
        freeze(backbone)
        self.backbone: Any = backbone
        self._twin = shared_copy(backbone)  # to read edits with
        self._editors: dict[str, StackedEditor] = {}
        self._places: dict[str | None, int] = {None: 0}
        self._free: list[int] = []
        self._count = 1
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """The names of the edits, in the order in which they were added."""
        return [name for name in self._places if name is not None]

    def add(self, name: str, edits: str | Path | Mapping[str, Tensor], trust: Sequence[str] = ()) -> None:
        """Add an edit.

        Args:
            name: What :meth:`use` calls it.
            edits: A run's folder, its ``edits`` folder or a hub repository of edits, of RED, SSF, BitFit or
                SteeringVector; or vectors by module, as in ``{"transformer.h.0.mlp.c_proj.scaling": tensor}`` and
                ``.bias``, each over the module's whole width.
            trust: Packages whose own methods may be imported: their code runs.

        Raises:
            UsageError: The name is None or taken, or the edits are another backbone's or no scalings and biases.
        """
        _require_name(name)
        with self._lock:
            if name in self._places:
                raise UsageError(f"the bank has an edit '{name}' already; remove it first, or give another name")
            sites = self._given(edits) if isinstance(edits, Mapping) else self._read(edits, trust)
            self._require_by_row(sites)
            if not self._free:
                self._grow()
            place = self._free.pop()
            for module, (scaling, bias) in sites.items():
                self._editor(module, scaling if bias is None else bias).put(place, scaling, bias)
            self._places[name] = place

    def remove(self, name: str) -> None:
        """Forget an edit; a batch that has begun keeps it.

        Raises:
            UsageError: There is no such edit.
        """
        _require_name(name)
        with self._lock:
            place = self._place(name)
            for editor in self._editors.values():
                editor.put(place, None, None)
            del self._places[name]
            self._free.append(place)

    @contextmanager
    def use(self, names: Sequence[str | None]) -> Iterator[None]:
        """Let the backbone edit each row with its own edit until the end of the ``with`` block.

        Args:
            names: For each row of the batch the name of its edit, or None for no edit.

        Raises:
            UsageError: There is no such edit.
        """
        if not names:
            raise UsageError("no edits are named; name one edit, or None, for each row of the batch")
        with self._lock:
            places = torch.tensor([self._place(name) for name in names])
            batch: dict[nn.Module, Rows] = {e: e.gather(places.to(e.scaling.device)) for e in self._editors.values()}
        token = BATCH.set({**BATCH.get(), **batch})
        try:
            yield
        finally:
            BATCH.reset(token)

    def detach(self) -> None:
        """Take the bank off its backbone, which is then bit for bit what it was, and forget every edit."""
        with self._lock:
            detach(self.backbone)
            self._editors, self._places, self._free, self._count = {}, {None: 0}, [], 1

    def _place(self, name: str | None) -> int:
        if name not in self._places:
            raise UsageError(f"the bank has no edit '{name}': {nearest(str(name), self.names)}")
        return self._places[name]

    def _grow(self) -> None:
        for editor in self._editors.values():
            editor.grow()
        self._free = list(range(2 * self._count - 1, self._count - 1, -1))
        self._count *= 2

    def _editor(self, module: str, like: Tensor | None) -> StackedEditor:
        """The editor of a site, attached when the first edit needs it."""
        if module not in self._editors:
            assert like is not None
            self._editors[module] = StackedEditor(len(like), self._count)
            attach(self.backbone, Site(module, None, len(like)), self._editors[module])
        return self._editors[module]

    def _read(self, edits: str | Path, trust: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of edits on disk, by module and over its whole width: what their own editors compute with."""
        folder = find_edits(edits)
        tensors, record = read_edits(folder)
        method = record["method"]["name"]
        if method_class(record, folder, trust).combines != "affine":
            raise UsageError(
                f"the edits in '{edits}' were learned with {method}, which cannot change from row to row; a bank holds "
                f"scalings and biases alone, as those of {', '.join(that_combine('affine'))}"
            )
        place_edits(self._twin, tensors, record, folder, trust)
        try:
            editors: dict[str, Any] = {name: m.get_submodule(EDITOR) for name, m in edited_modules(self._twin)}
            with torch.no_grad():
                return {name: editor.vectors() for name, editor in editors.items()}
        finally:
            detach(self._twin)

    def _given(self, tensors: Mapping[str, Tensor]) -> dict[str, Vectors]:
        """The vectors of edits in memory, by module."""
        if not tensors:
            raise UsageError("the edit has no vectors; None leaves a row unedited")
        modules = dict(self.backbone.named_modules())
        sites: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            module, _, vector = name.rpartition(".")
            if module not in modules or vector not in ("scaling", "bias"):
                raise UsageError(f"'{name}' is neither the scaling nor the bias of a module of this backbone")
            if not isinstance(tensor, Tensor):
                raise UsageError(f"'{name}' must be a tensor, but is a {type(tensor).__name__}")
            editor = self._editors.get(module)
            width = width_of(modules[module]) if editor is None else editor.scaling.shape[1]
            width = width or next(iter(sites.get(module, {}).values()), tensor).numel()  # of a block it says nothing
            if tensor.shape != (width,) or not tensor.isfinite().all():
                raise UsageError(
                    f"'{name}' must be {width} finite numbers, one for each column, but is {tuple(tensor.shape)}"
                )
            sites.setdefault(module, {})[vector] = tensor
        return {module: (vectors.get("scaling"), vectors.get("bias")) for module, vectors in sites.items()}

    def _require_by_row(self, modules: Iterable[str]) -> None:
        """Refuse an edit where the backbone computes for the whole batch at once."""
        record = record_of(getattr(self.backbone, "config", None))
        for module in modules:
            if record and record.by_batch and re.fullmatch(record.by_batch, module):
                raise UsageError(
                    f"{record.name} computes with '{module}' for the whole batch at once, not for each row, so its "
                    "edit cannot change from row to row; add edits of other sites"
                )


def _require_name(name: str | None) -> None:
    if name is None:
        raise UsageError("None names no edit of a bank, but leaves a row unedited; give the edit's name, a text")
