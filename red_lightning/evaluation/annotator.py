"""Annotators of the package ``alpaca_eval`` on a configurable endpoint.

The package makes the judge's prompts (in an order of the two answers that the instruction seeds) and reads its
verdicts; the requests themselves are made by :class:`~red_lightning.evaluation.judge.Judge`.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from threading import RLock
from typing import Any

from red_lightning.errors import UsageError, nearest
from red_lightning.evaluation.judge import Request
from red_lightning.jsonl import Record

OWN_OPTIONS = {"model_name", "price_per_token", "num_procs", "batch_size", "is_strip", "requires_chatml", "n_retries"}
"""Options of an annotator that are not the endpoint's."""


_ONE_THREAD = RLock()  # logging is switched off for all of them


class Annotator:
    """One of AlpacaEval's annotators on one model's answers.

    Args:
        config: Its name in the package, such as :data:`PAPERS_ANNOTATOR`, or a folder with a ``configs.yaml``.
        references: Rows with ``instruction`` and ``output``.
        outputs: Likewise the model's, of the same instructions.
        model: The judge's name at its endpoint.

    Raises:
        UsageError: The package is missing, has no such annotator, or that needs more than a chat endpoint.
    """

    def __init__(self, config: str, references: Sequence[Record], outputs: Sequence[Record], model: str) -> None:
        self.model = model
        self._references, self._outputs = _frame(references), _frame(outputs)
        self._annotator = load_annotator(config)
        if len(self._annotator.annotators) != 1:
            raise UsageError(f"the annotator '{config}' is a pool of several; give one of a single judge")
        (self._single,) = self._annotator.annotators.values()

    def requests(self) -> list[Request]:
        """What to ask the judge: nothing where the two answers are the same, which is a draw."""
        found: list[Request] = []

        def collect(prompts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
            found.extend(self._request(prompt, options) for prompt in prompts)
            return self._completions([None] * len(prompts))

        self._annotate(collect)
        return found

    def readable(self, row: Record) -> bool:
        """Whether a reply holds a verdict."""
        key = self._single.completion_key
        try:
            with _quiet():
                verdicts = list(self._single.fn_completion_parser(self._completions([row])[key][0]))
        except Exception:  # the package's parsers raise whatever they meet
            return False
        whole = len(verdicts) == self._single.batch_size
        return whole and all(verdict is not None and 0 <= verdict <= 2 for verdict in verdicts)

    def annotations(self, requests: Sequence[Request], replies: Sequence[Record | None]) -> list[Record]:
        """The judgments in AlpacaEval's format, one row for each instruction; a failed one has no ``preference``.

        Args:
            requests: What :meth:`requests` gave.
            replies: The judge's replies, in that order.
        """
        by_prompt = {str(request["messages"]): reply for request, reply in zip(requests, replies, strict=True)}

        def look_up(prompts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
            return self._completions([by_prompt[str(self._request(prompt, options)["messages"])] for prompt in prompts])

        rows = self._annotate(look_up)
        return [{name: None if value != value else value for name, value in row.items()} for row in rows]

    def _annotate(self, complete: Any) -> list[Record]:
        self._single.fn_completions = complete  # as a config's `fn_completions` may be a function
        self._annotator.df_annotations = None
        with _quiet(), redirect_stderr(StringIO()):  # a bar that is full at once
            return self._annotator.annotate_head2head(self._references, self._outputs, chunksize=None)

    def _request(self, prompt: str, options: Mapping[str, Any]) -> Request:
        from alpaca_eval.utils import prompt_to_chatml

        try:
            messages = prompt_to_chatml(prompt)
        except AssertionError as error:
            raise UsageError("the annotator's prompt is no chat, which the judge's endpoint needs") from error
        body = {name: value for name, value in options.items() if name not in OWN_OPTIONS}
        return {"model": self.model, "messages": messages, "max_tokens": 2048, "temperature": 0.7, "top_p": 1.0, **body}

    def _completions(self, replies: Sequence[Record | None]) -> dict[str, list[Any]]:
        """Replies as the package's own decoders return them."""
        texts = [reply["text"] if reply else "" for reply in replies]
        choices = [
            {**(reply["choice"] if reply else {}), "text": text} for reply, text in zip(replies, texts, strict=True)
        ]
        return {"completions": texts, "completions_all": choices}


def _frame(rows: Sequence[Record]) -> list[Record]:
    """The columns that the package needs, without what its prompts would take for a new message."""
    columns = ("dataset", "instruction", "output", "generator")
    return [
        {name: str(row[name]).replace("<|im_", "<| im_") for name in columns if row.get(name) is not None}
        for row in rows
    ]


def load_annotator(config: str) -> Any:
    """The package's annotator, which keeps no cache of its own.

    Raises:
        UsageError: The package is missing, or has no such annotator.
    """
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources is deprecated
            from alpaca_eval import constants
            from alpaca_eval.annotators import PairwiseAnnotator
    except ImportError as error:
        raise UsageError(
            f"AlpacaEval's judge needs the package alpaca_eval ({error}): pip install 'red-lightning[evaluation]'"
        ) from error
    finally:
        root.setLevel(level)  # which the package raises for everybody
    try:
        with _quiet():
            return PairwiseAnnotator(annotators_config=config, caching_path=None)
    except (FileNotFoundError, ImportError, TypeError, ValueError, AssertionError) as error:
        known = [path.name for path in constants.EVALUATORS_CONFIG_DIR.iterdir() if path.is_dir()]
        raise UsageError(f"AlpacaEval has no usable annotator '{config}': {nearest(config, known)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's logging of each row, which tells nothing that a result does not, to itself."""
    with _ONE_THREAD:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
