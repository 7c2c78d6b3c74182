"""Prompt templates of instruction tuning: the paper's, and the chat template of a tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from red_lightning.data.control_tokens import ControlTokens
from red_lightning.data.messages import Message, is_learned
from red_lightning.data.template_base import Answer, Template, TemplateSettings
from red_lightning.errors import UsageError, first_line

TemplateName = Literal["paper", "chat"]

OTHER = "choose the template paper (--data.template paper where a model is trained, else --template paper)"
"""What to do where a tokenizer's chat template will not do."""
QUESTION: Message = {"role": "user", "content": "question"}
ANSWER: Message = {"role": "assistant", "content": "answer"}


class PaperTemplate(Template):
    r"""``Human: {prompt}\n\nAssistant: {answer}`` and EOS (authors' code), after what a tokenizer puts before texts.

    Further turns follow after a blank line, and so does the first one after a system message, which stands by itself.

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
        text, answers = "", []
        for number, message in enumerate(messages):
            role, content = message["role"], message["content"]
            other = [key for key in message if key not in ("role", "content", "weight")]
            if other or tools or role not in ("system", "user", "assistant"):
                what = "tools" if tools else f"'{other[0]}'" if other else f"the role '{role}'"
                raise UsageError(f"the template paper has no place for {what} of {where}. Give --data.template chat")
            if role == "assistant":
                begin = len(text)
                text += f" {content}{self.tokenizer.eos_token}"
                answers.append(Answer(begin, len(text), is_learned(message), number))
            else:
                turn = content if role == "system" else f"Human: {content}\n\nAssistant:"
                text += f"\n\n{turn}" if text else turn
        return text, answers


class ChatTemplate(Template):
    """The tokenizer's own chat template, tokenized as ``apply_chat_template`` does it.

    An answer begins where the prompt that asks for it ends, and ends with the special token that the template puts
    behind it. Templates need not mark answers themselves.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        settings: How conversations are written.

    Raises:
        UsageError: There is no chat template, or it does not end an answer with a special token.
    """

    def __init__(self, tokenizer: Any, settings: TemplateSettings = TemplateSettings()) -> None:  # noqa: B008
        super().__init__(tokenizer, settings)
        self.prefix = []  # a template writes BOS itself
        if not (settings.chat_template or getattr(tokenizer, "chat_template", None)):
            raise UsageError(
                f"the backbone's tokenizer has no chat template; {OTHER}, a file with one (--data.chat_template), or a "
                "backbone that was made for chats"
            )
        probe = self._apply([QUESTION, ANSWER], "every conversation")
        behind = probe.rpartition("answer")[2]
        added = {token for token, text in tokenizer.added_tokens_decoder.items() if text.content.strip()}
        ending = next((token for token in self.control.encode([behind], apart=False)[0] if token in added), None)
        if ending is None:
            raise UsageError(
                "the tokenizer's chat template does not end an answer with a special token, so that a model would not "
                f"learn to stop; {OTHER}"
            )
        self.ending: str = tokenizer.added_tokens_decoder[ending].content
        self.stop_ids = [*dict.fromkeys(token for token in (ending, tokenizer.eos_token_id) if token is not None)]
        turn = self._apply([QUESTION], "every conversation", asks=False)
        written = {*self.control.encode([turn], apart=False)[0]} & added  # ChatML's, where they are not special tokens
        self.control = ControlTokens(tokenizer, {*self.stop_ids, *written})
        self._header = self._missing_header(probe, turn)

    def write(self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None) -> tuple[str, list[Answer]]:
        """Return the text of a conversation and its answers, in characters.

        Raises:
            UsageError: The template refuses it, leaves a part of it out, or does not write a prompt in training as it
                does when it asks.
        """
        shown, folded = self._folded(messages, where)
        text, answers = self._apply(shown, where, tools), []
        if shown[-1]["role"] != "assistant":
            text += self._header
        self._refuse_missing(shown, text, where)
        for number, message in enumerate(shown):
            if message["role"] == "assistant":
                start = self._start(shown, number, text, where, tools)
                end = self._end(shown, number, text, start, where, tools)
                answers.append(Answer(start, end, is_learned(message), number + folded))
        return text, answers

    def _missing_header(self, whole: str, turn: str) -> str:
        """Return what the template writes before an answer but not when it is asked for a generation prompt."""
        if self._apply([QUESTION], "every conversation") != turn or not whole.startswith(turn):
            return ""
        header = whole[len(turn) :].partition("answer")[0]
        return header if header.strip() else ""  # Llama 2 and Mistral need none: a space belongs to the answer

    def _folded(self, messages: Sequence[Message], where: str) -> tuple[list[Message], int]:
        """Return the messages without a system message, if it is folded, and by how much indices are smaller."""
        if not self.settings.fold_system or messages[0]["role"] != "system":
            return [*messages], 0
        system, *rest = messages
        if not rest or rest[0]["role"] != "user":
            raise UsageError(f"the system message of {where} cannot be folded, as no user message follows it")
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]], 1

    def _start(self, shown: Sequence[Message], number: int, text: str, where: str, tools: Sequence[Any] | None) -> int:
        """Return where an answer begins: behind its prompt, or for a first message where its content begins."""
        before = shown[:number]
        if all(message["role"] == "system" for message in before):
            other = self._apply([*before, {"role": "assistant", "content": "\N{REPLACEMENT CHARACTER}"}], where, tools)
            return next((at for at, pair in enumerate(zip(text, other, strict=False)) if len({*pair}) > 1), len(text))
        prompt = self._apply(before, where, tools, asks=True) + self._header
        if not text.startswith(prompt):
            raise UsageError(
                f"the tokenizer's chat template writes the prompt of {where} in one way to train on and in "
                f"another to answer; {OTHER}"
            )
        return len(prompt)

    def _end(
        self, shown: Sequence[Message], number: int, text: str, start: int, where: str, tools: Sequence[Any] | None
    ) -> int:
        """Return where an answer ends: behind the token that ends it. Calls of tools may end with another one."""
        if shown[number].get("tool_calls"):
            whole = self._apply(shown[: number + 1], where, tools, asks=False)
            ends = [whole.rfind(token) + len(token) for token in self.control.ids if token in whole[start:]]
            if ends and text.startswith(whole):
                return max(ends)
        elif (found := text.find(self.ending, start)) >= 0:
            return found + len(self.ending)
        raise UsageError(f"the tokenizer's chat template does not end message {number + 1} of {where}; {OTHER}")

    def _refuse_missing(self, shown: Sequence[Message], text: str, where: str) -> None:
        """Refuse a conversation of which the template leaves a text out."""
        for number, message in enumerate(shown, start=1):
            content = message.get("content")
            if not isinstance(content, str) or content.strip() in text:
                continue
            if message["role"] == "assistant" and "</think>" in content:  # Qwen 3 drops the thoughts of earlier turns
                continue
            if json.dumps(content, ensure_ascii=False)[1:-1] not in text:  # Llama 3 writes results of tools as JSON
                way = "; give --data.fold_system true" if message["role"] == "system" else ""
                raise UsageError(
                    f"the tokenizer's chat template leaves out the content of message {number} of {where}, which is by "
                    f"the {message['role']}{way or '; ' + OTHER}"
                )

    def _apply(
        self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None = None, asks: bool | None = None
    ) -> str:
        """Return what the template makes of messages, by default with a generation prompt if an answer is missing."""
        asks = messages[-1]["role"] != "assistant" if asks is None else asks
        given = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        options = {**({"tools": tools} if tools else {}), **self.settings.template_options}
        try:
            return self.tokenizer.apply_chat_template(
                given,
                chat_template=self.settings.chat_template,
                tokenize=False,
                add_generation_prompt=asks,
                **options,
            )
        except (TemplateError, ValueError, TypeError) as error:
            way = "; give --data.fold_system true to put it before the first user message"
            way = way if messages[0]["role"] == "system" and "system" in str(error).lower() else ""
            raise UsageError(f"the tokenizer's chat template refuses {where}: {error}{way}") from error


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
