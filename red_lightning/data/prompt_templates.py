"""Prompt templates of instruction tuning: the paper's, and the chat template of a tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from red_lightning.data.chat_templates import ChatTemplate
from red_lightning.data.control_tokens import ControlTokens
from red_lightning.data.messages import Message, is_learned
from red_lightning.data.template_base import Answer, Template, TemplateSettings
from red_lightning.errors import UsageError, first_line

TemplateName = Literal["paper", "chat"]


class PaperTemplate(Template):
    r"""``Human: {prompt}\n\nAssistant: {answer}`` and EOS (authors' code), after what a tokenizer puts before texts.

    Further turns follow after a blank line, and so does the first one after a system message, which stands by itself.
    A second message of the user follows the first after a blank line. ``Assistant:`` precedes each answer.

    The space before an answer belongs to the answer: tokens begin with their space, so that a prompt which ended in one
    would end in a token that no training text has.

    Args:
        tokenizer: A Hugging Face tokenizer with an EOS token.
        settings: How conversations are written. Those of chat templates are refused.

    Raises:
        UsageError: A setting is one of chat templates.
    """

    def __init__(self, tokenizer: Any, settings: TemplateSettings = TemplateSettings()) -> None:  # noqa: B008
        super().__init__(tokenizer, settings)
        if unused := settings.changed.keys() - {"split_special_tokens"}:
            raise UsageError(
                f"{' and '.join(sorted(unused))} is for chat templates. Give the template chat, or leave it out"
            )
        alone = self.control.encode(["a"], apart=False)[0]
        whole = tokenizer("a")["input_ids"]
        self.prefix = next((whole[:n] for n in range(len(whole)) if whole[n : n + len(alone)] == alone), [])
        self.stop_ids = [tokenizer.eos_token_id]
        self.control = ControlTokens(tokenizer, self.stop_ids)

    def write(self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None) -> tuple[str, list[Answer]]:
        """Return the text of a conversation and its answers, in characters."""
        text, answers, before = "", [], ""
        for number, message in enumerate(messages):
            role, content = message["role"], message["content"]
            other = [key for key in message if key not in ("role", "content", "weight")]
            if other or tools or role not in ("system", "user", "assistant"):
                what = "tools" if tools else f"'{other[0]}'" if other else f"the role '{role}'"
                raise UsageError(f"the template paper has no place for {what} of {where}. Give --data.template chat")
            if role == "system" and not content.strip():
                continue
            blank = "\n\n" if text else ""
            if role == "assistant":
                text += "" if before == "user" else f"{blank}Assistant:"
                begin = len(text)
                text += f" {content}{self.tokenizer.eos_token}"
                answers.append(Answer(begin, len(text), is_learned(message), number))
            elif role == "user" and before == "user":
                text = f"{text.removesuffix('Assistant:')}{content}\n\nAssistant:"
            else:
                text += f"{blank}{content}" if role == "system" else f"{blank}Human: {content}\n\nAssistant:"
            before = role
        return text, answers


def make_template(name: TemplateName, tokenizer: Any, settings: TemplateSettings = TemplateSettings()) -> Template:  # noqa: B008
    """Return the template of a name.

    Args:
        name: ``paper`` or ``chat``.
        tokenizer: A Hugging Face tokenizer.
        settings: How conversations are written.

    Raises:
        UsageError: The tokenizer has no chat template, or a setting does not fit.
    """
    return ChatTemplate(tokenizer, settings) if name == "chat" else PaperTemplate(tokenizer, settings)


def read_template(file: str) -> str:
    """Return the chat template in a file.

    Raises:
        UsageError: The file cannot be read, or it is empty.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"data.chat_template '{file}' cannot be read: {first_line(error)}") from error
    if not text.strip():
        raise UsageError(f"data.chat_template '{file}' is empty. Give a file with a chat template in Jinja")
    return text


def trained_stop_ids(record: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """Return the tokens of which each ends what an adapter's model generates.

    Args:
        record: The contents of ``edits.json``.
        tokenizer: The backbone's tokenizer.

    Raises:
        UsageError: The tokenizer lacks the chat template that the adapter was trained with.
    """
    data = record.get("data") or {}
    if record.get("task") == "InstructionTuning" and data.get("template") in get_args(TemplateName):
        return make_template(data["template"], tokenizer, TemplateSettings.recorded(data)).stop_ids
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
