"""``evaluate --suite mt_bench``: MT-Bench, beside the paper's Table 16 and Figure 2."""

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
    """Answer MT-Bench's 80 questions of two turns, and let a judge grade each answer from 1 to 10.

    The answers go to model_answer/, as FastChat writes them, and the judge's replies to replies.jsonl, one record
    each: the same command goes on where it was stopped, and asks again for what failed. The judge is any
    OpenAI-compatible endpoint; it is asked FastChat's prompts, for math, reasoning and coding with reference answers.
    Its grades go to model_judgment/, their means to results.json, and those of the first turn to radar.png. A prompt
    that is longer than the model reads gets an empty answer, which is flagged, counted and graded.

        evaluate --suite mt_bench runs/red --judge.model ID --judge.base_url http://host/v1 --judge.key_variable null

    Args:
        model: A run's folder, its edits folder, a folder with a model (merged or plain), or a hub repository of
            either.
        data: The folder fastchat/llm_judge/data of https://github.com/lm-sys/FastChat, with the questions, the
            reference answers and the judge's prompts.
        output: The folder for all files; null for one below evaluations that is called like the model.
        judge: Who grades; without --judge.model only answers are written.
        dry_run: Stop after the estimate of what the judge will cost; it takes the answers, which are written first.
        answers: Answers that were written elsewhere, in the format of model_answer, instead of a model.
        temperatures: How answers are drawn: paper takes the likeliest tokens in every category (greedy, as the paper
            answers); fastchat draws with FastChat's temperature of the category (0.7 for writing and roleplay, 0.1 for
            stem and humanities), and is greedy in the others.
        decoding: What is decoded otherwise than in training (the paper's: greedy, repetition penalty 1.1, no 5-gram
            twice).
        template: How a conversation becomes tokens: paper or chat; null takes the one that was trained, and for a model
            without edits its own chat template.
        batch_size: Prompts that are answered at once; the answers do not depend on it.
        limit: Only the first so many questions of each category, to try things out.
        name: What files and tables call the model; null for the name of its folder or repository.
        compare: Output folders of other models, to be shown in the same tables and picture.
        backbone: Where the backbone of edits is now; null for where they say.
        revision: Branch, tag or commit of the model's hub repository.
        backbone_options: How the model is loaded, such as --backbone_options.dtype bfloat16; null for the dtype and
            the quantization of the training, and for a model without edits the dtype of its files.
        device: Where the model runs, such as cuda:1; null for a GPU if there is one.
        trust: Packages whose own methods may be imported, such as my_package: their code runs. Only edits of a method
            that is not part of red_lightning need it.

    Raises:
        UsageError: There is no such model or data, the folder holds something else, or the judge gives no judgments.
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
        bench.gradings(benchmark, written, str(judge.model))  # refuses answers that are not there
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
        print(f"{flagged} questions have an empty answer, as a prompt is too long; 'flags' in model_answer says which")
    if judge.model is None:
        print(f"the answers are in {folder}; give --judge.model to have them graded")
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
    """Tables of both turns and of all grades beside Table 16, and the picture of Figure 2."""
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
    print("average: over all grades, as in the paper; a failed judgment is in no mean")
    first = {name: {c: v for c, v in scores["turn 1"].items() if c in CATEGORIES} for name, scores in models.items()}
    papers = {f"{method} (paper)": published_row(PUBLISHED["turn 1"], method).scores for method in METHODS}
    try:
        draw_radar(first, folder / "radar.png", "MT-Bench, first turn", papers)
        print(f"wrote {folder}/results.json and radar.png")
    except UsageError as error:
        print(f"wrote {folder}/results.json, but no radar.png: {error}")
