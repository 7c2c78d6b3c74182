"""Conversations in the chat template of a tokenizer."""

import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from red_lightning.data.control_tokens import ControlTokens
from red_lightning.data.messages import Message, is_learned
from red_lightning.data.template_base import Answer, Template, TemplateSettings
from red_lightning.data.template_omissions import FOLDING, MARKER, OTHER, THOUGHTS, changes, require_written
from red_lightning.errors import UsageError

QUESTION: Message = {"role": "user", "content": "question"}
ANSWER: Message = {"role": "assistant", "content": "answer"}
CALLING: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "call", "arguments": {"with": "this"}}}],
}


class ChatTemplate(Template):
    """The tokenizer's own chat template, tokenized as ``apply_chat_template`` does it.

    An answer begins where the prompt that asks for it ends, and ends with the special token that the template puts
    behind it. Templates need not mark answers themselves.

    What a template leaves out is refused, but for what it leaves out by design, which is counted in ``left_out``:
    thoughts of earlier turns, and the ids and names that link the result of a tool to its call.

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
        self._require_options()
        self._arguments_as_text = False
        self._arguments_as_text = not self._takes([QUESTION, CALLING])
        self._takes_system = self._takes([{"role": "system", "content": "system"}, QUESTION])
        self._thoughts = next((key for key in THOUGHTS if self._reads(key)), None)
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
        self.stop_ids += [token for token in self._ends_of_calls() if token not in self.stop_ids]

    def write(self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None) -> tuple[str, list[Answer]]:
        """Return the text of a conversation and its answers, in characters.

        Raises:
            UsageError: The template refuses it, leaves a part of it out, or does not write a prompt in training as it
                does when it asks.
        """
        shown, folded = self._folded(messages, where)
        text = self._apply(shown, where, tools)
        require_written(self._apply, shown, text, where, tools, self.left_out)
        if shown[-1]["role"] != "assistant":
            text += self._header
        answers: list[Answer] = []
        for number, message in enumerate(shown):
            if message["role"] != "assistant":
                continue
            try:
                start = self._start(shown, number, text, where, tools)
                end = self._end(shown, number, text, start, where, tools)
            except UsageError:  # such as Qwen 3's earlier answers without thinking, which is no fault where none learns
                if is_learned(message) and shown[-1]["role"] == "assistant":
                    raise
            else:
                answers.append(Answer(start, end, is_learned(message), number + folded))
        return text, answers

    def _missing_header(self, whole: str, turn: str) -> str:
        """Return what the template writes before an answer but not when it is asked for a generation prompt."""
        if self._apply([QUESTION], "every conversation") != turn or not whole.startswith(turn):
            return ""
        header = whole[len(turn) :].partition("answer")[0]
        return header if header.strip() else ""  # Llama 2 and Mistral need none: a space belongs to the answer

    def _ends_of_calls(self) -> list[int]:
        """Return the token that ends a call of a tool, if the template has a place for calls."""
        try:
            text, [answer] = self.write([QUESTION, CALLING], "a call of a tool", None)
        except UsageError:
            return []
        return [number for token, number in self.control.ids.items() if text[: answer.end].endswith(token)]

    def _require_options(self) -> None:
        """Refuse options that the template does not name, such as misspelled ones."""
        known = self.settings.chat_template or self.tokenizer.chat_template
        for option in self.settings.template_options:
            if not re.search(rf"\b{re.escape(option)}\b", str(known)):
                raise UsageError(
                    f"data.template_options has '{option}', which the chat template does not use. Correct it, or leave "
                    "it out"
                )

    def _takes(self, messages: list[Message]) -> bool:
        try:
            return bool(self._apply(messages, "every conversation"))
        except UsageError:
            return False

    def _reads(self, key: str) -> bool:
        text = self._apply([QUESTION, ANSWER], "every conversation")
        return changes(self._apply, [QUESTION, ANSWER], 1, {**ANSWER, key: MARKER}, text, "every conversation", None)

    def _folded(self, messages: Sequence[Message], where: str) -> tuple[list[Message], int]:
        """Return the messages as the template takes them, and by how much their indices are smaller.

        A system message may be folded, and an empty one goes where there is no place for it. Thoughts get the name
        under which the template looks for them.
        """
        shown = [self._renamed(message) for message in messages]
        system = shown[0]
        fold = self.settings.fold_system
        if system["role"] != "system":
            return shown, 0
        if not system["content"].strip() and (fold or not self._takes_system):
            return shown[1:], 1
        if not fold:
            return shown, 0
        rest = shown[1:]
        if not rest or rest[0]["role"] != "user":
            raise UsageError(f"the system message of {where} cannot be folded, as no user message follows it")
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]], 1

    def _renamed(self, message: Message) -> Message:
        keys = [key for key in THOUGHTS if key in message]
        if self._thoughts is None or len(keys) != 1:
            return message
        return {(self._thoughts if key == keys[0] else key): value for key, value in message.items()}

    def _start(self, shown: list[Message], number: int, text: str, where: str, tools: Sequence[Any] | None) -> int:
        """Return where an answer begins: behind its prompt, or for a first message where its content begins."""
        before = shown[:number]
        if all(message["role"] == "system" for message in before):
            return _first_difference(text, self._apply(_marked(shown, number), where, tools))
        prompt = self._apply(before, where, tools, asks=True) + self._header
        if not text.startswith(prompt):
            raise UsageError(
                f"the tokenizer's chat template writes the prompt of {where} in one way to train on and in "
                f"another to answer; perhaps other data.template_options help, otherwise {OTHER}"
            )
        return len(prompt)

    def _end(
        self, shown: list[Message], number: int, text: str, start: int, where: str, tools: Sequence[Any] | None
    ) -> int:
        """Return where an answer ends: behind the control token that ends it.

        That is not always the same one: gpt-oss ends a last answer, an earlier one and a call of a tool with a token
        each, Llama 3.1 some calls.
        """
        message, last = shown[number], number + 1 == len(shown)
        content = str(message.get("content") or "").rpartition("</think>")[2].strip()  # thoughts may be left out
        written = max(text.find(content, start), start) + len(content)
        end = text.find(self.ending, written) + len(self.ending)
        if last and end >= written:
            return end
        bound = len(text) if last else _first_difference(text, self._apply(_marked(shown, number + 1), where, tools))
        if written <= end <= bound:
            return end
        if message.get("tool_calls"):
            whole = self._apply(shown[: number + 1], where, tools, asks=False)
            ends = [at + len(token) for token in self.control.ids if (at := whole.rfind(token)) >= start]
        else:
            ends = [at + len(token) for token in self.control.ids if (at := text.find(token, written, bound)) >= 0]
            whole, ends = text, sorted(ends)[:1]
        if ends and text.startswith(whole):
            return max(ends)
        raise UsageError(f"the tokenizer's chat template does not end message {number + 1} of {where}; {OTHER}")

    def _apply(
        self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None = None, asks: bool | None = None
    ) -> str:
        """Return what the template makes of messages, by default with a generation prompt if an answer is missing."""
        asks = messages[-1]["role"] != "assistant" if asks is None else asks
        given = [self._given(message) for message in messages]
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
            way = f"; {FOLDING}" if messages[0]["role"] == "system" and "system" in str(error).lower() else ""
            raise UsageError(f"the tokenizer's chat template refuses {where}: {error}{way}") from error

    def _given(self, message: Message) -> Message:
        """Return a message without its weight, with the arguments of calls as the template takes them."""
        given = {key: value for key, value in message.items() if key != "weight"}
        if not self._arguments_as_text or not given.get("tool_calls"):
            return given
        calls = [{**call, "function": {**call["function"]}} for call in given["tool_calls"]]
        for call in calls:
            if not isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        return {**given, "tool_calls": calls}


def _marked(messages: list[Message], number: int) -> list[Message]:
    """Return the messages with another content of one of them."""
    return [*messages[:number], {**messages[number], "content": MARKER}, *messages[number + 1 :]]


def _first_difference(text: str, other: str) -> int:
    return next((at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), len(text))
