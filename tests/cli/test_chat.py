"""``chat``: a conversation through a terminal, or through a pipe."""

import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning import RED, generation, load, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.cli.chat import printable
from red_lightning.generation import Writer
from tests.backbones_zoo import save_backbone
from tests.cli.commands import command_line, environment, rows
from tests.cli.conftest import CLI, Outcome

Talk = Callable[..., Outcome]


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """Random edits of a tiny Llama for instructions."""
    folder = save_backbone("llama", tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    record = {
        "backbone": str(folder),
        "commit": None,
        "fingerprint": fingerprint(model),
        "method": RED().describe(),
        "task": "InstructionTuning",
        "data": {"template": "paper"},
        "decoding": {"num_beams": 1, "max_new_tokens": 6, "stop_at_blank_line": False},
    }
    learned = RED().apply(model)
    for number, vector in enumerate(learned.values()):
        vector.data += 0.5 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(number))
    save_edits(tmp_path / "runs/one/edits", learned, record)
    return tmp_path / "runs/one"


@pytest.fixture
def talk(cli: CLI, edits: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs a chat on some lines of input."""

    def run(lines: list[str], *options: str) -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return cli("chat", "runs/one", *options)

    return run


def answers(edits: Path, *questions: str, edited: bool = True, system: str | None = None) -> list[dict[str, str]]:
    """A conversation turn by turn, each answer from a whole conversation."""
    writer = Writer(load(edits))
    messages = [{"role": "system", "content": system}] if system else []
    for question in questions:
        messages.append({"role": "user", "content": question})
        if edited:
            text = writer.answer([messages])[0]
        else:
            with writer.unedited():
                text = writer.answer([messages])[0]
        messages.append({"role": "assistant", "content": text})
    return messages


def test_a_full_memory_ends_no_chat(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = generation.writer.decode, []

    def full_at_first(*args: Any, **options: Any) -> list[str]:
        calls.append(args)
        return [str(torch.empty(1 << 60))] if len(calls) == 1 else decode(*args, **options)

    monkeypatch.setattr(generation.writer, "decode", full_at_first)
    done = talk(["Who serves Thai food?", "And where?"])
    assert done.status == 0 and "error: the memory is full while texts are written; lower" in done.out
    assert len(calls) == 2 and done.out.count("error: ") == 1


def test_a_pipe_is_answered_line_by_line(edits: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command_line("chat", "runs/one", "--system", "Be brief."),
        cwd=tmp_path,
        env=environment(),
        input=b"Who serves Thai food?\n\xff?\n/\xff\nAnd where?\n/save chat.jsonl\n",
        capture_output=True,
        timeout=300,
    )
    said = done.stdout.decode()
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert "error: your message is no UTF-8 text" in said and "error: unknown command '/\ufffd'" in said
    expected = answers(edits, "Who serves Thai food?", "And where?", system="Be brief.")
    assert rows(tmp_path / "chat.jsonl") == [{"model": "answer", "messages": expected}]
    assert "template paper" in said.splitlines()[0]
    for message in expected[2::2]:
        assert printable(message["content"]) in said


def test_edited_and_unedited_answer_side_by_side(talk: Talk, edits: Path, tmp_path: Path) -> None:
    done = talk(["Who serves Thai food?", "And where?", "/save chat.jsonl"], "--compare", "true")
    assert done.status == 0, done.err
    questions = ("Who serves Thai food?", "And where?")
    expected = {"RED": answers(edits, *questions), "unedited": answers(edits, *questions, edited=False)}
    assert expected["RED"] != expected["unedited"]
    assert rows(tmp_path / "chat.jsonl") == [{"model": name, "messages": said} for name, said in expected.items()]
    assert "RED" in done.out and "unedited" in done.out


def test_commands(talk: Talk, edits: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    lines = [
        "A?",
        "/undo",
        "/undo",
        "B?",
        "/save b.jsonl",
        "/reset",
        "C?",
        "/save c.jsonl",
        "/save mine.txt",
        "/save",
        "/save runs",
    ]
    done = talk([*lines, "/sav x", "/help", "", "/quit", "never read"])
    assert done.status == 0
    said = {name: json.loads((tmp_path / name).read_text())["messages"] for name in ("b.jsonl", "c.jsonl")}
    assert said == {"b.jsonl": answers(edits, "B?"), "c.jsonl": answers(edits, "C?")}
    assert (tmp_path / "mine.txt").read_text() == "mine"
    for shown in (
        "the last message and its answer are forgotten",
        "there is nothing to undo",
        "a new conversation begins",
        "error: 'mine.txt' cannot be written: File exists",
        "error: 'runs' is a folder; give the name of a file",
        "error: /save needs the name of a file",
        "error: unknown command '/sav': did you mean '/save'?",
        "/reset  begin a new conversation",
    ):
        assert shown in done.out


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(
    talk: Talk, edits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = Writer.stream

    def interrupted(self: Writer, prompt: list[dict[str, str]], say: Callable[[str], None], where: str) -> str:
        if prompt[-1]["content"] == "A?":
            say("So far")
            raise KeyboardInterrupt
        return stream(self, prompt, say, where)

    monkeypatch.setattr(Writer, "stream", interrupted)
    done = talk(["A?", "/save a.jsonl", "B?"])
    assert done.status == 0 and "stopped" in done.out
    (row,) = rows(tmp_path / "a.jsonl")
    assert [message["content"] for message in row["messages"]] == ["A?", "So far"]


@pytest.mark.slow
def test_a_terminal_is_read_and_interrupted_like_one(edits: Path, tmp_path: Path) -> None:
    """Real keys: Ctrl-C while an answer comes, Ctrl-C at the prompt, and Ctrl-D."""
    import pty

    config = tmp_path / "llama/config.json"  # room for an answer without an end
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 8192}))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        endless = ["--decoding.max_new_tokens", "8000", "--decoding.no_repeat_ngram_size", "0"]
        os.execve(sys.executable, command_line("chat", "runs/one", *endless), environment(TERM="xterm"))
    seen = ""

    def read() -> str:
        assert select.select([terminal], [], [], 200)[0], f"nothing came behind {seen!r}"
        return os.read(terminal, 4096).decode(errors="replace")

    def until(shown: str) -> None:
        nonlocal seen
        while shown not in seen:
            seen += read()
        seen = seen.partition(shown)[2]

    until("> ")
    os.write(terminal, b"Hello\n")
    until("Hello\r\n")
    while not seen:  # the answer has begun
        seen += read()
    os.write(terminal, b"\x03")
    until("stopped")
    until("> ")
    os.write(terminal, b"\x03")
    until("Ctrl-D or /quit ends the chat")
    until("> ")
    os.write(terminal, b"\x04")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_does_not_fit_is_said(talk: Talk) -> None:
    done = talk(["word " * 200, *(f"{'more ' * 25}{n}?" for n in range(4))])
    assert done.status == 0
    assert "error: your message has" in done.out and "256 positions; shorten it\n" in done.out
    assert "the context is full: the oldest exchange of the conversation" in done.out


def test_refusals_come_before_the_first_line(talk: Talk, cli: CLI, edits: Path) -> None:
    assert "this model continues texts" in talk([], "--system", "x", "--template", "plain").error
    assert "give EDITS" in talk([], "--compare", "true", "--edited", "false").error
    assert "name a run's edits" in cli("chat").error


def test_nothing_that_is_written_steers_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\r\n\tc\x9b\udcff") == "a\ufffd[2Jb\ufffd\ufffd\n\tc\ufffd\ufffd"
