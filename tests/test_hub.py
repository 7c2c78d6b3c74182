"""Names of folders and repositories; and, marked slow, the hub itself, served on this machine."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

import red_lightning
from red_lightning import hub
from red_lightning.adapters.edited import find_edits, has_edits
from red_lightning.errors import UsageError
from red_lightning.export.hub_repository import find_remote
from red_lightning.generation.generators import open_model

DEAD = "http://127.0.0.1:9"
Client = Callable[..., dict[str, Any]]


def test_a_shipped_backbone_has_a_folder() -> None:
    folder = hub.local_folder("quickstart")
    assert folder is not None and (folder / "config.json").is_file()


def test_names_of_folders_and_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "org/model").mkdir(parents=True)
    assert hub.local_folder("org/model") == Path("org/model")
    assert hub.local_folder("~/org") == tmp_path / "org"
    assert hub.local_folder(str(tmp_path)) == tmp_path
    assert hub.local_folder("org/other") is None
    assert hub.local_folder("gpt2") is None
    for name in ("./org/other", "~/other", "/org/other", "org/other/third", "runs/none"):
        with pytest.raises(UsageError, match=f"the folder '{name}' does not exist"):
            hub.local_folder(name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that says OK to HEAD /, or nothing if ``silent`` is among what it was asked; else it is silent."""
    seen: list[str] = []
    over = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path}")
            if self.command == "HEAD" and "silent" not in seen:
                self.send_response(200)
                self.end_headers()
            else:
                over.wait(30)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": False}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
        monkeypatch.setattr(hub, "SILENT_SECONDS", 0.3)
        monkeypatch.setattr(hub, "REMEMBERED_SECONDS", 1e9)
        hub._answers.cache_clear()
        yield seen
        hub._answers.cache_clear()
        over.set()
        server.shutdown()


def test_a_hub_that_never_answers_is_asked_once(asked: list[str]) -> None:
    asked.append("silent")
    for reach in (
        lambda: red_lightning.load("me/mine"),
        lambda: open_model("me/mine"),
        lambda: find_remote("me/mine", "main", False),
    ):
        with pytest.raises(UsageError, match=r"http://127.0.0.1:\d+ cannot be reached"):
            reach()
    assert hub.offline() and asked.count("HEAD /") == 1


def test_a_hub_that_falls_silent_is_given_up(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(UsageError, match=r"the connection to http://127.0.0.1:\d+ broke off \(ReadTimeout\)"):
        find_remote("me/mine", "main", False)
    assert "GET /api/whoami-v2" in asked
    unanswered = Mock(side_effect=LocalEntryNotFoundError("after all retries"))
    monkeypatch.setattr("red_lightning.adapters.edited.hf_hub_download", unanswered)
    for reach in (find_edits, has_edits):
        with pytest.raises(UsageError, match=r"'me/mine' is not on this machine and .* cannot be reached"):
            reach("me/mine")
    assert unanswered.call_count == 2
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not has_edits("me/mine")  # which may be a model on this machine


@pytest.fixture(scope="session")
def endpoint(shared: Path) -> Iterator[str]:
    """A hub on this machine."""
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        with import_module("serve").serve() as address:
            yield address
    finally:
        sys.path.remove(str(shared / "hub_server"))


@pytest.fixture(scope="session")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that several tests fill."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(endpoint: str) -> Client:
    """Runs code in a process of its own; what it assigns to ``result``, or its complaint, comes back."""

    def run(code: str, home: Path, server: str = endpoint, **environment: str) -> dict[str, Any]:
        env = {**import_module("serve").client_env(server, home), **environment}
        started = time.monotonic()
        child = subprocess.run(
            [sys.executable, "-c", PRELUDE.format(code=textwrap.indent(textwrap.dedent(code), "    "))],
            env=env,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return {**answer, "wall": time.monotonic() - started}

    return run


PRELUDE = """
import json, time
from red_lightning import RED
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.data import E2E
from red_lightning.data.hub_rows import hub_commit, hub_rows
from red_lightning.errors import UsageError
import datasets

def load(name, **options):
    options = BackboneOptions(**options)
    source = find(name, options)
    tokenizer = load_tokenizer(source, options)
    return source, tokenizer, load_generator(source, options)

started = time.monotonic()
result = error = None
try:
{code}
except UsageError as refusal:
    error = str(refusal)
print()
print(json.dumps({{"result": result, "error": error, "seconds": time.monotonic() - started}}))
"""
LOAD = """
source, tokenizer, model = load({name!r})
folder, _, theirs = load({folder!r})
result = [source.commit, type(model).__name__, tokenizer.pad_token, fingerprint(model) == fingerprint(theirs)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "pad"),
    [
        ("openai-community/gpt2-medium", "GPT2LMHeadModel", "<|endoftext|>"),
        ("google-t5/t5-base", "T5ForConditionalGeneration", "<pad>"),
    ],
)
def test_backbones_load_by_their_id(
    name: str, model: str, pad: str, client: Client, used_home: Path, shared: Path
) -> None:
    code = LOAD.format(name=name, folder=str(shared / "hub" / name))
    online = client(code, used_home)
    commit, *rest = online["result"]
    assert rest == [model, pad, True]
    assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    by_commit = client(f"result = load({name!r}, revision={commit!r})[0].commit", used_home)
    assert by_commit["result"] == commit
    for environment in ({"server": DEAD}, {"HF_HUB_OFFLINE": "1"}):  # from the cache
        offline = client(code, used_home, **environment)
        assert offline["result"] == online["result"]
        assert offline["seconds"] < 15


E2E_CODE = """
data = E2E()
rows = data.read("test")
result = [len(rows), rows[0], data.provenance()]
"""


@pytest.mark.slow
def test_e2e_loads_by_its_id(client: Client, tmp_path: Path, shared: Path) -> None:
    online = client(E2E_CODE, tmp_path)
    count, first, provenance = online["result"]
    assert count == 4_693
    assert first["source"].startswith("name[") and first["target"].endswith(".")
    assert provenance["revision"] == "refs/convert/parquet"
    assert len(provenance["commit"]) == 40
    for environment in ({"server": DEAD}, {"HF_HUB_OFFLINE": "1"}):
        offline = client(E2E_CODE, tmp_path, **environment)
        assert offline["result"][:2] == [count, first]
        assert offline["result"][2] == {**provenance, "commit": None}
        assert offline["seconds"] < 15


REFUSALS = {
    "no such backbone": ('load("openai-community/gpt3")', "does not exist, neither as a folder nor on"),
    "one word": ('load("nonsense")', "'nonsense' does not exist"),
    "no name": ('load("two words/x y")', "neither a folder nor a hub id"),
    "no such revision": ('load("google-t5/t5-base", revision="v9")', "has no revision 'v9'"),
    "gated": ('load("meta-llama/Llama-2-7b-hf")', "is gated: accept its conditions at"),
    "a data set": ('load("tuetschek/e2e_nlg")', "does not exist"),
    "no such data": ('E2E("tuetschek/nothing").read("test")', "cannot be found: check the id"),
    "no such data revision": ('E2E(revision="v9").read("test")', "'tuetschek/e2e_nlg'"),
    "a script": ('E2E(revision="main").read("test")', "'tuetschek/e2e_nlg'"),
    "no such split": ('hub_rows("tuetschek/e2e_nlg", "dev", ["x"], "refs/convert/parquet")', "split 'dev'"),
    "no such column": (
        'hub_rows("tuetschek/e2e_nlg", "test", ["human_ref"], "refs/convert/parquet")',
        "did you mean 'human_reference'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals_are_one_sentence(refusal: str, client: Client, tmp_path: Path) -> None:
    code, complaint = REFUSALS[refusal]
    answer = client(code, tmp_path)
    assert answer["error"] is not None
    assert complaint in answer["error"] and "\n" not in answer["error"]
    assert answer["seconds"] < 15


@pytest.mark.slow
def test_a_gated_backbone_opens_with_the_token(client: Client, tmp_path: Path) -> None:
    code = 'source, tokenizer, model = load("meta-llama/Llama-2-7b-hf", dtype="float16")\n'
    code += "result = [str(model.dtype), tokenizer.pad_token, len(RED().apply(model))]"
    dtype, pad, count = client(code, tmp_path, HF_TOKEN="hf_test")["result"]
    assert (dtype, pad) == ("torch.float16", "</s>")
    assert count % 2 == 0
    assert "is gated" in client(code, tmp_path / "other", HF_TOKEN="hf_wrong")["error"]


@pytest.mark.slow
@pytest.mark.parametrize("code", ['load("google-t5/t5-base")', 'E2E().read("test")', 'load("gpt2")'])
@pytest.mark.parametrize("switched_off", [False, True])
def test_without_a_network_the_answer_comes_soon(code: str, switched_off: bool, client: Client, tmp_path: Path) -> None:
    answer = client(code, tmp_path, server=DEAD, **({"HF_HUB_OFFLINE": "1"} if switched_off else {}))
    why = "HF_HUB_OFFLINE is set" if switched_off else f"{DEAD} cannot be reached"
    assert f"is not on this machine and {why}" in answer["error"]
    assert "\n" not in answer["error"]
    assert answer["wall"] < 15 + 20  # 20 seconds to start Python and import everything
    assert answer["seconds"] < 15
