"""Judgments of a model behind an OpenAI-compatible endpoint. Each one is saved when it arrives."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import ceil

from rich.console import Console
from rich.progress import track

from red_lightning.errors import UsageError
from red_lightning.evaluation.chat_client import ChatClient
from red_lightning.evaluation.endpoint import Endpoint, Refusal
from red_lightning.jsonl import Record, Records

Request = Record

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 per token, for estimates."""

MOST_LOST = 5
"""Judgments that fail before all judging stops: in a row without an answer, or without any verdict so far."""

REPLY = {"request": str, "time": float, "text": str | None, "choice": dict, "usage": dict, "readable": bool}
"""Fields of a line of ``replies.jsonl``. ``request`` is the request's key; ``text`` is null if there is no reply."""


@dataclass(frozen=True)
class Usage:
    """Tokens and costs of judging.

    Attributes:
        calls: Replies of the endpoint, including those without a verdict.
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Generated tokens; of an estimate the maximum.
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
    """Requests judgments and saves every reply, so that no judgment is requested twice.

    Args:
        endpoint: The endpoint.
        log: The file of replies: records with the fields :data:`REPLY`.

    Attributes:
        failed: By request key, the reason for each missing judgment.
    """

    def __init__(self, endpoint: Endpoint, log: Records) -> None:
        self.endpoint, self.log = endpoint, log
        self.failed: dict[str, str] = {}
        self._replies = {row["request"]: row for row in log.rows if row["readable"]}
        self._turn = threading.Lock()
        self._stopped = False
        self._answers, self._lost, self._lost_in_a_row = len(self._replies), 0, 0

    def key(self, request: Request) -> str:
        """Return a digest of the endpoint and the request."""
        content = json.dumps([self.endpoint.base_url, self.endpoint.body(request)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests without a saved judgment."""
        return [request for request in requests if self.key(request) not in self._replies]

    def estimate(self, requests: Sequence[Request]) -> Usage:
        """Estimate the usage from :data:`BYTES_PER_TOKEN` and each request's maximum of generated tokens."""
        bodies = self._bodies(requests).values()
        texts = [message["content"] for body in bodies for message in body["messages"]]
        prompt = sum(ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN) for text in texts)
        most = sum(body.get("max_tokens") or body.get("max_completion_tokens") or 0 for body in bodies)
        return self._priced(Usage(len(bodies), prompt, most))

    def usage(self, requests: Sequence[Request]) -> Usage:
        """Return the usage that the endpoint reported for requests, over all runs and failed replies."""
        asked = self._bodies(requests)
        rows = [row for row in self.log.rows if row["text"] is not None and row["request"] in asked]
        tokens = [sum(row["usage"].get(name) or 0 for row in rows) for name in ("prompt_tokens", "completion_tokens")]
        return self._priced(Usage(len(rows), *tokens))

    def ask(self, requests: Sequence[Request], readable: Callable[[Record], bool]) -> list[Record | None]:
        """Request the missing judgments.

        Args:
            requests: Bodies with ``model``, ``messages``, ``max_tokens`` and so on.
            readable: Returns whether a reply (``text`` and ``choice``) holds a verdict. Called from several threads.

        Returns:
            The reply to each request. None marks a missing judgment; :attr:`failed` has the reason.

        Raises:
            UsageError: The endpoint rejects the key or the model, is unreachable, or never gives a verdict.
        """
        pending = self._bodies(self.missing(requests))
        if not pending:
            return [self._replies[self.key(request)] for request in requests]
        with self.endpoint.client() as client, ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            work = [pool.submit(self._judge, client, key, body, readable) for key, body in pending.items()]
            try:
                for done in track(as_completed(work), "judging", len(work), console=Console(stderr=True)):
                    done.result()
            except BaseException:
                self._stopped = True
                pool.shutdown(cancel_futures=True)  # waits: requests in flight are paid for, so save their replies
                raise
        return [self._replies.get(self.key(request)) for request in requests]

    def _bodies(self, requests: Sequence[Request]) -> dict[str, Request]:
        return {self.key(request): self.endpoint.body(request) for request in requests}

    def _judge(self, client: ChatClient, key: str, body: Request, readable: Callable[[Record], bool]) -> None:
        """Request one judgment until a reply holds a verdict or the attempts are used up."""
        left, silent = self.endpoint.attempts, False
        while left > 0 and not self._stopped:
            try:
                reply, used = self.endpoint.post(client, body, left)
            except Refusal as refusal:
                left, silent = 0, refusal.silent
                self._save(key, {"error": str(refusal)})
                if refusal.final:
                    raise self._stop(f"rejects requests: {refusal}; check the options --judge") from None
            else:
                left -= used
                if reply["text"] and readable(reply):
                    return self._save(key, {**reply, "readable": True})
                nothing = f"no verdict in the answer '{reply['text'][:60]}'"
                self._save(key, {**reply, "error": nothing if reply["choice"] else "not an OpenAI chat completion"})
        if left <= 0:
            self._lose(key, silent)
        return None

    def _save(self, key: str, found: Record) -> None:
        """Save a reply, or the ``error`` that stands in its place."""
        row = {"request": key, "time": time.time(), "text": None, "choice": {}, "usage": {}, "readable": False, **found}
        self.log.append(row)
        with self._turn:
            if row["text"] is not None:
                self._answers, self._lost_in_a_row = self._answers + 1, 0
            if row["readable"]:
                self._replies[key] = row
                self.failed.pop(key, None)
            else:
                self.failed[key] = row["error"]

    def _lose(self, key: str, silent: bool) -> None:
        """Count a failed judgment. Stop all judging if the endpoint is silent or has never given a verdict."""
        with self._turn:
            self._lost, self._answers = self._lost + 1, self._answers + (not silent)
            self._lost_in_a_row = self._lost_in_a_row + 1 if silent else 0
            never = not self._replies and self._lost >= MOST_LOST
            gone = never or self._lost_in_a_row >= (MOST_LOST if self._answers else 1)
        if gone:
            raise self._stop(
                f"gives no judgments: {self.failed[key]}; check the options --judge and rerun the same command to "
                "resume: finished judgments are saved"
            )

    def _stop(self, why: str) -> UsageError:
        self._stopped = True
        return UsageError(f"the judge at {self.endpoint.base_url} {why}")

    def _priced(self, usage: Usage) -> Usage:
        prices = self.endpoint.prompt_price, self.endpoint.completion_price
        if prices == (None, None):
            return usage
        cost = (usage.prompt_tokens * (prices[0] or 0) + usage.completion_tokens * (prices[1] or 0)) / 1e6
        return replace(usage, cost=cost)
