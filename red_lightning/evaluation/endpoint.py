"""The judge's endpoint: an OpenAI-compatible chat model, called with the package ``openai``."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from red_lightning.errors import UsageError, require_range
from red_lightning.evaluation.chat_client import ChatClient
from red_lightning.jsonl import Record

if TYPE_CHECKING:
    from openai import APIStatusError


class Refusal(Exception):  # noqa: N818 - an outcome that callers handle, not a bug
    """A request that got no reply, after all retries.

    Attributes:
        final: Whether every further request would fail too: wrong key, unknown model, no credit.
        silent: Whether the endpoint is unreachable, timed out or failed with a status of 500 or more.
    """

    def __init__(self, why: str, final: bool = False, silent: bool = True) -> None:
        super().__init__(why)
        self.final, self.silent = final, silent


@dataclass
class Endpoint:
    """A judge: a chat model behind an OpenAI-compatible endpoint.

    Attributes:
        model: Model name at the endpoint. The paper uses gpt-4. null generates answers without judging them.
        base_url: URL of the endpoint, without /chat/completions.
        key_variable: Environment variable that holds the API key. The key is never printed or saved. null sends none.
        timeout: Seconds after which a request counts as unanswered.
        attempts: Maximum requests per judgment. Requests are repeated after rate limits, server errors, time-outs and
            replies without a verdict. The package openai sets the pauses: Retry-After, or else 0.5 to 8 seconds.
        concurrency: Parallel requests.
        fields: Request fields that replace the benchmark's; null removes one. A model that rejects max_tokens and
            temperature needs {"max_tokens": null, "max_completion_tokens": 2048, "temperature": null}.
        prompt_price: Price per million prompt tokens. null reports tokens without costs.
        completion_price: Price per million completion tokens.
    """

    model: str | None = None
    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    timeout: float = 120.0
    attempts: int = 6
    concurrency: int = 4
    fields: dict[str, Any] | None = None
    prompt_price: float | None = None
    completion_price: float | None = None

    def __post_init__(self) -> None:
        """Refuse invalid options."""
        if {*self.base_url} & {*"@?#"}:  # the URL may hold a secret, so the message does not repeat it
            raise UsageError("judge.base_url must hold no password or query; pass the key with --judge.key_variable")
        if not _is_address(self.base_url):
            raise UsageError(f"judge.base_url is '{self.base_url}', but must look like http://host:port/v1")
        require_range("judge.timeout", self.timeout, 0.001)
        require_range("judge.attempts", self.attempts, 1)
        require_range("judge.concurrency", self.concurrency, 1)
        require_range("judge.prompt_price", self.prompt_price or 0, 0)
        require_range("judge.completion_price", self.completion_price or 0, 0)
        fields = self.fields or {}
        if "messages" in fields:
            raise UsageError("judge.fields must hold no messages: the benchmark sets them")
        for name in ("max_tokens", "max_completion_tokens"):
            most = fields.get(name)
            if most is not None and (type(most) is not int or most < 1):
                raise UsageError(f"{name} of judge.fields is {most!r}, but must be an integer of at least 1, or null")

    def key(self) -> str | None:
        """Return the API key; None if the endpoint needs none.

        Raises:
            UsageError: The environment variable is unset, or its value is not a key.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise UsageError(
                f"the environment variable {self.key_variable} with the judge's key is not set; set it, or pass "
                "--judge.key_variable null for an endpoint without keys"
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"the environment variable {self.key_variable} holds characters that are invalid in a key")
        return key

    def client(self) -> ChatClient:
        """Return a client with the key and the time-out.

        Raises:
            UsageError: The package ``openai`` is missing, or :meth:`key` raises.
        """
        return ChatClient(self.base_url, self.key(), self.timeout)

    def body(self, request: Record) -> Record:
        """Return a benchmark's request with the changes of :attr:`fields`."""
        return {name: value for name, value in {**request, **(self.fields or {})}.items() if value is not None}

    def post(self, client: ChatClient, body: Record, attempts: int) -> tuple[Record, int]:
        """Send a request, and repeat it while the endpoint fails.

        Args:
            client: The result of :meth:`client`.
            body: Fields of the request.
            attempts: Maximum requests.

        Returns:
            The reply and how many requests it took. The reply has the first ``choice`` as received, its ``text`` and
            the ``usage``; they are empty if the reply is not a chat completion.

        Raises:
            Refusal: No reply after all attempts.
        """
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            content, used = client.create(body, attempts)
        except APIStatusError as error:
            final = error.status_code in (401, 403, 404) or error.code == "insufficient_quota"
            raise Refusal(self._explained(error), final, error.status_code >= 500) from None
        except APITimeoutError:
            raise Refusal(f"no answer within {self.timeout:g} s") from None
        except APIConnectionError as error:
            raise Refusal(f"no connection: {error.__cause__ or error}") from None
        except UnicodeEncodeError:
            raise Refusal("the request holds a character that UTF-8 cannot encode", silent=False) from None
        return _reply(content), used

    def _explained(self, error: "APIStatusError") -> str:
        """Return the status and the endpoint's message, in which it may repeat the key."""
        said = error.body
        if isinstance(said, dict):
            said = f"{said.get('code') or ''} {said.get('message') or said.get('detail') or ''}".strip()
        if not isinstance(said, str) or not said or said.startswith("<"):  # nothing, or a proxy's page
            said = error.response.reason_phrase
        said = said.replace(key, "...") if (key := self.key()) else said
        limit = "; lower --judge.concurrency or raise --judge.attempts" if error.status_code == 429 else ""
        return f"HTTP {error.status_code} {' '.join(said.split())[:200]}{limit}"


def _is_address(url: str) -> bool:
    """Return whether a URL can be requested."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # raises if not a number
    except ValueError:
        return False
    return bool(known) and url.isascii() and url.isprintable() and " " not in url


def _reply(content: bytes) -> Record:
    """Read a reply without openai's models: they drop nothing, but accept anything as a chat completion."""
    try:
        whole = json.loads(content)
        choice = whole["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls")
        call = calls[0]["function"] if calls else message.get("function_call")
        text = call["arguments"] if call else message["content"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {"choice": {}, "text": "", "usage": {}}
    said = whole.get("usage")
    usage = {name: count for name, count in said.items() if isinstance(count, int)} if isinstance(said, dict) else {}
    return {"choice": choice, "text": text if isinstance(text, str) else "", "usage": usage}
