"""``evaluate --suite alpaca_eval``: AlpacaEval, beside the paper's Table 4."""

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
    """Answer AlpacaEval's 805 instructions, and let a judge say whose answer is better: these, or reference answers.

    The answers go to model_outputs.json, the judgments to annotations.json, as AlpacaEval writes them, and the win
    rate to results.json. Each answer is kept in answers.jsonl and each of the judge's replies in replies.jsonl when it
    is there: the same command goes on where it was stopped, and asks again for what failed. The judge is any
    OpenAI-compatible endpoint, which is asked by one of the annotators of the package alpaca_eval. A prompt that is
    longer than the model reads gets an empty answer, which is flagged, counted and judged. Judgments that
    exist are counted again by --annotations.

        evaluate --suite alpaca_eval runs/red --judge.model ID --judge.base_url http://host/v1 --judge.key_variable null

    Args:
        model: A run's folder, its edits folder, a folder with a model (merged or plain), or a hub repository of
            either.
        references: Instructions and reference answers: a file of AlpacaEval's, or the data set on the hub that holds
            alpaca_eval.json (text-davinci-003's answers, as in the paper).
        output: The folder for all files; null for one below evaluations that is called like the model.
        judge: Who judges; without --judge.model only answers are written.
        annotator: How the judge is asked: the name of an annotator of alpaca_eval, or a folder with its configs.yaml.
            The default is AlpacaEval 1's, the paper's, whose judge is gpt-4.
        dry_run: Stop after the estimate of what the judge will cost; it takes the answers, which are written first.
        answers: Answers that were written elsewhere, in the format of model_outputs.json, instead of a model.
        annotations: Judgments of AlpacaEval, to compute their win rate again; nothing else is done.
        decoding: What is decoded otherwise than in training (the paper's: greedy, repetition penalty 1.1, no 5-gram
            twice).
        template: How an instruction becomes tokens: paper or chat; null takes the one that was trained, and for a model
            without edits its own chat template.
        batch_size: Prompts that are answered at once; the answers do not depend on it.
        limit: Only the first so many instructions, to try things out.
        name: What files and tables call the model; null for the name of its folder or repository.
        compare: Output folders of other models, to be shown in the same table.
        backbone: Where the backbone of edits is now; null for where they say.
        revision: Branch, tag or commit of the model's hub repository.
        references_revision: Likewise of the references.
        backbone_options: How the model is loaded, such as --backbone_options.dtype bfloat16; null for the dtype and
            the quantization of the training, and for a model without edits the dtype of its files.
        device: Where the model runs, such as cuda:1; null for a GPU if there is one.
        trust: Packages whose own methods may be imported, such as my_package: their code runs. Only edits of a method
            that is not part of red_lightning need it.

    Raises:
        UsageError: There is no such model or file, the folder holds something else, or the judge gives no judgments.
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
        load_annotator(annotator)  # which may be missing
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
        print(f"{flagged} answers are empty, since their prompt is too long; 'flag' in model_outputs.json says which")
    if judge.model is None:
        print(f"the answers are in {folder}; give --judge.model to have them judged")
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
    """The judgments, which are written to ``annotations.json``, and what a result says of the judge."""
    from red_lightning.evaluation import judging

    requests = annotator.requests()
    found = judging.ask(judge, folder, requests, annotator.readable, dry_run)
    if found is None:
        return None
    rows = annotator.annotations(requests, found[0])
    judging.write_file(folder / "annotations.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return rows, found[1]


def _show(models: dict[str, Any], others: dict[str, Any]) -> None:
    """The table of win rates, beside Table 4."""
    from red_lightning.evaluation import judging
    from red_lightning.paper.published import published_row

    columns = {**models, **{name: found["scores"] for name, found in others.items()}}
    papers = {f"{method} (paper)": published_row(PUBLISHED, method).scores for method in METHODS}
    papers = {name: {"win_rate": scores["winrate"]} for name, scores in papers.items()}
    judging.print_columns("AlpacaEval, percent of wins against the references", {**columns, **papers})
