"""Requests to an OpenAI-compatible endpoint."""

import json
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from red_lightning.errors import UsageError, require_range

PASSING = (408, 409, 425, 429)  # and 500 and above
FINAL = (401, 403, 404)


class Refusal(Exception):  # noqa: N818 - it is an answer
    """There is no reply.

    Attributes:
        passing: Whether the same request may be answered later.
        final: Whether no request will be.
        silent: Whether the endpoint did not answer at all: it could not be reached, took too long, or failed (5xx).
        pause: Seconds that the endpoint asks to wait; None if it does not say.
    """

    def __init__(
        self, why: str, passing: bool = True, final: bool = False, silent: bool = True, pause: float | None = None
    ) -> None:
        super().__init__(why)
        self.passing, self.final, self.silent, self.pause = passing, final, silent, pause


@dataclass
class Endpoint:
    """A judge: a model behind an OpenAI-compatible endpoint.

    Attributes:
        model: Its name there, such as gpt-4, the paper's judge; null writes answers only.
        base_url: The endpoint: what stands before /chat/completions.
        key_variable: The environment variable that holds its key, which is neither shown nor written; null if the
            endpoint needs none.
        timeout: Seconds after which a request counts as unanswered.
        attempts: How often a judgment is asked for at most: again after rate limits, server errors and silence, and
            after answers that hold no judgment.
        backoff: Seconds before the second attempt; each further pause is twice as long, up to a minute. A pause that
            the endpoint asks for (Retry-After) takes their place.
        patience: Seconds after which a judgment is not asked for again.
        concurrency: Requests at a time.
        fields: What a request says otherwise than the benchmark's, where null leaves a field out, such as
            {"max_tokens": null, "max_completion_tokens": 2048, "temperature": null} for a model that takes no others.
        prompt_price: Price of a million prompt tokens, to show costs; null shows tokens only.
        completion_price: Price of a million completion tokens.
    """

    model: str | None = None
    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    timeout: float = 120.0
    attempts: int = 6
    backoff: float = 2.0
    patience: float = 600.0
    concurrency: int = 4
    fields: dict[str, Any] | None = None
    prompt_price: float | None = None
    completion_price: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no endpoint."""
        if {*self.base_url} & {*"@?#"}:  # not shown, as it may hold a secret
            raise UsageError("judge.base_url must hold no password and no query; give a key by --judge.key_variable")
        if not _is_address(self.base_url):
            raise UsageError(f"judge.base_url is '{self.base_url}', but must look like http://host:port/v1")
        require_range("judge.timeout", self.timeout, 0.001)
        require_range("judge.attempts", self.attempts, 1)
        require_range("judge.backoff", self.backoff, 0)
        require_range("judge.patience", self.patience, 0)
        require_range("judge.concurrency", self.concurrency, 1)
        require_range("judge.prompt_price", self.prompt_price or 0, 0)
        require_range("judge.completion_price", self.completion_price or 0, 0)
        fields = self.fields or {}
        if "messages" in fields:
            raise UsageError("judge.fields must hold no messages: those are the benchmark's")
        for name in ("max_tokens", "max_completion_tokens"):
            most = fields.get(name)
            if most is not None and (type(most) is not int or most < 1):
                raise UsageError(
                    f"{name} of judge.fields is {most!r}, but must be a whole number of at least 1, or null"
                )

    def key(self) -> str | None:
        """The key.

        Raises:
            UsageError: Its variable is not set, or holds what cannot be sent.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise UsageError(
                f"the environment variable {self.key_variable} with the judge's key is not set; set it, or give "
                "--judge.key_variable null for an endpoint that needs none"
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"the environment variable {self.key_variable} holds characters that no key has")
        return key

    def body(self, request: dict[str, Any]) -> dict[str, Any]:
        """A benchmark's request as it is sent."""
        return {name: value for name, value in {**request, **(self.fields or {})}.items() if value is not None}

    def post(self, body: dict[str, Any], key: str | None) -> dict[str, Any]:
        """Send a request.

        Args:
            body: What to send, as JSON.
            key: The bearer token; it is not sent on to where the endpoint redirects to.

        Returns:
            ``choice`` (the first one, as it came), its ``text`` (an empty one if there is none) and the ``usage``.

        Raises:
            Refusal: In place of all that can go wrong.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "red-lightning"}
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        request = Request(url, json.dumps(body).encode(), headers, method="POST")
        if key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        try:
            with urlopen(request, timeout=self.timeout) as response:
                return _reply(_read(response, time.monotonic() + self.timeout))
        except HTTPError as error:
            why = f"HTTP {error.code} {_without(key, _message(error))[:200]}"
            passing = error.code in PASSING or error.code >= 500
            final = error.code in FINAL or "insufficient_quota" in why
            raise Refusal(why, passing, final, error.code >= 500, _retry_after(error)) from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            why = f"no answer within {self.timeout:g} s" if late else _without(key, str(reason))
            raise Refusal(why) from None


def _is_address(url: str) -> bool:
    """Whether requests can be sent to what is below a URL."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # a port of letters raises
    except ValueError:
        return False
    return bool(known) and url.isascii() and url.isprintable() and " " not in url


def _read(response: HTTPResponse, until: float) -> bytes:
    """The body of a response, which may come drop by drop."""
    parts = []
    while part := response.read1(1 << 16):
        parts.append(part)
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(parts)


def _reply(content: bytes) -> dict[str, Any]:
    """What of a response counts; of a malformed one nothing."""
    try:
        whole = json.loads(content)
        choice = whole["choices"][0]
        text = _text(choice["message"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {"choice": {}, "text": "", "usage": {}}
    said = whole.get("usage")
    usage = {name: count for name, count in said.items() if isinstance(count, int)} if isinstance(said, dict) else {}
    return {"choice": choice, "text": text if isinstance(text, str) else "", "usage": usage}


def _text(message: dict[str, Any]) -> Any:
    """What a message says, or the arguments of the function that it calls."""
    calls = message.get("tool_calls")
    call = calls[0]["function"] if calls else message.get("function_call")
    return call["arguments"] if call else message["content"]


def _message(error: HTTPError) -> str:
    """What an endpoint says about its refusal."""
    try:
        said = json.loads(error.read(1 << 16))["error"]
        said = f"{said.get('code') or ''} {said['message']}" if isinstance(said, dict) else said
    except (ValueError, TypeError, LookupError, OSError, HTTPException):
        said = error.reason
    return " ".join(str(said).split())


def _retry_after(error: HTTPError) -> float | None:
    """The header Retry-After, which holds seconds or a date."""
    said = error.headers.get("Retry-After", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds)


def _without(key: str | None, text: str) -> str:
    """A text in which an endpoint may repeat the key, without it."""
    return text.replace(key, "...") if key else text
