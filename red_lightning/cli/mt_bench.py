"""``evaluate --suite mt_bench``: MT-Bench, compared with the paper's Table 16 and Figure 2."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.evaluation.endpoint import Endpoint
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.prompts import PromptStyle

if TYPE_CHECKING:
    from red_lightning.generation import Writer

PUBLISHED = {"turn 1": "table16_mt_bench_turn1", "turn 2": "table16_mt_bench_turn2", "final": "table16_mt_bench_final"}
METHODS = ("FT", "LoRA", "RED")


def mt_bench(
    model: str | None = None,
    data: Path = Path("FastChat/fastchat/llm_judge/data"),
    output: Path | None = None,
    judge: Endpoint = Endpoint(),  # noqa: B008 - never changed
    dry_run: bool = False,
    answers: Path | None = None,
    temperatures: Literal["paper", "fastchat"] = "paper",
    decoding: DecodingChanges = DecodingChanges(),  # noqa: B008 - never changed
    template: PromptStyle | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    name: str | None = None,
    compare: list[Path] = [],  # noqa: B006 - never changed
    backbone: str | None = None,
    revision: str | None = None,
    backbone_options: BackboneOptions | None = None,
    device: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Answer MT-Bench's 80 questions of two turns. A judge grades each answer from 1 to 10.

    The judge is any OpenAI-compatible endpoint, with FastChat's prompts: with reference answers for math, reasoning and
    coding. Answers go to model_answer/ and grades to model_judgment/, both in FastChat's format. Mean grades go to
    results.json, and those of the first turn to radar.png. Every answer and reply is saved when it arrives
    (model_answer/, replies.jsonl). Rerun the same command to resume and to retry failed judgments. A prompt that is too
    long for the model gets an empty answer, which is flagged and graded.

        evaluate --suite mt_bench runs/red --judge.model ID --judge.base_url http://host/v1 --judge.key_variable null

    Args:
        model: A run's folder, an adapter, a merged or standard checkpoint, or a hub repository of either.
        data: Folder fastchat/llm_judge/data of https://github.com/lm-sys/FastChat: the questions, reference answers
            and judge prompts.
        output: Output folder. null is evaluations/NAME/mt_bench.
        judge: The judge. Without --judge.model, answers are generated but not graded.
        dry_run: Stop after the cost estimate. It needs all answers, so missing ones are generated first.
        answers: Existing answers in the format of model_answer, instead of a model.
        temperatures: Sampling temperatures: paper is greedy decoding in every category, as in the paper; fastchat
            samples with FastChat's temperature of the category: 0.7 for writing and roleplay, 0.1 for stem and
            humanities, greedy for the others.
        decoding: Changes to the decoding options of the training. The paper's are greedy decoding, repetition penalty
            1.1 and no repeated 5-grams.
        template: Prompt template: paper or chat. null is the one of the training, or for a model without an adapter
            its chat template.
        batch_size: Prompts per batch. The answers do not depend on it.
        limit: Number of questions per category, for a trial run.
        name: Name of the model in files and tables. null is the name of its folder or repository.
        compare: Output folders of other models to add to the tables and the picture.
        backbone: Backbone of the adapter, if it moved. null is the place that the adapter names.
        revision: Branch, tag or commit of the model's hub repository.
        backbone_options: Loading options, such as --backbone_options.dtype bfloat16. null takes the dtype and the
            quantization of the training, or for a model without an adapter the dtype of its files.
        device: Device, such as cuda:1. null is a GPU if there is one.
        trust: Packages that may be imported, which runs their code. Only adapters of a method outside red_lightning
            need it.

    Raises:
        UsageError: The model or the data is missing, the output folder has other content, or the judge fails.
    """
    from red_lightning.evaluation import judging
    from red_lightning.evaluation import mt_bench_grades as bench
    from red_lightning.evaluation.benchmark_answers import ANSWER, Contestant, claim, model_answers
    from red_lightning.evaluation.scored_models import find_model
    from red_lightning.jsonl import Records

    judging.check(judge, limit, dry_run)
    name = judging.name_of(model, answers, name)
    benchmark = bench.read_benchmark(data, limit)
    others = judging.results_of(compare, "mt_bench")
    folder = output or Path("evaluations", name, "mt_bench")
    settings: dict[str, Any] = {"suite": "mt_bench", "name": name}
    if answers is not None:
        written = bench.read_answers(answers)
        bench.gradings(benchmark, written, str(judge.model))  # refuses missing answers before the folder is created
        claim(folder, {**settings, "answers": judging.digest(answers.read_text(encoding="utf-8"))})
    else:
        candidate = find_model(str(model), backbone, revision, backbone_options, trust)
        contestant = Contestant(candidate, decoding, template, batch_size, device)
        claim(folder, {**settings, **contestant.settings, "temperatures": temperatures})

        def writer(category: str) -> "Writer":
            return contestant.writer(bench.temperature(category) if temperatures == "fastchat" else None)

        with Records(folder / "model_answer" / f"{name}.jsonl", ANSWER) as records:
            written = model_answers(writer, benchmark.questions, records, name, print)
    flagged = sum(bool(row.get("flags")) for row in written.values())
    if flagged:
        print(f"{flagged} questions have an empty answer because a prompt is too long; see 'flags' in model_answer")
    if judge.model is None:
        print(f"the answers are in {folder}; set --judge.model to grade them")
        return
    gradings = bench.gradings(benchmark, written, judge.model)
    asked = judging.ask(judge, folder, [one.request for one in gradings], bench.readable, dry_run)
    if asked is None:
        return
    replies, about = asked
    rows = bench.judgments(gradings, replies, name, judge.model)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    judging.write_file(folder / "model_judgment" / f"{judging.file_name(judge.model)}_single.jsonl", lines)
    scores = bench.scores(rows, {question["question_id"]: question["category"] for question in benchmark.questions})
    result = {**settings, "scores": scores, "flagged": flagged, "limit": limit, "judge": about}
    judging.write_file(folder / judging.RESULTS, json.dumps(result, indent=2) + "\n")
    _show({name: scores, **{other: found["scores"] for other, found in others.items()}}, folder)
    judging.print_limits({name: limit, **{other: found.get("limit") for other, found in others.items()}})


def _show(models: dict[str, Any], folder: Path) -> None:
    """Print the mean grades of each turn and of both, with those of Table 16, and draw Figure 2."""
    from red_lightning.errors import UsageError
    from red_lightning.evaluation import judging
    from red_lightning.evaluation.mt_bench_grades import CATEGORIES
    from red_lightning.paper.published import published_row
    from red_lightning.pictures.radar import draw_radar

    papers = {}
    for title, table in PUBLISHED.items():
        papers = {f"{method} (paper)": published_row(table, method).scores for method in METHODS}
        columns = {name: scores[title] for name, scores in models.items()}
        judging.print_columns(f"MT-Bench, {title}", {**columns, **papers})
    print("average: over all grades, as in the paper; failed judgments are in no mean")
    first = {name: {c: v for c, v in scores["turn 1"].items() if c in CATEGORIES} for name, scores in models.items()}
    papers = {f"{method} (paper)": published_row(PUBLISHED["turn 1"], method).scores for method in METHODS}
    try:
        draw_radar(first, folder / "radar.png", "MT-Bench, first turn", papers)
        print(f"wrote {folder}/results.json and radar.png")
    except UsageError as error:
        print(f"wrote {folder}/results.json, but no radar.png: {error}")
