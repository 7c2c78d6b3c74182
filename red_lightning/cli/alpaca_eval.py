"""``evaluate --suite alpaca_eval``: AlpacaEval, compared with the paper's Table 4."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.evaluation.alpaca_eval_scores import PAPERS_ANNOTATOR, REFERENCES
from red_lightning.evaluation.endpoint import Endpoint
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.prompts import PromptStyle

if TYPE_CHECKING:
    from red_lightning.evaluation.annotator import Annotator
    from red_lightning.jsonl import Record

PUBLISHED, METHODS = "table4_alpacaeval_win_rate_percent", ("FT", "LoRA", "RED")


def alpaca_eval(
    model: str | None = None,
    references: str = REFERENCES,
    output: Path | None = None,
    judge: Endpoint = Endpoint(),  # noqa: B008 - never changed
    annotator: str = PAPERS_ANNOTATOR,
    dry_run: bool = False,
    answers: Path | None = None,
    annotations: Path | None = None,
    decoding: DecodingChanges = DecodingChanges(),  # noqa: B008 - never changed
    template: PromptStyle | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    name: str | None = None,
    compare: list[Path] = [],  # noqa: B006 - never changed
    backbone: str | None = None,
    revision: str | None = None,
    references_revision: str | None = None,
    backbone_options: BackboneOptions | None = None,
    device: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Compare a model's answers to AlpacaEval's 805 instructions with reference answers. A judge picks the better one.

    The judge is any OpenAI-compatible endpoint, with the prompt of an annotator of the package alpaca_eval. Answers go
    to model_outputs.json and judgments to annotations.json, both in AlpacaEval's format. The win rate goes to
    results.json. Every answer and reply is saved when it arrives (answers.jsonl, replies.jsonl). Rerun the same command
    to resume and to retry failed judgments. A prompt that is too long for the model gets an empty answer, which is
    flagged and judged.

    For example: evaluate --suite alpaca_eval runs/mine --judge.model NAME --judge.base_url http://localhost:8000/v1
    --judge.key_variable null. Recompute the win rate of existing judgments with --annotations.

    Args:
        model: A run's folder, an adapter, a merged or standard checkpoint, or a hub repository of either.
        references: Instructions and reference answers: a file in AlpacaEval's format, or a hub data set with
            alpaca_eval.json. The default has the answers of text-davinci-003, as in the paper.
        output: Output folder. null is evaluations/NAME/alpaca_eval.
        judge: The judge. Without --judge.model, answers are generated but not judged.
        annotator: The judge's prompt: an annotator of alpaca_eval, or a folder with its configs.yaml. The default is
            that of AlpacaEval 1 and the paper, with the judge gpt-4.
        dry_run: Stop after the cost estimate. It needs all answers, so missing ones are generated first.
        answers: Existing answers in the format of model_outputs.json, instead of a model.
        annotations: Existing judgments of AlpacaEval. Only their win rate is computed.
        decoding: Changes to the decoding options of the training. The paper's are greedy decoding, repetition penalty
            1.1 and no repeated 5-grams.
        template: Prompt template: paper or chat. null is the one of the training, or for a model without an adapter
            its chat template.
        batch_size: Prompts per batch. The answers do not depend on it.
        limit: Number of instructions, for a trial run.
        name: Name of the model in files and tables. null is the name of its folder or repository.
        compare: Output folders of other models to add to the table.
        backbone: Backbone of the adapter, if it moved. null is the place that the adapter names.
        revision: Branch, tag or commit of the model's hub repository.
        references_revision: Branch, tag or commit of the references' hub data set.
        backbone_options: Loading options, such as --backbone_options.dtype bfloat16. null takes the dtype and the
            quantization of the training, or for a model without an adapter the dtype of its files.
        device: Device, such as cuda:1. null is a GPU if there is one.
        trust: Packages that may be imported, which runs their code. Only adapters of a method outside red_lightning
            need it.

    Raises:
        UsageError: The model or a file is missing, the output folder has other content, or the judge fails.
    """
    from red_lightning.evaluation import alpaca_eval_scores as bench
    from red_lightning.evaluation import judging
    from red_lightning.evaluation.annotator import Annotator, load_annotator
    from red_lightning.evaluation.benchmark_answers import OUTPUT, Contestant, claim, model_outputs
    from red_lightning.evaluation.scored_models import find_model
    from red_lightning.jsonl import Records

    others = judging.results_of(compare, "alpaca_eval")
    if annotations is not None:
        _show({name or str(annotations): bench.win_rate(bench.read_preferences(annotations))}, others)
        return
    judging.check(judge, limit, dry_run)
    name = judging.name_of(model, answers, name)
    asked = bench.read_outputs(bench.find_references(references, references_revision), limit)
    if judge.model is not None:
        load_annotator(annotator)  # fails before answers are generated
    folder = output or Path("evaluations", name, "alpaca_eval")
    settings: dict[str, Any] = {"suite": "alpaca_eval", "name": name}
    if answers is not None:
        written = bench.matching(bench.read_outputs(answers), asked, f"'{answers}'")
        claim(folder, {**settings, "answers": judging.digest(answers.read_text(encoding="utf-8"))})
    else:
        candidate = find_model(str(model), backbone, revision, backbone_options, trust)
        contestant = Contestant(candidate, decoding, template, batch_size, device)
        claim(folder, {**settings, **contestant.settings})
        with Records(folder / "answers.jsonl", OUTPUT) as records:
            written = model_outputs(contestant.writer, asked, records, name, print)
        judging.write_file(folder / "model_outputs.json", json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    flagged = sum("flag" in row for row in written)
    if flagged:
        print(f"{flagged} answers are empty because their prompts are too long; see 'flag' in model_outputs.json")
    if judge.model is None:
        print(f"the answers are in {folder}; set --judge.model to judge them")
        return
    judged = _judge(Annotator(annotator, asked, written, judge.model), judge, folder, dry_run)
    if judged is None:
        return
    rows, about = judged
    lengths = [len(row["output"]) for row in written]
    scores = {**bench.win_rate(row["preference"] for row in rows), "avg_length": sum(lengths) // len(lengths)}
    result = {**settings, "annotator": annotator, "scores": scores, "flagged": flagged, "limit": limit, "judge": about}
    judging.write_file(folder / judging.RESULTS, json.dumps(result, indent=2) + "\n")
    _show({name: scores}, others)
    judging.print_limits({name: limit, **{other: found.get("limit") for other, found in others.items()}})
    print(f"wrote {folder}/{judging.RESULTS}")


def _judge(annotator: "Annotator", judge: Endpoint, folder: Path, dry_run: bool) -> "tuple[list[Record], Any] | None":
    """Write ``annotations.json``. Return its rows, and the record of the judge; None after a dry run."""
    from red_lightning.evaluation import judging

    found = judging.ask(judge, folder, annotator.requests(), annotator.readable, dry_run)
    if found is None:
        return None
    rows = annotator.annotations(found[0])
    judging.write_file(folder / "annotations.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return rows, found[1]


def _show(models: dict[str, Any], others: dict[str, Any]) -> None:
    """Print the win rates, with those of Table 4."""
    from red_lightning.evaluation import judging
    from red_lightning.paper.published import published_row

    columns = {**models, **{name: found["scores"] for name, found in others.items()}}
    papers = {f"{method} (paper)": published_row(PUBLISHED, method).scores for method in METHODS}
    papers = {name: {"win_rate": scores["winrate"]} for name, scores in papers.items()}
    judging.print_columns("AlpacaEval, percent of wins against the references", {**columns, **papers})
