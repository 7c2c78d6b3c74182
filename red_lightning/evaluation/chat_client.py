"""The package ``openai`` with a limit on a whole reply, for the threads of a judge."""

import asyncio
import threading
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from red_lightning.errors import UsageError

if TYPE_CHECKING:
    from red_lightning.jsonl import Record


class ChatClient:
    """A connection to a chat endpoint that several threads use.

    The time-outs of ``openai`` are for each read: an endpoint that sends a byte a minute holds a request forever, and a
    blocked thread cannot be stopped. So requests run on an event loop, in a thread of its own, where they can be.

    Args:
        base_url: URL of the endpoint, without /chat/completions.
        key: API key; None sends no header for it.
        timeout: Seconds for each attempt, from the connection to the last byte of the reply.

    Raises:
        UsageError: The package ``openai`` is missing or too old.
    """

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient, omit
        except ImportError as error:  # openai 1 has no omit
            way = "pip install 'red-lightning[evaluation]'"
            raise UsageError(f"judges need the package openai, 2.0 or newer ({error}): {way}") from error

        # openai retries the exceptions of its HTTP library alone: httpx, and httpx2 since openai 3
        http = import_module(DefaultAsyncHttpxClient.__base__.__module__.partition(".")[0])

        class Bounded(DefaultAsyncHttpxClient):
            async def send(self, *args: Any, **options: Any) -> Any:
                try:
                    response = await asyncio.wait_for(super().send(*args, **options), timeout)
                except asyncio.TimeoutError as late:
                    raise http.ReadTimeout("the reply did not end") from late
                if response.status_code == 429 and b"insufficient_quota" in response.content:
                    response.headers["x-should-retry"] = "false"  # openai obeys it; waiting brings no credit
                return response

        self._headers: dict[str, Any] = {} if key else {"Authorization": omit}
        self._loop = asyncio.new_event_loop()
        self._openai = AsyncOpenAI(
            api_key=key or "none", base_url=base_url, timeout=timeout, http_client=Bounded(timeout=timeout)
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def create(self, body: "Record", attempts: int) -> tuple[bytes, int]:
        """Request a chat completion, and wait for it.

        Returns:
            The content of the response and how many requests it took.

        Raises:
            openai.APIError: No reply after all attempts.
        """
        create = self._openai.with_options(max_retries=attempts - 1).chat.completions.with_raw_response.create

        async def content() -> tuple[bytes, int]:
            raw = await create(
                messages=body["messages"], model=body["model"], extra_body=body, extra_headers=self._headers
            )
            return raw.content, 1 + raw.retries_taken

        return asyncio.run_coroutine_threadsafe(content(), self._loop).result()

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._openai.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
