"""A client of the hub's stand-in that pushes edits and loads them back; it prints what it found as one JSON object.

The backbone is ``org/gpt2``; ``private/gpt2`` is a folder of the same weights, and the token is of the user tester.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import torch
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import save_file
from torch import nn

import red_lightning
from red_lightning.__main__ import main
from red_lightning.adapters import save_edits
from red_lightning.backbones import loading
from red_lightning.backbones.fingerprint import fingerprint, summary
from red_lightning.export import hub_repository
from red_lightning.methods import RED
from tests.export.exports import logits

LARGE = 600_000  # bytes, more than the server takes


def leave_run(run: Path, name: str, seed: int = 0) -> nn.Module:
    """Leave a run of random edits behind, whose record and config name folders of this machine."""
    source = loading.find(name, loading.BackboneOptions())
    model = loading.load_generator(source, loading.BackboneOptions())
    record = {
        "backbone": name,
        "commit": source.commit,
        "fingerprint": fingerprint(model),
        "architecture": summary(source.config),
        "task": "DataToText",
        "data": {"class": "TextPairs", "files": {"train": "/home/alice/secret/rows.csv", "test": "~/t.csv"}},
        "scores": {"BLEU": 0.5, "METEOR": None},
        "seed": 1,
    }
    learned = RED().apply(model)
    for number, vector in enumerate(learned.values()):
        vector.data += 0.1 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed + number))
    save_edits(run / "edits", learned, {**record, "method": RED().describe()})
    config = {
        "model": {"init_args": {"learning_rate": 0.0125}},
        "data": {"init_args": {"train_file": "/home/alice/secret/rows.csv", "global_batch_size": 8}},
        "trainer": {"default_root_dir": "/home/alice/runs", "gradient_clip_val": 1.0},
    }
    (run / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    results = {"train": {"steps": 77}, "baseline": "unedited", "baseline_scores": {"BLEU": 0.25}}
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return model.eval()


def push(*args: str) -> dict[str, Any]:
    """Run the command; what it said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["push", *args])
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def state(name: str, revision: str = "main") -> list[Any]:
    """The commit and the files of a repository."""
    info = HfApi().model_info(name, revision=revision)
    return [info.sha, sorted(file.rfilename for file in info.siblings or ())]


def text_of(name: str, file: str) -> str:
    return Path(hf_hub_download(name, file)).read_text(encoding="utf-8")


class Breaking(BaseHTTPRequestHandler):
    """Hands requests on to the hub, but for a commit, of which the connection breaks."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if "/commit/" in self.path:
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = Request(os.environ["HF_ENDPOINT"] + self.path, body or None, headers, method=self.command)
        with urlopen(request) as answer:
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.read())

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def breaking_at_the_commit() -> Iterator[None]:
    """The hub behind a connection that breaks."""
    endpoint = constants.ENDPOINT
    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        constants.ENDPOINT = f"http://127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            constants.ENDPOINT = endpoint
            server.shutdown()


def as_edits() -> dict[str, Any]:
    """Pushed, loaded back, pushed again, and pushed anew."""
    model = leave_run(Path("run"), "org/gpt2")
    first, held = push("run", "--to", "tester/edits"), state("tester/edits")
    back = red_lightning.load("tester/edits")
    again = push("run", "--to", "tester/edits")
    other = leave_run(Path("run"), "org/gpt2", seed=9)
    third = push("run", "--to", "tester/edits", "--message", "better")
    newer = red_lightning.load("tester/edits")
    branch = push("run", "--to", "tester/edits", "--branch", "trial")
    return {
        "said": [first, again, third, branch],
        "state": held,
        "states": [state("tester/edits"), state("tester/edits", "trial")],
        "equal": [
            torch.equal(logits(back.backbone), logits(model)),
            torch.equal(logits(newer.backbone), logits(other)),
        ],
        "old": torch.equal(logits(red_lightning.load("tester/edits", revision=held[0]).backbone), logits(model)),
        "changed": not torch.equal(logits(model), logits(other)),
        "card": text_of("tester/edits", "README.md"),
        "record": text_of("tester/edits", "edits.json"),
    }


def of_a_folder() -> dict[str, Any]:
    """Edits whose backbone is a folder of this machine."""
    model = leave_run(Path("local"), str(Path("private/gpt2").absolute()))
    refused = push("local", "--to", "tester/local")
    wrong = push("local", "--to", "tester/local", "--backbone", "org/wide")
    done = push("local", "--to", "tester/local", "--backbone", "org/gpt2", "--private", "true", "--license", "mit")
    try:
        HfApi(token=False).model_info("tester/local")
        hidden = False
    except RepositoryNotFoundError:
        hidden = True
    loaded = red_lightning.load("tester/local").backbone
    return {
        "said": [refused, wrong, done],
        "hidden": hidden,
        "equal": torch.equal(logits(loaded), logits(model)),
        "record": text_of("tester/local", "edits.json"),
    }


def as_merged() -> dict[str, Any]:
    """A merged model; what it holds is compared by the caller."""
    model = leave_run(Path("fold"), "org/gpt2", seed=3)
    save_file({"logits": logits(model)}, "edited.safetensors")
    done = push("fold", "--to", "tester/merged", "--format", "merged", "--scratch", ".")
    return {
        "said": [done],
        "state": state("tester/merged"),
        "card": text_of("tester/merged", "README.md"),
        "left": sorted(path.name for path in Path().glob("red_lightning_*")),
    }


def refused() -> dict[str, Any]:
    """Every push that changes nothing, by what stands in its way; and one that may replace what is there."""
    before = [state("tester/edits"), state("tester/merged")]
    said = {
        "merged over edits": push("run", "--to", "tester/edits", "--format", "merged"),
        "edits over merged": push("run", "--to", "tester/merged"),
        "public": push("run", "--to", "tester/edits", "--private", "true"),
        "namespace": push("run", "--to", "somebody/edits"),
    }
    leave_run(Path("wide"), "org/wide")
    said["backbone"] = push("wide", "--to", "tester/edits")
    said["model"] = push("wide", "--to", "tester/merged", "--format", "merged")
    Path("large.md").write_text("---\nlicense: mit\n---\n" + "a" * LARGE, encoding="utf-8")
    said["large"] = push("run", "--to", "tester/edits", "--card", "large.md")

    create = HfApi.create_commit
    leave_run(Path("run"), "org/gpt2", seed=20)

    with breaking_at_the_commit():
        said["lost"] = push("run", "--to", "tester/edits")
    os.environ["HF_TOKEN"] = "hf_wrong"
    said["wrong token"] = push("run", "--to", "tester/edits")
    del os.environ["HF_TOKEN"]
    said["no token"] = push("run", "--to", "tester/edits")
    os.environ["HF_TOKEN"] = "hf_test"
    after = [state("tester/edits"), state("tester/merged")]

    find = hub_repository.HfApi.whoami

    def of_an_organization(self: HfApi) -> dict[str, Any]:
        return {**find(self), "type": "org"}  # whose rights the client cannot know beforehand

    HfApi.whoami = of_an_organization  # type: ignore[method-assign, assignment]
    said["server"] = push("run", "--to", "somebody/edits")
    HfApi.whoami = find  # type: ignore[method-assign]

    def meanwhile(self: HfApi, name: str, operations: Any, **options: Any) -> Any:
        create(
            self,
            name,
            [hub_repository.CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n")],
            commit_message="x",
        )
        return create(self, name, operations, **options)

    HfApi.create_commit = meanwhile  # type: ignore[method-assign, assignment]
    said["meanwhile"] = push("run", "--to", "tester/edits")
    HfApi.create_commit = create  # type: ignore[method-assign]
    theirs = text_of("tester/edits", "README.md")
    over = push("fold", "--to", "tester/edits", "--format", "merged", "--overwrite", "true")
    return {
        "said": said,
        "unchanged": before == after,
        "theirs": theirs,
        "over": over,
        "state": state("tester/edits"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {part.__name__: part() for part in (as_edits, of_a_folder, as_merged, refused)}
    json.dump(found, sys.stdout)
