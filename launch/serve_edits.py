"""Serve many edits of one backbone: requests in, answers out, one JSON object a line, in the order of the requests.

    python launch/serve_edits.py BACKBONE thai=runs/thai pub=runs/pub < requests.jsonl

A request is {"edit": "thai", "prompt": "..."} (without "edit" the backbone answers), and its answer that of
`python -m red_lightning generate runs/thai`. A batch mixes all edits with one kind of prompt and one decoding.
--trust=my_package allows the import of methods that are not part of red_lightning.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import islice
from queue import Queue
from threading import Thread
from typing import Any

from red_lightning.adapters import find_edits
from red_lightning.adapters.edited import Edited, trained_options
from red_lightning.adapters.file_format import read_record
from red_lightning.data.layouts import COLUMNS
from red_lightning.errors import UsageError
from red_lightning.generation import EditBank, Writer
from red_lightning.generation.generators import open_model

ROWS = 16
"""How many requests are answered at once."""

Line = dict[str, Any]
Writers = dict[str | None, Writer]


def load(backbone: str, edits: list[str], trust: Sequence[str] = ()) -> tuple[EditBank, Writers]:
    """The bank with all edits, and how each of them reads a prompt and decodes; None for the backbone's own way."""
    named = dict(edit.partition("=")[::2] for edit in edits)
    if len(named) < len(edits) or not all((*named, *named.values())):
        raise UsageError("give each edit another name and its run, as in thai=runs/thai")
    records = {name: read_record(find_edits(place)) for name, place in named.items()}
    options = [trained_options(record, backbone) for record in records.values()]
    if odd := [name for name, its in zip(records, options, strict=True) if its != options[0]]:
        raise UsageError(f"'{odd[0]}' was trained in another number format than '{edits[0]}'; serve it apart")
    model = open_model(None, backbone, options=options[0] if options else None)
    bank = EditBank(model.backbone)
    for name, place in named.items():
        bank.add(name, place, trust)
    writers: Writers = {None: Writer(model, batch_size=ROWS)}
    for name, record in records.items():
        writers[name] = Writer(Edited(bank.backbone, model.tokenizer, None, record), batch_size=ROWS)
    return bank, writers


def parse(line: bytes, writers: Writers) -> tuple[Line, list[int]]:
    """A request and the tokens of its prompt; or what is wrong with it, and no tokens."""
    request: Any = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not isinstance(request.get("prompt"), str | list):
            raise UsageError('a request is an object such as {"edit": "thai", "prompt": "..."}')
        if unread := [key for key in COLUMNS if key != "prompt" and key in request]:
            raise UsageError(f"the request has '{unread[0]}', which is not read; put it into the messages of 'prompt'")
        name = request.get("edit")
        if not isinstance(name, str | None) or name not in writers:
            raise UsageError(f"there is no such edit; there are {', '.join(filter(None, writers))}")
        if isinstance(request["prompt"], list) and not writers[name].prompts.converses:
            raise UsageError("the prompt is a conversation, but this edit continues texts; give a text")
        return request, writers[name].encode([request["prompt"]], ["the prompt"])[0]
    except (UsageError, ValueError, RecursionError) as error:  # what is no JSON is a ValueError
        known = request if isinstance(request, dict) else {"request": line.decode(errors="replace").strip()}
        return {**known, "error": str(error)}, []


def answer(lines: list[bytes], bank: EditBank, writers: Writers) -> list[Line]:
    """Answer some requests."""
    asked = [parse(line, writers) for line in lines]
    alike: dict[tuple[str, str], list[int]] = {}
    for index, (request, tokens) in enumerate(asked):
        if tokens:
            writer = writers[request.get("edit")]
            alike.setdefault((writer.prompts.style, repr(writer.decoding)), []).append(index)
    for indices in alike.values():
        requests = [asked[index][0] for index in indices]

        def use(rows: list[int], requests: list[Line] = requests) -> AbstractContextManager[None]:
            return bank.use([requests[row].get("edit") for row in rows])

        for batch in writers[requests[0].get("edit")].batches([asked[index][1] for index in indices], use):
            for row, text in batch.items():
                requests[row]["answer"] = text
    return [request for request, _ in asked]


def main(args: list[str]) -> None:
    """Answer whatever waits, until the input ends."""
    trust = [arg.removeprefix("--trust=") for arg in args if arg.startswith("--trust=")]
    args = [arg for arg in args if not arg.startswith("--trust=")]
    if not args:
        raise UsageError("give the backbone and its edits: serve_edits.py BACKBONE thai=runs/thai pub=runs/pub")
    bank, writers = load(args[0], args[1:], trust)
    queue: Queue[bytes] = Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            queue.put(line)
        queue.put(b"")  # the end

    Thread(target=read, daemon=True).start()
    waiting = iter(queue.get, b"")
    for first in waiting:
        lines = [first, *islice(waiting, min(queue.qsize(), ROWS - 1))]
        for said in answer([line for line in lines if line.strip()], bank, writers):
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"error: {error}")
