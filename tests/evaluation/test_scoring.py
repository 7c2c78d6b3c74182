"""Scores of lm-eval's tasks against the same computed with plain torch."""

import copy
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval")

from red_lightning.adapters import Edited
from red_lightning.errors import UsageError
from red_lightning.evaluation.language_model import LanguageModel
from red_lightning.evaluation.leaderboard import LEADERBOARD, UnavailableError, load_tasks
from red_lightning.evaluation.open_llm_scores import language_model
from red_lightning.evaluation.scoring import score_tasks


def asked(loaded: dict[str, Any]) -> list[Any]:
    """The requests of a task, with lm-eval's answers."""
    return [request for task in loaded["tasks"].values() for request in task.instances]


def edit_by_hand(plain: Any, edited: Any) -> None:
    """Compute ``scaling * h + bias`` with hooks of the test's own, from the numbers of an edited model."""
    learned = dict(edited.named_parameters())
    for index, layer in enumerate(plain.model.layers):
        found = [p for name, p in learned.items() if f"layers.{index}.mlp.down_proj." in name and p.requires_grad]
        scaling, bias = found
        layer.mlp.down_proj.register_forward_hook(lambda _, __, out, s=scaling, b=bias: s * out + b)


@torch.no_grad()
def log_likelihood(model: Any, tokenizer: Any, context: str, answer: str) -> float:
    before, tokens = (torch.tensor(tokenizer(text)["input_ids"]) for text in (context, context + answer))
    log_probabilities = model(tokens[None]).logits[0].log_softmax(-1)
    places = torch.arange(len(before), len(tokens))
    return float(log_probabilities[places - 1, tokens[places]].sum())


def test_log_likelihoods_are_those_of_the_edited_model(
    questions: Path, llama: Any, edited: Any, tokenizer: Any
) -> None:
    loaded = load_tasks("truthfulqa")
    unedited = score_tasks(LanguageModel(llama, tokenizer, 4), "truthfulqa", loaded, limit=3)
    found = score_tasks(LanguageModel(edited, tokenizer, 4), "truthfulqa", loaded, limit=3)
    assert found["score"] != pytest.approx(unedited["score"], abs=1e-3)
    edit_by_hand(llama, edited)
    by_question: dict[int, list[tuple[float, int]]] = {}
    for request in asked(loaded):
        context, answer = request.args
        expected = log_likelihood(llama, tokenizer, context, answer)
        assert request.resps[0][0] == pytest.approx(expected, abs=1e-3)
        label = request.doc["mc2_targets"]["labels"][request.idx]
        by_question.setdefault(request.doc_id, []).append((expected, label))
    # mc2: the probability of the true answers among all
    shares = []
    for answers in by_question.values():
        probabilities = np.exp([value for value, _ in answers])
        shares.append(probabilities[[label == 1 for _, label in answers]].sum() / probabilities.sum())
    assert found["score"] == pytest.approx(float(np.mean(shares)), abs=1e-5)
    assert (found["questions"], found["shortened"]) == (3, 0)


def test_scores_do_not_depend_on_the_batch_size(questions: Path, edited: Any, tokenizer: Any) -> None:
    for name in ("truthfulqa", "hellaswag", "gsm8k"):
        loaded, answers = load_tasks(name), []
        for batch_size in (1, 4):
            score_tasks(LanguageModel(edited, tokenizer, batch_size, 290), name, loaded, limit=2)
            answers.append([request.resps[0] for request in asked(loaded)])
        if name == "gsm8k":
            assert answers[0] == answers[1]
            continue
        for one, other in zip(*answers, strict=True):
            assert other[0] == pytest.approx(one[0], abs=1e-3)


def test_generation_is_greedy(questions: Path, llama: Any, edited: Any, tokenizer: Any) -> None:
    loaded = load_tasks("gsm8k", num_fewshot=0)
    score_tasks(LanguageModel(edited, tokenizer, 2, 276), "gsm8k", loaded, limit=2)
    edit_by_hand(llama, edited)
    for request in asked(loaded)[:1]:
        tokens = torch.tensor([tokenizer(request.args[0])["input_ids"][-(276 - 256) :]])
        start, text = tokens.shape[1], ""
        with torch.no_grad():
            while tokens.shape[1] < start + 256 and not re.search("Question:|</s>|<\\|im_end\\|>", text):
                following = llama(tokens).logits[:, -1].argmax(-1, keepdim=True)
                if following.item() == tokenizer.eos_token_id:
                    break
                tokens = torch.cat([tokens, following], dim=1)
                text = tokenizer.decode(tokens[0, start:], skip_special_tokens=True)
        assert request.resps[0] == re.split("Question:|</s>|<\\|im_end\\|>", text)[0]


def test_benchmarks_are_asked_as_in_table_17(questions: Path, llama: Any, tokenizer: Any) -> None:
    model = LanguageModel(llama, tokenizer, 8)
    found = {}
    for name, repeated in (("arc", "Question: "), ("winogrande", "\n\n"), ("hellaswag", "\n\n")):
        loaded = load_tasks(name)
        found[name] = score_tasks(model, name, loaded, limit=2)
        for request in asked(loaded):
            shots = request.args[0].count(repeated) - (name == "arc")
            assert shots == LEADERBOARD[name].num_fewshot
            assert set(found[name]["num_fewshot"].values()) == {shots}
    arc = found["arc"]
    assert arc["metric"] == "acc_norm,none" and set(arc["versions"]) == {"arc_challenge", "arc_easy"}
    parts = [arc["metrics"][task]["acc_norm,none"] for task in ("arc_challenge", "arc_easy")]
    assert arc["score"] == pytest.approx(sum(parts) / 2)
    assert {name: benchmark.num_fewshot for name, benchmark in LEADERBOARD.items()} == {
        "arc": 25, "truthfulqa": 0, "winogrande": 5, "gsm8k": 5, "hellaswag": 10, "mmlu": 5
    }  # fmt: skip


def test_a_benchmark_of_parts_is_the_mean_over_all_questions(questions: Path, llama: Any, tokenizer: Any) -> None:
    found = score_tasks(LanguageModel(llama, tokenizer, 8, 300), "arc", load_tasks("arc", 0))
    counts = {"arc_challenge": 40, "arc_easy": 40}
    rows = (questions / "allenai/ai2_arc/ARC-Easy/test.jsonl").read_text().splitlines()
    counts["arc_easy"] = len(rows)
    right = sum(found["metrics"][task]["acc_norm,none"] * count for task, count in counts.items())
    assert found["score"] == pytest.approx(right / sum(counts.values()))
    assert found["questions"] == sum(counts.values())


def test_what_is_drawn_afterwards_is_the_same(questions: Path, llama: Any, tokenizer: Any) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    model, loaded = LanguageModel(llama, tokenizer), load_tasks("winogrande")
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = score_tasks(model, "winogrande", loaded, limit=3)
    assert draw() == expected
    assert score_tasks(model, "winogrande", loaded, limit=3) == first  # the same examples are drawn


def test_a_context_too_short_for_the_answer_is_refused(questions: Path, llama: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"'gsm8k' cannot be scored with this model: .*256"):
        score_tasks(LanguageModel(llama, tokenizer, 8, 200), "gsm8k", load_tasks("gsm8k"), limit=1)


def test_long_prompts_are_cut_without_a_warning(
    questions: Path, llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import tokenization_utils_base

    said: list[str] = []
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", said.append)
    short = copy.deepcopy(tokenizer)
    short.model_max_length = 200
    found = score_tasks(LanguageModel(llama, short, 8, 200), "truthfulqa", load_tasks("truthfulqa"), limit=1)
    assert found["shortened"] > 0 and said == []


@pytest.mark.parametrize("name", ["positions", "Method", "RepresentationEditor"])
def test_a_method_that_is_none_is_refused(name: str, llama: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=f"unknown method '{name}'"):
        language_model(Edited(llama, tokenizer, None, {"method": {"name": name, "package": "os"}}), 8)


def test_questions_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UnavailableError, match=r"the questions of 'winogrande' cannot be read: .*allenai/winogrande"):
        load_tasks("winogrande")
    with pytest.raises(UsageError, match="the folder 'nowhere' of include_path does not exist"):
        load_tasks("winogrande", include_path="nowhere")
    with pytest.raises(UsageError, match="num_fewshot is -1, but must be at least 0"):
        load_tasks("winogrande", -1)


@pytest.mark.slow
def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no task 'helaswag': did you mean 'hellaswag'.*known: arc, truthfulqa, "):
        load_tasks("helaswag")


def test_questions_are_asked_in_the_template_of_the_training(
    questions: Path, edited: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Solved examples are earlier turns, and the text before each question is a system message."""
    record = {"task": "InstructionTuning", "data": {"template": "paper"}}
    model = language_model(Edited(edited, tokenizer, None, record), 4, chat=True)
    loaded = load_tasks("winogrande", 1)
    score_tasks(model, "winogrande", loaded, limit=2, chat=True, system="Be brief.")
    context = asked(loaded)[0].args[0]
    assert context.startswith("Be brief.\n\nHuman: ") and context.endswith("Assistant:")
    assert context.count("Human: ") == 2 and context.count("<eos>") == 1
    plain = Edited(edited, tokenizer, None, {"task": "DataToText"})
    with pytest.raises(UsageError, match="continues texts"):
        language_model(plain, 4, chat=True)
