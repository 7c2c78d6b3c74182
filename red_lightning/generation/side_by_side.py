"""The page of ``generate --compare``."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from red_lightning.data.messages import parted
from red_lightning.errors import UsageError
from red_lightning.generation import Prompt, Writer
from red_lightning.generation.comparison_page import Column, html_page, markdown_page
from red_lightning.generation.prompt_files import OutputFile, Question

PAGES = {".html": html_page, ".md": markdown_page}

Model = tuple[str, bool]
"""A run, and whether its edits are attached."""


def write_page(
    models: Sequence[Model],
    open_writer: Callable[[str, bool, bool], Writer],
    identify: Callable[[str, Writer], Any],
    read: Callable[[Writer], list[Question]],
    output: Path | None,
    overwrite: bool,
) -> None:
    """Let each model answer, one after the other, and write the page.

    Every model reads the prompts before the first one answers. The answers are kept as they come, and the same command
    goes on with those of a page that was not finished.

    Args:
        models: The models, in the order of the columns.
        open_writer: Loads one, the last argument false without its weights: it can read prompts then.
        identify: What tells a model from others, as plain values.
        read: The prompts, as the first model reads them.
        output: The page; its ending says the format.
        overwrite: Replace what is there.

    Raises:
        UsageError: The page has no name or another ending, or cannot be written; or a model cannot read the prompts.
    """
    if output is None or output.suffix.lower() not in PAGES:
        raise UsageError("--compare writes a page: give --output a name that ends in .html or .md")
    readers = [open_writer(place, edited, False) for place, edited in models]
    questions = read(readers[0])
    prompts, where = [question.prompt for question in questions], [question.where for question in questions]
    tokens = [reader.encode(prompts, where) for reader in readers]
    settings = [
        [identify(place, reader), edited, reader.edited.record, _decoding(reader), its]
        for (place, edited), reader, its in zip(models, readers, tokens, strict=True)
    ]
    with OutputFile(output, settings, overwrite) as written:
        if written.rows:
            print(f"going on: {len(written.rows)} of {len(models) * len(questions)} texts are there", file=sys.stderr)
        columns: list[Column] = []
        for number, (place, edited) in enumerate(models):
            rows = range(number * len(questions), (number + 1) * len(questions))
            if missing := [index for index, row in enumerate(rows) if row not in written.rows]:
                writer = open_writer(place, edited, True)
                for batch in writer.batches([tokens[number][index] for index in missing]):
                    written.add({"row": rows[missing[at]], "output": text} for at, text in batch.items())
                del writer  # one backbone at a time
            answers = [written.rows[row]["output"] for row in rows]
            column = _column(place, edited, readers[number].edited.record, answers)
            if column.name in (other.name for other in columns):
                column = replace(column, name=f"{column.name} ({place})")
            columns.append(column)
            print(f"{column.name}: {len(questions)} texts", flush=True)
        page, shown = PAGES[output.suffix.lower()], [_shown(prompt) for prompt in prompts]
        written.finish(page("Answers side by side", _note(columns, readers), shown, columns))
    print(f"wrote {output}")


def _column(place: str, edited: bool, record: dict[str, Any], answers: list[str]) -> Column:
    backbone = str(record.get("backbone") or place)
    if not record or not edited:
        return Column("unedited" if record else Path(backbone).name, "unedited", None, backbone, answers)
    folder = Path(place).resolve()
    name = folder.parent.name if folder.name == "edits" else folder.name
    return Column(name, record["method"]["name"], record.get("trainable_parameters"), backbone, answers)


def _note(columns: Sequence[Column], writers: Sequence[Writer]) -> str:
    """How the models decode: once, or one by one if they differ."""
    said = [_decoding(writer) for writer in writers]
    if len({*said}) > 1:
        said = [f"{column.name}: {how}" for column, how in zip(columns, said, strict=True)]
    return f"Decoded with {'; '.join(dict.fromkeys(said))}."


def _decoding(writer: Writer) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in asdict(writer.decoding).items())
    return f"template {writer.prompts.style}, {settings}"


def _shown(prompt: Prompt) -> str:
    """A prompt as text; of a conversation, who says what."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in parted(prompt)[0])
