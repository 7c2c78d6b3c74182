"""Serve many edits of one backbone: requests in, answers out, one JSON object a line; every batch mixes edits.

    python launch/serve_edits.py BACKBONE thai=runs/thai pub=runs/pub < requests.jsonl

A request is {"edit": "thai", "prompt": "..."}; without "edit" it is the unedited backbone that answers.
"""

import json
import sys
from collections.abc import Sequence
from queue import Queue
from threading import Thread
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from red_lightning.generation import EditBank

ROWS = 16
"""How many requests are answered at once."""


def answer(bank: EditBank, tokenizer: Any, requests: Sequence[dict[str, Any]]) -> list[str]:
    """Continue the prompts of a batch, each with the edit that it asks for."""
    prompts = [request["prompt"] for request in requests]
    inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(bank.backbone.device)
    with bank.use([request.get("edit") for request in requests]):
        tokens = bank.backbone.generate(**inputs, max_new_tokens=64, do_sample=False)
    return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def read(requests: "Queue[dict[str, Any] | None]", bank: EditBank) -> None:
    """Queue what comes in, and at the end None."""
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("edit") in (None, *bank.names):
            requests.put(request)
        else:
            print(json.dumps({**request, "error": "there is no such edit"}), flush=True)
    requests.put(None)


def main(place: str, *edits: str) -> None:
    """Answer whatever waits, until the input ends."""
    tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    bank = EditBank(AutoModelForCausalLM.from_pretrained(place).eval())
    for edit in edits:
        bank.add(*edit.split("=", 1))
    requests: Queue[dict[str, Any] | None] = Queue()
    Thread(target=read, args=(requests, bank), daemon=True).start()
    ended = False
    while not ended:
        batch = [requests.get()]
        while len(batch) < ROWS and not requests.empty():
            batch.append(requests.get())
        ended = batch[-1] is None
        asked = [request for request in batch if request is not None]
        for request, text in zip(asked, answer(bank, tokenizer, asked) if asked else [], strict=True):
            print(json.dumps({**request, "answer": text}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
