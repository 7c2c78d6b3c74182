"""Import paths of version 0.1.0 whose modules have moved: scripts, configs and adapters that name them still work.

Each gives a :class:`FutureWarning` with the new path. They are removed in version 1.0.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "artifacts": ("adapters", "export", "pictures"),
    "artifacts.attaching": ("adapters.attaching",),
    "artifacts.combine": ("adapters.combining",),
    "artifacts.comparison": ("export.merge_comparison",),
    "artifacts.confusion": ("pictures.confusion_matrix",),
    "artifacts.edits": ("adapters.file_format",),
    "artifacts.extensions": ("adapters.extensions",),
    "artifacts.importing": ("adapters.importing",),
    "artifacts.loading": ("adapters.edited",),
    "artifacts.merged": ("export.merged_checkpoint",),
    "artifacts.picture": ("pictures.edits_by_layer",),
    "artifacts.sharing": ("export.pushing",),
    "backbones.head": ("backbones.classification_head",),
    "backbones.recomputation": ("efficiency.recomputation",),
    "backbones.sites": ("editing.sites",),
    "backbones.surgery": ("editing.surgery",),
    "data.classification": ("data.text_classification",),
    "data.files": ("data.local_files",),
    "data.loader": ("data.resumable_loader",),
    "data.rows": ("data.row_data_module",),
    "data.sources": ("data.hub_rows",),
    "data.templates": ("data.prompt_templates",),
    "evaluation.alpaca_eval": ("evaluation.alpaca_eval_scores",),
    "evaluation.mt_bench": ("evaluation.mt_bench_grades",),
    "evaluation.open_llm": ("evaluation.open_llm_scores",),
    "families.record": ("families.architecture",),
    "generation.answers": ("generation.writer",),
    "generation.models": ("generation.generators",),
    "generation.switching": ("generation.edit_bank",),
    "methods.base": ("methods.method", "editing.learned"),
    "metrics.classes": ("metrics.class_scores",),
    "metrics.e2e": ("metrics.e2e_scores",),
    "metrics.files": ("metrics.e2e_files",),
    "reproduction": ("paper",),
    "reproduction.paper": ("paper.hyperparameters",),
    "tasks.base": ("tasks.backbone_task",),
}
"""Old module -> the modules that hold its names now, without the leading ``red_lightning.``."""

_PACKAGE = "red_lightning."


class MovedModules(MetaPathFinder, Loader):
    """Finds the modules of :data:`MOVED`. Python asks it last, so a module that exists is never replaced."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a module that has moved, None for any other."""
        if not fullname.startswith(_PACKAGE) or fullname.removeprefix(_PACKAGE) not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=fullname.count(".") == 1)

    def exec_module(self, module: ModuleType) -> None:
        """Let the module look its names up where they are now."""
        old = module.__name__
        places = [_PACKAGE + place for place in MOVED[old.removeprefix(_PACKAGE)]]

        def look_up(name: str) -> Any:
            for place in places if not name.startswith("__") else ():
                if hasattr(module := import_module(place), name):
                    warnings.warn(f"{old}.{name} has moved to {place}.{name}", FutureWarning, stacklevel=2)
                    return getattr(module, name)
            raise AttributeError(f"module '{old}' has no attribute '{name}'")

        module.__dict__["__getattr__"] = look_up


def find_moved_modules() -> None:
    """Let Python find the modules of :data:`MOVED`."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
