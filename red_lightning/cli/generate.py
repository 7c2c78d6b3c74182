"""``generate``: texts of a model: one prompt to the terminal, a file to JSONL, several models to a page."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.errors import UsageError, printable
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.prompts import PromptStyle, TemplateChanges

if TYPE_CHECKING:
    from red_lightning.generation import Writer
    from red_lightning.generation.prompt_files import Question

COLUMNS = ("prompt", "source", "text")
"""The columns that may hold the prompts, besides the one that the edits were trained with."""


def generate(
    edits: str | None = None,
    prompt: str | None = None,
    file: str | None = None,
    system: str | None = None,
    output: Path | None = None,
    compare: list[str] = [],  # noqa: B006 - never changed; a literal default shows in --help
    baseline: bool = False,
    edited: bool = True,
    backbone: str | None = None,
    revision: str | None = None,
    template: PromptStyle | None = None,
    template_settings: TemplateChanges = TemplateChanges(),  # noqa: B008 - never changed
    column: str | None = None,
    ignore: list[str] = [],  # noqa: B006 - never changed
    overlong: Literal["refuse", "cut"] = "refuse",
    decoding: DecodingChanges = DecodingChanges(),  # noqa: B008 - never changed
    batch_size: int = 8,
    overwrite: bool = False,
    backbone_options: BackboneOptions | None = None,
    device: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Generate texts with an adapter, or with a model without one.

    Prompts are formatted and decoded as in the run, so the texts equal those of its `predict`. The adapter comes first.

        generate runs/mine --prompt "name[Aromi], food[Chinese]"
        generate runs/mine --file prompts.jsonl --output answers.jsonl
        generate runs/red --compare runs/lora runs/full --baseline true --file prompts.txt --output page.html

    Args:
        edits: A run's folder, its edits/ folder, a model folder, or a hub repository with an adapter or a model.
        prompt: One prompt. Without --output its text is streamed to the terminal.
        file: Prompts: .txt with one per line; or .jsonl, .json, .csv, .tsv or .parquet, in the layouts of Instructions
            for chat models, otherwise with a column of texts.
        system: System message before each prompt, for chat models. Rows of --file that have their own are refused.
        output: Output JSONL, written atomically. Rerun the same command to resume. With --compare: a page, .html or
            .md.
        compare: Other adapters, which answer the same prompts beside the first.
        baseline: Show the unedited backbone first in --compare.
        edited: Attach the adapter. false generates with the unedited backbone, and the run's template and decoding.
        backbone: Folder or hub id of the backbone. Without an adapter: the model that generates.
        revision: Branch, tag or commit of the adapter's hub repository.
        template: Prompt format: source (the text and EOS, for data-to-text), paper or chat (for instructions), or plain
            (the text). Default: that of the training. For a model without an adapter: chat if its tokenizer has a chat
            template, otherwise plain.
        template_settings: Settings of the template that replace those of the training.
        column: Column of the file that holds the texts. Default: that of the training, or prompt, source or text.
        ignore: Columns of the file, and keys of messages, to leave out besides those of the training.
        overlong: Prompts longer than the model's context: refuse them, or cut the end of a source (as in training) and
            the beginning of any other prompt.
        decoding: Decoding options that replace those of the run.
        batch_size: Prompts per batch. The texts do not depend on it.
        overwrite: Replace an existing output.
        backbone_options: How the backbone is loaded, such as --backbone_options.dtype bfloat16. Default: the dtype and
            quantization of the training, and the dtype of its files for a model without an adapter.
        device: Device, such as cuda:1. Default: a GPU if there is one.
        trust: Packages to import custom methods from, such as my_package. Their code runs on this machine. Needed only
            for adapters of methods outside red_lightning.

    Raises:
        UsageError: There is no such model, no prompt, or an output that exists.
    """
    from red_lightning.evaluation.scored_models import find_model
    from red_lightning.generation import Writer
    from red_lightning.generation.generators import open_model
    from red_lightning.generation.prompt_files import refuse_existing

    if (prompt is None) == (file is None):
        raise UsageError("give the prompts: either --prompt TEXT or --file FILE")
    if output is not None:
        refuse_existing(output, overwrite)

    def open_writer(place: str | None, edited: bool, weights: bool = True) -> Writer:
        model = open_model(place, backbone, revision, backbone_options, device, edited, weights, trust)
        writer = Writer(model, None, template, batch_size, overlong, template_settings)
        writer.decoding = decoding.of(writer.decoding)
        writer.prompts.advice = "shorten it, or have it cut (--overlong cut)"
        return writer

    def identify(place: str | None, writer: Writer) -> Any:
        base = backbone if writer.edited.record else None  # a model without edits has no other
        return find_model(place or str(backbone), base, revision, backbone_options, None).identity

    if compare:
        from red_lightning.generation.side_by_side import write_page

        runs = [(place, True) for place in (edits, *compare) if place is not None]
        models = [(runs[0][0], False), *runs] if baseline else runs
        write_page(
            models,
            open_writer,
            identify,
            lambda writer: _questions(writer, prompt, file, column, ignore, system),
            output,
            overwrite,
        )
        return
    if baseline:
        raise UsageError("--baseline belongs to --compare; --edited false lets the unedited backbone write")
    writer = open_writer(edits, edited)
    questions = _questions(writer, prompt, file, column, ignore, system)
    if prompt is not None and output is None:
        writer.stream(questions[0].prompt, lambda piece: print(_shown(piece), end="", flush=True))
        print()
        return
    _write(writer, questions, output, [identify(edits, writer), edited], overwrite)


def _questions(
    writer: "Writer", prompt: str | None, file: str | None, column: str | None, ignore: list[str], system: str | None
) -> "list[Question]":
    """Read the prompts, each with the system message if there is one."""
    if system is None:
        return _read(writer, prompt, file, column, ignore)
    if not writer.prompts.converses:
        raise UsageError("--system is for models that converse, but this one continues texts. Leave it out")
    return [question.after(system) for question in _read(writer, prompt, file, column, ignore)]


def _read(
    writer: "Writer", prompt: str | None, file: str | None, column: str | None, ignore: list[str]
) -> "list[Question]":
    from red_lightning.data.row_reports import RowReport
    from red_lightning.generation.prompt_files import Question, read_prompts

    if file is None:
        return [Question(prompt or "", "the prompt")]
    data, report = writer.edited.record.get("data") or {}, RowReport()
    learned = data.get("columns")
    trained = learned.get("source") if isinstance(learned, dict) else None
    columns = [column] if column else [*([trained] if isinstance(trained, str) else []), *COLUMNS]
    data = {**data, "ignore": [*(data.get("ignore") or []), *ignore]}
    questions = read_prompts(file, writer.prompts.converses and column is None, columns, data, report)
    for note in report.notes:
        print(note, file=sys.stderr)
    return questions


def _write(writer: "Writer", questions: "list[Question]", output: Path | None, model: Any, overwrite: bool) -> None:
    """Write a row for each prompt, to a file that appears whole, or to the standard output."""
    from red_lightning.generation.prompt_files import OutputFile

    tokens = writer.encode([question.prompt for question in questions], [question.where for question in questions])
    if output is None:
        rows = {row["row"]: row for new in _rows(writer, questions, tokens, {}) for row in new}
        for _, row in sorted(rows.items()):
            print(_shown(json.dumps(row, ensure_ascii=False)))
        return
    settings = [model, writer.edited.record, writer.prompts.style, asdict(writer.decoding), tokens]
    with OutputFile(output, settings, overwrite) as written:
        if written.rows:
            print(f"going on: {len(written.rows)} of {len(questions)} texts are there", file=sys.stderr)
        for new in _rows(writer, questions, tokens, written.rows):
            written.add(new)
        written.finish()
    print(f"wrote {output}: {len(questions)} texts")


def _rows(
    writer: "Writer", questions: "list[Question]", tokens: list[list[int]], there: dict[int, Any]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each batch of prompts, but of those that are there, and how far it has come on a terminal."""
    missing = [number for number in range(len(questions)) if number not in there]
    done = len(questions) - len(missing)
    for batch in writer.batches([tokens[number] for number in missing]):
        new: list[dict[str, Any]] = []
        for index, text in batch.items():
            number = missing[index]
            prompt = questions[number].prompt
            whole = {} if isinstance(prompt, str) else prompt if isinstance(prompt, dict) else {"messages": prompt}
            identity = {"row": number} if questions[number].id is None else {"row": number, "id": questions[number].id}
            new.append({**identity, "prompt": questions[number].text, **whole, "output": text})
        yield new
        done += len(new)
        if sys.stderr.isatty():
            end = "\n" if done == len(questions) else ""
            print(f"\r{done} of {len(questions)} texts", end=end, file=sys.stderr, flush=True)


def _shown(text: str) -> str:
    """What a text looks like where it goes: a terminal must not be steered by it."""
    return printable(text) if sys.stdout.isatty() else text
