"""Where a method cannot go, and why: one table, which the tasks and the tests of every combination read."""

from dataclasses import dataclass
from typing import Any

from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.families.encoder_decoders import ENCODER_DECODERS
from red_lightning.methods.method import Method
from red_lightning.methods.options import require_kept


@dataclass(frozen=True)
class Limit:
    """A combination that does not run.

    Attributes:
        method: Class name of the method.
        reason: Why, and the way out; ``{family}`` stands for the family's name.
        families: Names of model families (see ``families``); none for all.
        tasks: Class names of tasks; none for all.
    """

    method: str
    reason: str
    families: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


LIMITS: tuple[Limit, ...] = (
    Limit(
        "SteeringVector",
        "is the difference that a text makes to the decoder which continues it, but in {family} the encoder reads the "
        "text; choose a decoder",
        families=tuple(record.name for record in ENCODER_DECODERS),
    ),
    Limit(
        "PrefixTuning",
        "puts learned keys and values into the cache that attention reads, and transformers' {family} reads none; "
        "choose PromptTuning, whose virtual tokens are input embeddings",
        families=(
            *("ALBERT", "DeBERTa", "DeBERTa-v3", "DistilBERT", "EuroBERT", "GTE", "Jina Embeddings v3", "ModernBERT"),
            *("MPNet", "Nomic BERT", "UltraBERT"),
        ),
    ),
    Limit(
        "PrefixTuning",
        "makes the attention mask longer than the text, and transformers' {family} takes none that is; choose "
        "PromptTuning, whose virtual tokens are input embeddings",
        families=("XLM", "FlauBERT"),
    ),
    Limit(
        "LoReFT",
        "edits the output of each block, which in {family} is the output of no module; choose RED",
        families=("FlauBERT",),
    ),
    Limit(
        "SteeringVector",
        "is added to the output of a block, which in {family} is the output of no module; choose RED",
        families=("FlauBERT",),
    ),
    Limit(
        "HeadOnly",
        "trains nothing but a classification head, and this task has none; choose another method",
        tasks=("DataToText", "InstructionTuning", "TextToTextClassification"),
    ),
)


def limit_of(method: str, family: str | None, task: str) -> Limit | None:
    """Why a combination does not run; None where it does.

    Args:
        method: Class name of the method.
        family: Name of the model family; None for one without a record.
        task: Class name of the task.
    """
    for limit in LIMITS:
        here = (not limit.families or family in limit.families) and (not limit.tasks or task in limit.tasks)
        if limit.method == method and here:
            return limit
    return None


def refuse(method: Method, config: Any, task: str) -> None:
    """Refuse a combination that does not run.

    Args:
        method: The method.
        config: The backbone's Hugging Face configuration.
        task: Class name of the task.

    Raises:
        UsageError: It does not run, or its adapter could not be loaded; says why, and the way out.
    """
    record, name = record_of(config), type(method).__name__
    family = record.name if record else None
    for klass in type(method).__mro__:  # a method of the user's own has the limits of the one that it extends
        if limit := limit_of(klass.__name__, family, task):
            raise UsageError(f"model.method {name} {limit.reason.format(family=family)}")
    require_kept(method, {option: value for option, value in method.describe().items() if option != "name"})
