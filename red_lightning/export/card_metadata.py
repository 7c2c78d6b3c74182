"""The YAML header of a model card."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from red_lightning import hub
from red_lightning.adapters.record_checks import known_class
from red_lightning.export.markdown import is_number, link
from red_lightning.export.merged_checkpoint import Merged
from red_lightning.methods import Method

TASKS = {
    "Classification": ("text-classification", "classifies texts"),
    "TextToTextClassification": ("text-classification", "classifies texts by writing the label"),
    "DataToText": ("text-generation", "writes texts about data"),
    "InstructionTuning": ("text-generation", "answers instructions"),
}
"""By task, the hub's name for it and what the model does."""

METRICS = {
    "matthews": "matthews_correlation",
    "NIST": "nist_mt",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "ROUGE_L": "rouge",
}
"""The hub's names of metrics that are not ours in small letters."""


class About(NamedTuple):
    """What a card tells.

    Attributes:
        repository: The hub id that is pushed to.
        record: The contents of ``edits.json``, as they are pushed.
        shapes: The shape of each tensor of the edits, by name.
        settings: Options of the training, by name.
        results: The contents of ``results.json``; empty if there is none.
        licence: ``license``, ``license_name`` and ``license_link``, as far as they are known.
        whole: Number of parameters of the backbone, or None.
        merged: The merged model; None for edits.
        branch: The branch that is pushed to; None for main.
        trust: Packages whose own methods may be imported.
    """

    repository: str
    record: Mapping[str, Any]
    shapes: Mapping[str, Sequence[int]]
    settings: Mapping[str, Any]
    results: Mapping[str, Any]
    licence: Mapping[str, str]
    whole: int | None
    merged: Merged | None
    branch: str | None = None
    trust: Sequence[str] = ()

    @property
    def kind(self) -> type[Method]:
        """The class of the method; ``Method`` itself, with its defaults, for an unknown or untrusted class."""
        return known_class(self.record, self.repository, self.trust) or Method

    @property
    def method(self) -> str:
        """Its name."""
        return str(self.record["method"]["name"])

    @property
    def backbone(self) -> str:
        """The backbone as a link, if it is on the hub."""
        name = self.record["backbone"]
        return f"`{name}`, which comes with red_lightning" if name in hub.SHIPPED else link(name)

    @property
    def pipeline(self) -> str | None:
        """The hub's name for the task."""
        if self.record.get("task") == "Classification" and not self.record.get("head"):
            return "feature-extraction"  # imported without a head
        if self.merged and self.merged.auto == "AutoModel":
            return "feature-extraction"
        return TASKS.get(self.record.get("task") or "", (None,))[0]


def metadata(about: About) -> ModelCardData:
    """The YAML at the beginning of a card."""
    data = about.record.get("data") or {}
    fields: dict[str, Any] = {
        "pipeline_tag": about.pipeline,
        "tags": ["red-lightning", about.method.lower(), *about.kind.tags],
        "datasets": [data["path"]] if "/" in str(data.get("path")) else None,
        **about.licence,
    }
    if about.record["backbone"] not in hub.SHIPPED:
        relation = "finetune" if about.merged else "adapter"
        fields |= {"base_model": about.record["backbone"], "base_model_relation": relation}
    if results := _eval_results(about):
        fields |= {"model_name": about.repository.rpartition("/")[2], "eval_results": results}
    return ModelCardData(library_name="transformers" if about.merged else "red_lightning", **fields)


def _eval_results(about: About) -> list[EvalResult]:
    data = about.record.get("data") or {}
    scores = {name: value for name, value in (about.record.get("scores") or {}).items() if is_number(value)}
    name = " ".join(str(data[key]) for key in ("class", "task") if data.get(key)) or "unknown"
    return [
        EvalResult(
            task_type=TASKS.get(about.record.get("task") or "", ("other",))[0],
            dataset_type=str(data.get("path") or data.get("class") or "unknown"),
            dataset_name=f"{name}, {tested_on(about.record).partition(',')[0].removeprefix('the ')}",
            dataset_config=data.get("task"),
            dataset_revision=data.get("commit"),
            metric_type=METRICS.get(metric, metric.lower()),
            metric_name=metric,
            metric_value=round(value, 6),
        )
        for metric, value in scores.items()
    ]


def tested_on(record: Mapping[str, Any]) -> str:
    """The rows that scores were measured on, in words."""
    files = (record.get("data") or {}).get("files")
    parts = [*(files or {}), *(record.get("held_out_by") or {})]
    if files and not files.get("test") and not any(part.startswith("test_") for part in parts):
        return "the validation rows, by which the checkpoint was chosen too"
    return "the test rows"
