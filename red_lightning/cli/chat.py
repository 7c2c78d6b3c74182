"""``chat``: a conversation in the terminal."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.errors import UsageError, nearest, printable
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.prompts import PromptStyle, TemplateChanges

if TYPE_CHECKING:
    from red_lightning.generation.conversation import Conversation, Reply

COMMANDS = {
    "/reset": "begin a new conversation",
    "/undo": "take the last message and its answer back",
    "/save": "write the conversation to a file: /save FILE.jsonl",
    "/help": "show these commands",
    "/quit": "end the chat, as Ctrl-D does; Ctrl-C stops an answer",
}


def chat(
    edits: str | None = None,
    compare: bool = False,
    system: str | None = None,
    edited: bool = True,
    backbone: str | None = None,
    revision: str | None = None,
    template: PromptStyle | None = None,
    template_settings: TemplateChanges = TemplateChanges(),  # noqa: B008 - never changed
    decoding: DecodingChanges = DecodingChanges(),  # noqa: B008 - never changed
    backbone_options: BackboneOptions | None = None,
    device: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Chat in the terminal with an adapter, or with a model without one.

    Answers are streamed. Template and decoding are those of the run. If the conversation exceeds the context, its
    oldest turns are dropped with a note. /help lists the commands. The adapter comes first.

        chat runs/mine
        chat runs/mine --compare true

    Args:
        edits: A run's folder, its edits/ folder, a model folder, or a hub repository with an adapter or a model.
        compare: Show the answer of the unedited backbone beside each answer. Each side has its own conversation.
        system: System message at the start of the conversation.
        edited: Attach the adapter. false chats with the unedited backbone, and the run's template and decoding.
        backbone: Folder or hub id of the backbone. Without an adapter: the model to chat with.
        revision: Branch, tag or commit of the adapter's hub repository.
        template: Prompt format: paper or chat; or source or plain, which treat each message alone. Default: that of the
            training. For a model without an adapter: chat if its tokenizer has a chat template, otherwise plain.
        template_settings: Settings of the template that replace those of the training.
        decoding: Decoding options that replace those of the run.
        backbone_options: How the backbone is loaded, such as --backbone_options.dtype bfloat16. Default: the dtype and
            quantization of the training, and the dtype of its files for a model without an adapter.
        device: Device, such as cuda:1. Default: a GPU if there is one.
        trust: Packages to import custom methods from, such as my_package. Their code runs on this machine. Needed only
            for adapters of methods outside red_lightning.

    Raises:
        UsageError: There is no such model, or its edits cannot be switched off.
    """
    from red_lightning.generation import Writer
    from red_lightning.generation.conversation import Conversation
    from red_lightning.generation.generators import open_model

    model = open_model(edits, backbone, revision, backbone_options, device, edited, trust=trust)
    writer = Writer(model, None, template, changes=template_settings)
    writer.decoding = decoding.of(writer.decoding)
    if system and not writer.prompts.converses:
        raise UsageError(
            "--system precedes a conversation, but this model continues texts; give --template paper or chat"
        )
    if system:
        writer.prompts.require_system(system)
    if not compare:
        Chat({"answer": Conversation(writer, system)}).run()
        return
    if not edited or not model.record:
        raise UsageError("--compare shows a run's edits beside their backbone: give EDITS, and leave --edited out")
    with writer.unedited():
        pass  # what cannot be switched off is refused now
    sides = {model.record["method"]["name"]: True, "unedited": False}
    Chat({name: Conversation(writer, system, on) for name, on in sides.items()}).run()


class Chat:
    """Reads lines until their end, and answers each in every conversation.

    Args:
        conversations: The conversations by name; two stand side by side.
        read: Reads a line, as :func:`input` does.
    """

    def __init__(self, conversations: "dict[str, Conversation]", read: Callable[[str], str] = input) -> None:
        from rich.console import Console

        self.conversations, self.read = conversations, read
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=len(conversations) == 1)
        self.prompt = "> " if sys.stdin.isatty() else ""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is refused alone

    def run(self) -> None:
        """Go on until Ctrl-D or /quit."""
        if self.prompt:
            import readline  # noqa: F401 - gives input() a history and its keys

        first = next(iter(self.conversations.values())).writer
        kind = "conversation" if first.prompts.converses else "each message stands alone"
        self._note(
            f"{first.edited.backbone.config.model_type}, template {first.prompts.style} ({kind}); "
            "/help shows the commands"
        )
        while True:
            try:
                line = self.read(self.prompt).strip()
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self._note("\nCtrl-D or /quit ends the chat")
                continue
            if line == "/quit":
                return
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        """Do what a command says, or answer."""
        try:
            if line.startswith("/"):
                self._command(*line.split(maxsplit=1))
            elif len(self.conversations) == 1:
                (conversation,) = self.conversations.values()
                reply = conversation.ask(line, lambda piece: self.console.print(printable(piece), end=""))
                self.console.print()
                self._say_more(reply)
            else:
                self._answer_side_by_side(line)
        except UsageError as error:
            self._note(f"error: {error}")

    def _command(self, name: str, value: str = "") -> None:
        conversations = self.conversations.values()
        if name == "/reset":
            for conversation in conversations:
                conversation.reset()
            self._note("a new conversation begins")
        elif name == "/undo":
            undone = [conversation.undo() for conversation in conversations]
            self._note("the last message and its answer are forgotten" if any(undone) else "there is nothing to undo")
        elif name == "/save":
            self._save(value)
        elif name == "/help":
            self._note("\n".join(f"{command:<7} {what}" for command, what in COMMANDS.items()))
        else:
            raise UsageError(f"unknown command '{name}': {nearest(name, COMMANDS)}")

    def _save(self, file: str) -> None:
        """Write each conversation as a row of JSONL, which instruction tuning can read."""
        if not file:
            raise UsageError("/save needs the name of a file, such as /save chat.jsonl")
        if Path(file).expanduser().is_dir():
            raise UsageError(f"'{file}' is a folder; give the name of a file in it")
        rows = [{"model": name, "messages": one.messages} for name, one in self.conversations.items() if one.exchanges]
        try:
            with Path(file).expanduser().open("x", encoding="utf-8") as output:  # never over another file
                output.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        except OSError as error:
            raise UsageError(f"'{file}' cannot be written: {error.strerror}; give another name") from error
        self._note(f"wrote {file}")

    def _answer_side_by_side(self, line: str) -> None:
        """Show the answers as columns, which fill one after the other."""
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

        texts = dict.fromkeys(self.conversations, "")

        def table() -> Table:
            columns = Table(expand=True)
            for name in texts:
                columns.add_column(name, ratio=1, overflow="fold")
            columns.add_row(*(Text(printable(text)) for text in texts.values()))
            return columns

        replies = []
        with Live(console=self.console, transient=True, get_renderable=table) as live:
            for name, conversation in self.conversations.items():

                def say(piece: str, name: str = name) -> None:
                    texts[name] += piece
                    live.refresh()

                replies.append(conversation.ask(line, say))
        self.console.print(table())
        for reply in replies:
            self._say_more(reply)

    def _say_more(self, reply: "Reply") -> None:
        if reply.forgotten:
            exchanges = "the oldest exchange" if reply.forgotten == 1 else f"the {reply.forgotten} oldest exchanges"
            self._note(f"the context is full: {exchanges} of the conversation are forgotten")
        if reply.stopped:
            self._note("stopped")
        elif not reply.text:
            self._note("(an empty answer)")

    def _note(self, text: str) -> None:
        self.console.print(printable(text), style="dim")
