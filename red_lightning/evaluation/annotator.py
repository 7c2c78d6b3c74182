"""AlpacaEval's annotators, from the package ``alpaca_eval``.

The package writes the judge's prompts and parses its verdicts. Its own decoders lose up to 128 replies when they are
interrupted, and stop at the first error that is not a rate limit. So
:class:`~red_lightning.evaluation.judge.Judge` sends the requests.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from threading import RLock
from typing import Any

from red_lightning.errors import UsageError, nearest
from red_lightning.evaluation.judge import Request
from red_lightning.jsonl import Record

OWN_OPTIONS = {"model_name", "price_per_token", "num_procs", "batch_size", "is_strip", "requires_chatml", "n_retries"}
"""Options of an annotator's decoder that are not fields of a request."""

_QUIET = RLock()  # logging.disable is global, and replies are parsed in several threads


class Annotator:
    """An annotator of AlpacaEval, applied to a model's outputs.

    Args:
        config: Name in the package, such as :data:`PAPERS_ANNOTATOR`, or a folder with a ``configs.yaml``.
        references: Rows with ``instruction`` and ``output``.
        outputs: The model's rows, with the same instructions.
        model: The judge's name at its endpoint.

    Raises:
        UsageError: The package is missing or has no such annotator, or the annotator has several judges.
    """

    def __init__(self, config: str, references: Sequence[Record], outputs: Sequence[Record], model: str) -> None:
        self.model = model
        self._references, self._outputs = _frame(references), _frame(outputs)
        self._annotator = load_annotator(config)
        if len(self._annotator.annotators) != 1:
            raise UsageError(f"the annotator '{config}' has several judges; pass one with a single judge")
        (self._single,) = self._annotator.annotators.values()

    def requests(self) -> list[Request]:
        """Return the judge's requests. Identical outputs are draws, without a request."""
        found: list[Request] = []

        def collect(prompts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
            found.extend(self._request(prompt, options) for prompt in prompts)
            return self._completions([None] * len(prompts))

        self._annotate(collect)
        return found

    def readable(self, row: Record) -> bool:
        """Return whether a reply holds a verdict."""
        key = self._single.completion_key
        try:
            with _quiet():
                verdicts = list(self._single.fn_completion_parser(self._completions([row])[key][0]))
        except Exception:  # the package's parsers raise anything
            return False
        whole = len(verdicts) == self._single.batch_size
        return whole and all(verdict is not None and 0 <= verdict <= 2 for verdict in verdicts)

    def annotations(self, replies: Sequence[Record | None]) -> list[Record]:
        """Return AlpacaEval's annotations, one row per instruction. A missing judgment has the ``preference`` None.

        Args:
            replies: The reply to each of :meth:`requests`, in their order.
        """
        rows = self._annotate(lambda prompts, **options: self._completions(replies))
        return [{name: None if value != value else value for name, value in row.items()} for row in rows]

    def _annotate(self, complete: Callable[..., dict[str, list[Any]]]) -> list[Record]:
        self._single.fn_completions = complete
        self._annotator.df_annotations = None  # a cache
        with _quiet(), redirect_stderr(StringIO()):  # hides a progress bar
            return self._annotator.annotate_head2head(self._references, self._outputs, chunksize=None)

    def _request(self, prompt: str, options: Mapping[str, Any]) -> Request:
        from alpaca_eval.utils import prompt_to_chatml

        try:
            messages = prompt_to_chatml(prompt)
        except AssertionError as error:
            raise UsageError(
                "the annotator's prompt is not in the chat format of the judge's endpoint; pass another --annotator"
            ) from error
        body = {name: value for name, value in options.items() if name not in OWN_OPTIONS}
        return {"model": self.model, "messages": messages, "max_tokens": 2048, "temperature": 0.7, "top_p": 1.0, **body}

    def _completions(self, replies: Sequence[Record | None]) -> dict[str, list[Any]]:
        """Return replies in the form of the package's decoders."""
        texts = [reply["text"] if reply else "" for reply in replies]
        choices = [
            {**(reply["choice"] if reply else {}), "text": text} for reply, text in zip(replies, texts, strict=True)
        ]
        return {"completions": texts, "completions_all": choices}


def _frame(rows: Sequence[Record]) -> list[Record]:
    """Return the package's columns, in which no output can start a message of the judge's prompt (``<|im_start|>``)."""
    columns = ("dataset", "instruction", "output", "generator")
    return [
        {name: str(row[name]).replace("<|im_", "<| im_") for name in columns if row.get(name) is not None}
        for row in rows
    ]


def load_annotator(config: str) -> Any:
    """Return an annotator of the package, without its cache.

    Raises:
        UsageError: The package is missing or has no such annotator.
    """
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # alpaca_eval 0.6.6 imports pkg_resources, which is deprecated
            from alpaca_eval import constants
            from alpaca_eval.annotators import PairwiseAnnotator
    except ImportError as error:
        raise UsageError(
            f"AlpacaEval's judge needs the package alpaca_eval ({error}): pip install 'red-lightning[evaluation]'"
        ) from error
    finally:
        root.setLevel(level)  # alpaca_eval 0.6.6 sets it to INFO on import
    try:
        with _quiet():
            return PairwiseAnnotator(annotators_config=config, caching_path=None)
    except (FileNotFoundError, ImportError, TypeError, ValueError, AssertionError) as error:
        known = [path.name for path in constants.EVALUATORS_CONFIG_DIR.iterdir() if path.is_dir()]
        raise UsageError(f"AlpacaEval has no usable annotator '{config}': {nearest(config, known)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the package's log messages about each row."""
    with _QUIET:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
