"""A judge on localhost with scripted replies and failures."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[dict[str, Any], int], Any]
"""Maps a request's body, and the number of equal requests before it, to a text, a JSON reply or a failure."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class Failure:
    """A reply with a status, headers and a body. Status 0 closes the connection; None never ends its answer,
    the body of which is sent byte by byte."""

    def __init__(self, status: int | None, body: str = "", **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Stub:
    """The requests that the judge received.

    Attributes:
        behaviour: Its script.
        requests: Bodies, in order of arrival.
        headers: The requests' headers, with names in title case.
        asked: Number of requests by body.
        url: Base URL.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked: Counter[str] = Counter()
        self.changed = threading.Condition()
        self.closing = threading.Event()
        self.url = ""

    def note(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        with self.changed:
            self.requests.append(body)
            self.headers.append({name.title(): value for name, value in headers.items()})
            key = json.dumps(body, sort_keys=True)
            self.asked[key] += 1
            self.changed.notify_all()
            return self.asked[key] - 1

    def wait_for(self, count: int) -> None:
        """Wait until a number of requests arrived."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, timeout=120)


def reply(text: str | None, **choice: Any) -> str:
    """A reply in OpenAI's format."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, **choice}], "usage": USAGE})


@contextmanager
def judge_stub(behaviour: Behaviour) -> Iterator[Stub]:
    """Serve a judge within the context."""
    stub = Stub(behaviour)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            answer = stub.behaviour(body, stub.note(body, dict(self.headers)))
            if not isinstance(answer, Failure):
                answer = Failure(200, answer if answer.startswith("{") else reply(answer))
            if answer.status is None:
                for drop in itertools.chain(answer.body.encode(), itertools.repeat(32)) if answer.body else ():
                    if stub.closing.wait(0.02):
                        break
                    self.wfile.write(bytes([drop]))
                stub.closing.wait(120)
            if answer.status:
                content = answer.body.encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            self.close_connection = True

        def do_GET(self) -> None:
            stub.note({"redirected": True}, dict(self.headers))
            self.send_error(500)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign, assignment]  # clients may be gone
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        server.shutdown()
        server.server_close()
