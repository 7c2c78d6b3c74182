"""The paper's hyperparameters and results, as values that a config refers to and that follow its method and task.

``learning_rate: ${paper:roberta_base,learning_rate}`` is the value of Table 9 for the config's own method and GLUE
task, whatever the command line made of them; a value given on the command line takes its place. Those of GPT-2 and
``llama2_7b`` follow the method alone.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from red_lightning.data import GLUE_TASKS
from red_lightning.data.glue import require_task
from red_lightning.errors import UsageError, nearest
from red_lightning.methods import RED_PLUS_SITES, shipped
from red_lightning.methods.options import defaults_of
from red_lightning.metrics import E2E_METRICS
from red_lightning.paper.published import as_measured, column_key, published_name, published_row

OPTIONS = {
    "learning_rate": "--model.learning_rate",
    "weight_decay": "--model.weight_decay",
    "warmup_ratio": "--model.warmup_ratio",
    "max_epochs": "--trainer.max_epochs",
    "batch_size": "--data.global_batch_size",
    "label_smoothing": "--model.label_smoothing",
}
"""Where each hyperparameter is given by hand."""


@cache
def recipes() -> dict[str, Any]:
    """The contents of ``hyperparameters.yaml``."""
    return yaml.safe_load((Path(__file__).parent / "hyperparameters.yaml").read_text(encoding="utf-8"))


def hyperparameter(recipe: str, name: str, method: str, task: str | None = None) -> float:
    """A hyperparameter of the paper.

    Args:
        recipe: A backbone: ``roberta_base`` (Table 9), ``roberta_large`` (Table 10), ``gpt2_medium`` and ``gpt2_large``
            (Table 11), ``t5_base`` (Table 12) or ``llama2_7b`` (Table 13).
        name: learning_rate, weight_decay, warmup_ratio, max_epochs, batch_size or label_smoothing.
        method: Class name of the method, or ``RED+``.
        task: A GLUE task; that of a recipe for GLUE.

    Raises:
        UsageError: There is no such backbone, hyperparameter or task, or the paper says nothing for the method.
    """
    of_backbone = _recipe(recipe)
    task = _task_of(of_backbone, task)
    if name not in OPTIONS:
        raise UsageError(f"the paper's recipes have no hyperparameter '{name}': {nearest(name, OPTIONS)}")
    value = of_backbone["methods"].get(method, {}).get(name, of_backbone.get(name))
    value = _of_task(value, task)
    if value is None:
        place = recipe if task is None else f"{recipe} and {task}"
        raise UsageError(f"the paper gives no {name} for {method} on {place}; give {OPTIONS[name]}")
    return value


def published(recipe: str, method: str, task: str | None) -> dict[str, dict[str, float]]:
    """The paper's score, for a table that shows it beside a run's own; nothing where there is none."""
    of_backbone = _recipe(recipe)
    task = _task_of(of_backbone, task)
    if "table" not in of_backbone:
        return {}
    table, size = of_backbone["table"], recipe.rsplit("_", 1)[-1]
    scores = published_row(table, f"{published_name(method)} ({size})").scores
    if task is None:
        metrics = [name for name in E2E_METRICS if column_key(name) in scores]
        found = {name: as_measured(name, scores[column_key(name)]) for name in metrics}
        return {"paper (mean of 3 seeds)": found} if found else {}
    if task not in scores:
        return {}
    metric = GLUE_TASKS[task].metrics[0]
    if (recipe, method, task) == ("t5_base", "RED", "mnli"):  # measured so by the authors' code
        return {"paper (of two classes)": {f"two_class_{metric}": as_measured(metric, scores[task])}}
    return {"paper" if recipe == "t5_base" else "paper (mean of 5 seeds)": {metric: as_measured(metric, scores[task])}}


def method_options(recipe: str, method: str) -> dict[str, Any]:
    """The options that the paper gives a method, such as its rank; none where it gives none.

    Args:
        recipe: As for :func:`hyperparameter`.
        method: Class name of the method.
    """
    return dict(_recipe(recipe)["methods"].get(method, {}).get("options", {}))


def unresolved(error: OmegaConfBaseException) -> UsageError:
    """The complaint about a value of a config that refers to another one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UsageError):
        cause = cause.__context__  # omegaconf hides the cause
    return cause or UsageError(f"the config cannot be resolved: {str(error).splitlines()[0]}")


def register_resolvers() -> None:
    """Let configs say ``${paper:BACKBONE,NAME}`` and ``${published:BACKBONE}``."""

    def paper(recipe: str, name: str, *, _root_: DictConfig) -> Any:
        method, task, _ = _choices(_root_)
        return hyperparameter(recipe, name, method, task)

    def scores(recipe: str, *, _root_: DictConfig) -> Any:
        method, task, backbone = _choices(_root_)
        same = Path(backbone).name.replace("-", "_") == recipe
        return published(recipe, method, task) if same and _is_as_published(_root_, recipe, method) else {}

    # omegaconf 2.4 gave the new function the name of the oldest one
    renamed = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register("paper", paper, replace=True)
    register("published", scores, replace=True)


def _recipe(name: str) -> dict[str, Any]:
    known = recipes().keys() - {"tasks"}
    if name not in known:
        raise UsageError(f"the paper has no recipe '{name}': {nearest(name, known)}")
    return recipes()[name]


def _task_of(of_backbone: Mapping[str, Any], task: str | None) -> str | None:
    """The GLUE task that a recipe's values depend on, if they do."""
    if "data" in of_backbone:
        return None
    if task is None:
        raise UsageError("the config takes its hyperparameters from the paper's GLUE tables, so data must be GLUE")
    require_task(task)
    return task


def _parts(root: DictConfig) -> Mapping[str, Any]:
    """The sections of a whole config (LightningCLI keeps them under the name of the command)."""
    config = OmegaConf.to_container(root, resolve=False)
    assert isinstance(config, dict)
    return next((c for c in (config, *config.values()) if isinstance(c, dict) and "model" in c), {})


def _is_as_published(root: DictConfig, recipe: str, method: str) -> bool:
    """Whether a method is set as in the paper's main tables."""
    given = _at(_parts(root), "model", "init_args", "method", "init_args") or {}
    klass = shipped().get(method)
    defaults = defaults_of(klass) if klass else {}
    papers = method_options(recipe, method)
    if not papers and method in _recipe(recipe)["methods"]:  # the paper's are the defaults
        papers = defaults
    return all({**defaults, **given}.get(key) == value for key, value in papers.items())


def _choices(root: DictConfig) -> tuple[str, str | None, str]:
    """Method, GLUE task (if there is one) and backbone of a whole config."""
    parts = _parts(root)
    method = _at(parts, "model", "init_args", "method")
    name = str(_at(method, "class_path") or "").rsplit(".", 1)[-1]
    if name == "RED" and sorted(_at(method, "init_args", "sites") or []) == sorted(RED_PLUS_SITES):
        name = "RED+"
    task = _at(parts, "data", "init_args", "task")
    return name, None if task is None else str(task), str(_at(parts, "model", "init_args", "backbone"))


def _at(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _of_task(value: Any, task: str | None) -> Any:
    if isinstance(value, list):
        return value[recipes()["tasks"].index(task)]
    return value.get(task) if isinstance(value, dict) else value
