"""Judgments of a model behind an OpenAI-compatible endpoint, with resumable records."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from rich.console import Console
from rich.progress import track

from red_lightning.errors import UsageError
from red_lightning.evaluation.endpoint import Endpoint, Refusal
from red_lightning.jsonl import Record, Records

Request = dict[str, Any]

BYTES_PER_TOKEN = 4
"""The rule of an estimate: a token per four bytes of UTF-8."""

LONGEST_PAUSE = 60.0  # seconds between two attempts, where the endpoint asks for no longer one
MOST_LOST = 5
"""Judgments that are given up before all are: as the endpoint is silent for so long, or never judged."""

REPLY = {"request": str, "time": float, "text": str | None, "choice": dict, "usage": dict, "readable": bool}
"""What a line of ``replies.jsonl`` holds: the key of a request, and the endpoint's reply, or null as its text."""


@dataclass(frozen=True)
class Usage:
    """What judging takes, or took.

    Attributes:
        calls: Replies of the endpoint, those without a judgment included.
        prompt_tokens: Tokens that it read.
        completion_tokens: Tokens that it wrote; of an estimate the most that it may write.
        cost: In the currency of the prices; None without prices.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:.2f}"
        return f"{self.calls} calls, {self.prompt_tokens:,} + {self.completion_tokens:,} tokens{cost}"


class Judge:
    """Asks an endpoint, and keeps every reply in a file: what was judged once is never asked for again.

    Args:
        endpoint: Whom to ask.
        log: Where the replies are kept, one line each: records with the fields :data:`REPLY`.
        pause: Waits some seconds; None waits for as long as they last, or until the judge is stopped.

    Attributes:
        failed: Why each request whose judgment is missing failed, by its key.
    """

    def __init__(self, endpoint: Endpoint, log: Records, pause: Callable[[float], object] | None = None) -> None:
        self.endpoint, self.log = endpoint, log
        self.failed: dict[str, str] = {}
        self._replies = {row["request"]: row for row in log.rows if row["readable"]}
        self._turn = threading.Lock()
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._answers, self._lost, self._lost_in_a_row = len(self._replies), 0, 0

    def key(self, request: Request) -> str:
        """What tells a request from others: a digest of the endpoint and all that is sent there."""
        content = json.dumps([self.endpoint.base_url, self.endpoint.body(request)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """The requests whose judgment is not in the file."""
        return [request for request in requests if self.key(request) not in self._replies]

    def estimate(self, requests: Sequence[Request]) -> Usage:
        """What to ask for judgments takes, by :data:`BYTES_PER_TOKEN` and the most tokens that may be written."""
        bodies = self._bodies(requests).values()
        texts = [message["content"] for body in bodies for message in body["messages"]]
        prompt = sum(ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN) for text in texts)
        most = sum(body.get("max_tokens") or body.get("max_completion_tokens") or 0 for body in bodies)
        return self._priced(Usage(len(bodies), prompt, most))

    def usage(self, requests: Sequence[Request]) -> Usage:
        """What the endpoint says that its replies to requests took, those of earlier runs and failed ones included."""
        asked = self._bodies(requests)
        rows = [row for row in self.log.rows if row["text"] is not None and row["request"] in asked]
        tokens = [sum(row["usage"].get(name) or 0 for row in rows) for name in ("prompt_tokens", "completion_tokens")]
        return self._priced(Usage(len(rows), *tokens))

    def ask(self, requests: Sequence[Request], readable: Callable[[Record], bool]) -> list[Record | None]:
        """Ask for the judgments that are missing.

        Args:
            requests: What is sent: ``messages``, ``max_tokens`` and so on.
            readable: Whether a reply (``text``, and ``choice`` as the endpoint sent it) holds a judgment.

        Returns:
            For each request its reply, or None where there is no judgment; :attr:`failed` says why.

        Raises:
            UsageError: The endpoint refuses the key or the model, or does not answer.
        """
        pending = self._bodies(self.missing(requests))
        if pending:
            self._ask_all(pending, readable)
        return [self._replies.get(self.key(request)) for request in requests]

    def _ask_all(self, pending: Mapping[str, Request], readable: Callable[[Record], bool]) -> None:
        secret = self.endpoint.key()
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            work = [pool.submit(self._judge, key, body, readable, secret) for key, body in pending.items()]
            try:
                for done in track(as_completed(work), "judging", len(work), console=Console(stderr=True)):
                    done.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)  # requests on their way are paid for: their replies are kept
                raise

    def _bodies(self, requests: Sequence[Request]) -> dict[str, Request]:
        return {self.key(request): self.endpoint.body(request) for request in requests}

    def _judge(self, key: str, body: Request, readable: Callable[[Record], bool], secret: str | None) -> None:
        """Ask until there is a judgment, or for as long as the endpoint's settings allow."""
        began, settings, silent = time.monotonic(), self.endpoint, False
        for attempt in range(settings.attempts):
            if self._stopped.is_set():
                return
            pause = min(LONGEST_PAUSE, settings.backoff * 2**attempt)
            try:
                reply = settings.post(body, secret)
            except Refusal as refusal:
                silent = refusal.silent
                self._note(key, None, str(refusal))
                if refusal.final:
                    raise self._stop(f"refuses: {refusal}; check --judge") from None
                if not refusal.passing:
                    break
                pause = pause if refusal.pause is None else refusal.pause
            else:
                silent = False
                if self._note(key, reply, f"no judgment in the answer '{reply['text'][:60]}'", readable):
                    return
            if attempt + 1 == settings.attempts or time.monotonic() - began + pause > settings.patience:
                break
            self._pause(pause)
        self._lose(key, silent)

    def _note(self, key: str, reply: Record | None, why: str, readable: Callable[[Record], bool] | None = None) -> bool:
        """Keep a reply, or why there is none; whether it holds a judgment."""
        row = {"request": key, "time": time.time(), "text": None, "choice": {}, "usage": {}, **(reply or {})}
        row["readable"] = bool(reply and readable and row["text"] and readable(row))
        if not row["readable"]:
            row["error"] = why
        self.log.append(row)
        with self._turn:
            if reply:
                self._answers, self._lost_in_a_row = self._answers + 1, 0
            if row["readable"]:
                self._replies[key] = row
                self.failed.pop(key, None)
            else:
                self.failed[key] = why
        return row["readable"]

    def _lose(self, key: str, silent: bool) -> None:
        """Give a judgment up; and all of them, if the endpoint is silent or has never judged."""
        with self._turn:
            self._lost, self._answers = self._lost + 1, self._answers + (not silent)
            self._lost_in_a_row = self._lost_in_a_row + 1 if silent else 0
            never = not self._replies and self._lost >= MOST_LOST
            gone = never or self._lost_in_a_row >= (MOST_LOST if self._answers else 1)
        if gone:
            raise self._stop(
                f"gives no judgments: {self.failed[key]}; check --judge, and run the same again to go on, as what was "
                "judged is kept"
            )

    def _stop(self, why: str) -> UsageError:
        self._stopped.set()
        return UsageError(f"the judge at {self.endpoint.base_url} {why}")

    def _priced(self, usage: Usage) -> Usage:
        prices = self.endpoint.prompt_price, self.endpoint.completion_price
        if prices == (None, None):
            return usage
        cost = (usage.prompt_tokens * (prices[0] or 0) + usage.completion_tokens * (prices[1] or 0)) / 1e6
        return replace(usage, cost=cost)
