"""``evaluate --suite open_llm``: the Open LLM Leaderboard, or any other task of lm-eval."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from red_lightning.backbones.loading import BackboneOptions

if TYPE_CHECKING:
    from rich.table import Table

    from red_lightning.evaluation.open_llm_scores import Scores


def open_llm(
    model: str,
    tasks: list[str] = ["arc", "truthfulqa", "winogrande", "gsm8k", "hellaswag", "mmlu"],  # noqa: B006 - never changed
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    device: str | None = None,
    backbone: str | None = None,
    revision: str | None = None,
    backbone_options: BackboneOptions | None = None,
    include_path: str | None = None,
    chat_template: bool = False,
    system: str | None = None,
    output: Path | None = None,
    name: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Score a model on the six benchmarks of the Open LLM Leaderboard, or on any other task of lm-eval.

    The six are asked as in the paper (Table 17): ARC with 25 solved examples before each question (Challenge and Easy
    together), TruthfulQA with none beside its own (mc2), Winogrande with 5, GSM8K with 5, HellaSwag with 10, MMLU with
    5; the table shows them beside Table 18. The scores, all other metrics, the versions of the tasks and the settings
    go to open_llm.json, task by task: the same command goes on where it was stopped. Needs the extra `evaluation`.

        evaluate --suite open_llm runs/mine --tasks truthfulqa arc

    Args:
        model: A run's folder, its edits folder, a folder with a model (merged or plain), or a hub repository of
            either.
        tasks: What to score, with spaces or commas between: arc, truthfulqa, winogrande, gsm8k, hellaswag, mmlu, and
            tasks, groups or tags of lm-eval such as lambada_openai.
        num_fewshot: Solved examples before each question; null for the paper's number, or the task's own.
        limit: Only the first so many questions of each task (of each of MMLU's 57), to try things out.
        batch_size: Questions at once: the scores do not depend on it.
        device: Where the model runs, such as cuda:1; null for a GPU if there is one.
        backbone: Where the backbone of edits is now; null for where they say.
        revision: Branch, tag or commit of the model's hub repository.
        backbone_options: How the model is loaded, such as --backbone_options.dtype bfloat16; null for the dtype and
            the quantization of the training, and for a model without edits the dtype of its files.
        include_path: A folder of task descriptions of your own, in lm-eval's format.
        chat_template: Ask in the model's template for conversations (that of the training, or of its tokenizer), solved
            examples as earlier turns. The paper's scores are without.
        system: Text before each question; with --chat_template a system message.
        output: The folder of open_llm.json; null for one below evaluations that is called like the model.
        name: What the folder and the table call the model; null for the name of its folder or repository.
        trust: Packages whose own methods may be imported, such as my_package: their code runs. Only edits of a method
            that is not part of red_lightning need it.

    Raises:
        UsageError: There is no such model or task, its questions cannot be read, or the folder holds something else.
    """
    from rich.console import Console

    from red_lightning.errors import UsageError
    from red_lightning.evaluation.judging import name_of
    from red_lightning.evaluation.leaderboard import require_harness
    from red_lightning.evaluation.open_llm_scores import Questions, score_all
    from red_lightning.evaluation.scored_models import find_model

    require_harness()
    names = [task.strip() for task in ",".join(tasks).split(",") if task.strip()]
    if not names:
        raise UsageError("--tasks names no task; leave it out for the six of the leaderboard")
    candidate = find_model(model, backbone, revision, backbone_options, trust)
    name = name_of(model, None, name)
    folder = output or Path("evaluations", name, "open_llm")
    questions = Questions(num_fewshot, limit, include_path, chat_template, system)
    scores = score_all(candidate, names, questions, folder, batch_size, device, lambda line: print(line, flush=True))
    console = Console()
    console.print(_table(scores, names, f"Scores of {name}"))
    others = {"limit": limit, "num_fewshot": num_fewshot, "chat_template": chat_template or None, "system": system}
    if given := [f"--{option}" for option, value in others.items() if value is not None]:
        print(f"not comparable with the paper: {' and '.join(given)} {'is' if len(given) == 1 else 'are'} given")
    print(f"scores: {scores.path}")


def _table(scores: "Scores", names: list[str], title: str) -> "Table":
    """A line for each task, with the paper's figures beside it, in percent; other metrics as they are."""
    from rich.table import Table

    from red_lightning.evaluation.leaderboard import LEADERBOARD

    paper = _table_18() if {*names} & {*LEADERBOARD} else {}
    table = Table(title=title, show_edge=False, pad_edge=False)  # a leaderboard fits in 80 columns
    for column in ("task", "metric"):
        table.add_column(column, overflow="fold")
    for column in ("shots", "questions", "score", *(f"{method}\n(paper)" for method in paper)):
        table.add_column(column, justify="right", no_wrap=True)
    for name in dict.fromkeys(names):
        found = scores.content["tasks"][name]
        if name in LEADERBOARD:
            known = LEADERBOARD[name].title
            beside = [f"{row[known]:.2f}" for row in paper.values()]
            about = _described({**found, "metric": LEADERBOARD[name].measure})
            table.add_row(known, *about, f"{100 * found['score']:.2f}", *beside)
            continue
        for task, metrics in found["metrics"].items():
            for metric, value in metrics.items():
                if "_stderr" not in metric:
                    about = _described({**found, "metric": metric}, task)
                    table.add_row(task, *about, f"{value:.4f}", *("" for _ in paper))
    average = scores.average()
    if average is not None:
        table.add_section()
        table.add_row(
            "Average", "", "", "", f"{100 * average:.2f}", *(f"{row['Average']:.2f}" for row in paper.values())
        )
    return table


def _described(found: Mapping[str, Any], task: str | None = None) -> tuple[str, str, str]:
    shots = found["num_fewshot"]
    shown = {shots[task]} if task in shots else {*shots.values()}
    return found["metric"].removesuffix(",none"), ", ".join(map(str, sorted(shown))), str(found["questions"])


def _table_18() -> dict[str, dict[str, float]]:
    from red_lightning.paper.published import results

    return {row["method"]: row for row in results()["table18_open_llm_leaderboard"]}
