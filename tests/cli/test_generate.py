"""``generate``: what a run's own ``predict`` writes, from its edits alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from red_lightning import apply_edits
from red_lightning.generation.writer import Writer
from tests.adapters.test_file_format import rewrite
from tests.backbones_zoo import build_tokenizer, save_backbone
from tests.cli.commands import rows, write_experiment
from tests.cli.conftest import CLI
from tests.training import write_pairs

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TURNS = [
    {"role": "user", "content": "Where is Cocum?"},
    {"role": "assistant", "content": "By the riverside."},
    {"role": "user", "content": "What does it serve?"},
]


def write_instructions(folder: Path, backbone: Path, template: str) -> None:
    """An experiment on a few instructions, called ``small.yaml``, and prompts."""
    path = write_experiment(folder, backbone, max_epochs=1)
    experiment = json.loads(path.read_text(encoding="utf-8"))
    model = experiment["model"]["init_args"]
    del model["metrics"]
    model["decoding"] = {"num_beams": 1, "repetition_penalty": 1.3, "max_new_tokens": 7, "stop_at_blank_line": False}
    experiment["model"]["class_path"] = "InstructionTuning"
    lines = [{"prompt": f"What does Zizzi {n} serve?", "response": f"Thai food {n}."} for n in range(8)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = {
        "train_file": "train.jsonl",
        "validation_size": 2,
        "template": template,
        "global_batch_size": 2,
        "max_length": 99,
    }
    experiment["data"] = {"class_path": "Instructions", "init_args": options}
    path.write_text(json.dumps(experiment), encoding="utf-8")
    asked = [{"messages": [{"role": "user", "content": "Name a pub."}]}, {"messages": TURNS}]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")


def check_equals_predict(cli: CLI, folder: Path, name: str, *options: str) -> list[dict[str, Any]]:
    """Fit, predict, and generate from the edits; returns the rows that were generated."""
    assert cli("fit", "--config", "small.yaml", "--run.name", "run").status == 0
    best = ["--ckpt_path", "runs/run/checkpoints/best.ckpt", "--data.predict_file", "prompts.jsonl"]
    assert cli("predict", "--config", "small.yaml", "--run.name", "again", *best).status == 0
    done = cli("generate", "runs/run", "--file", "prompts.jsonl", "--output", "out.jsonl", *options)
    assert done.status == 0, done.err
    predicted, written = rows(folder / "runs/again/predictions.jsonl"), rows(folder / "out.jsonl")
    assert [row["row"] for row in written] == list(range(len(predicted)))
    assert [row["output"] for row in written] == [row[name] for row in predicted]
    return written


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_data_to_text_equals_predict(family: str, cli: CLI, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write_experiment(tmp_path, request.getfixturevalue(f"{family}_folder"), max_epochs=1)
    experiment = json.loads(path.read_text(encoding="utf-8"))
    experiment["model"]["init_args"]["decoding"] = {"num_beams": 3, "max_new_tokens": 6}
    path.write_text(json.dumps(experiment), encoding="utf-8")
    write_pairs(tmp_path / "prompts.jsonl", 5)
    lines = (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    named = [{"id": f"r{number}", **json.loads(line)} for number, line in enumerate([*lines, lines[1]])]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    written = check_equals_predict(cli, tmp_path, "prediction", "--batch_size", "2")
    predicted = rows(tmp_path / "runs/again/predictions.jsonl")
    for found in (predicted, written):  # a line for each row, with its own number and id, though one occurs twice
        assert [(row["row"], row["id"]) for row in found] == [(n, f"r{n}") for n in range(len(named))]
    assert written[1]["prompt"] == "name[The Vaults 1], food[Italian]"
    assert len({row["output"] for row in written}) > 1


@pytest.mark.parametrize("template", ["paper", "chat"])
def test_instructions_equal_predict(template: str, cli: CLI, tmp_path: Path) -> None:
    backbone = save_backbone("llama", tmp_path / "llama")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(backbone)
    write_instructions(tmp_path, backbone, template)
    written = check_equals_predict(cli, tmp_path, "answer")
    assert written[1]["prompt"] == "What does it serve?" and written[1]["messages"] == TURNS
    assert "messages" not in written[0]
    other = {"paper": "chat", "chat": "paper"}[template]
    experiment = json.loads((tmp_path / "small.yaml").read_text(encoding="utf-8"))
    del experiment["data"]["init_args"]["template"]  # the checkpoint knows it
    (tmp_path / "bare.yaml").write_text(json.dumps(experiment), encoding="utf-8")
    best = ["--ckpt_path", "runs/run/checkpoints/best.ckpt", "--data.predict_file", "prompts.jsonl"]
    assert cli("predict", "--config", "bare.yaml", "--run.name", "bare", *best).status == 0
    assert rows(tmp_path / "runs/bare/predictions.jsonl") == rows(tmp_path / "runs/again/predictions.jsonl")
    error = cli("predict", "--config", "bare.yaml", *best, "--data.template", other).error
    assert error == f"data.template is '{other}', but the checkpoint was trained with '{template}'. Leave it out"
    done = cli("generate", "runs/run", "--file", "prompts.jsonl", "--template", other)
    assert [json.loads(line)["output"] for line in done.out.splitlines()] != [row["output"] for row in written]


@pytest.fixture
def edits(cli: CLI, tmp_path: Path, gpt2_folder: Path) -> Path:
    """Random edits of a tiny GPT-2 for data-to-text, as a run leaves them behind, in ``runs/one`` and ``runs/two``."""
    import torch

    from red_lightning import RED, save_edits
    from red_lightning.backbones.fingerprint import fingerprint

    for number, name in enumerate(("one", "two")):
        model = AutoModelForCausalLM.from_pretrained(gpt2_folder)
        record = {
            "backbone": str(gpt2_folder),
            "commit": None,
            "fingerprint": fingerprint(model),
            "method": RED().describe(),
            "task": "DataToText",
            "decoding": {"num_beams": 1, "no_repeat_ngram_size": 4, "max_new_tokens": 6},
            "data": {"max_source_length": 64},
            "trainable_parameters": 128,
        }
        learned = RED().apply(model)
        for vector in learned.values():
            vector.data += 0.5 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(number))
        save_edits(tmp_path / "runs" / name / "edits", learned, record)
    (tmp_path / "prompts.txt").write_text("name[Zizzi], food[Thai]\nname[Cocum], area[riverside]\n", encoding="utf-8")
    return tmp_path / "runs/one"


PROMPT = "name[Zizzi], food[Thai]"


def greedy(folder: Path, edits: Path | None, prompt: str = PROMPT) -> str:
    """Transformers' own greedy text of a source and EOS."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if edits:
        apply_edits(model, edits / "edits")
    tokenizer: PreTrainedTokenizerFast = build_tokenizer()
    inputs = tokenizer(prompt + "<eos>", return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False, no_repeat_ngram_size=4, pad_token_id=1)
    return tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_one_prompt_goes_to_the_terminal(cli: CLI, edits: Path, gpt2_folder: Path) -> None:
    assert cli("generate", "runs/one", "--prompt", PROMPT).out.rstrip("\n") == greedy(gpt2_folder, edits)
    off = cli("generate", str(edits / "edits"), "--prompt", PROMPT, "--edited", "false")
    assert off.out.rstrip("\n") == greedy(gpt2_folder, None) != greedy(gpt2_folder, edits)


def test_a_model_without_edits_continues_texts(cli: CLI, edits: Path, gpt2_folder: Path) -> None:
    few = [
        "--decoding.max_new_tokens",
        "6",
        "--decoding.repetition_penalty",
        "1",
        "--decoding.no_repeat_ngram_size",
        "4",
    ]
    texts = [
        cli("generate", *model, "--prompt", f"{PROMPT}<eos>", *few).out
        for model in ([str(gpt2_folder)], ["--backbone", str(gpt2_folder)])
    ]
    assert texts == [greedy(gpt2_folder, None) + "\n"] * 2


def test_sampling_follows_its_seed(cli: CLI, edits: Path) -> None:
    def sampled(seed: int) -> str:
        done = cli(
            "generate", "runs/one", "--prompt", PROMPT, "--decoding.temperature", "1.5", f"--decoding.seed={seed}"
        )
        assert done.status == 0, done.err
        return done.out

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_run_that_is_interrupted_goes_on(
    cli: CLI, edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", "runs/one", "--file", "prompts.txt", "--output", "out.jsonl", "--batch_size", "1"]
    assert cli(*command).status == 0
    whole = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    (tmp_path / "out.jsonl").unlink()
    decode, calls = Writer._decode, []

    def killed(self: Writer, tokens: Any, say: Any = None) -> list[str]:
        calls.append(len(tokens))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return decode(self, tokens, say)

    monkeypatch.setattr(Writer, "_decode", killed)
    assert cli(*command).status == 130
    assert not (tmp_path / "out.jsonl").exists() and len(rows(tmp_path / "out.jsonl.part")) == 2
    done = cli(*command)
    assert done.status == 0 and "going on: 1 of 2 texts are there" in done.err
    assert len(calls) == 3 and (tmp_path / "out.jsonl").read_text(encoding="utf-8") == whole
    assert "exists already" in cli(*command).error
    assert cli(*command, "--overwrite", "true").status == 0


def test_what_another_model_began_is_not_gone_on_with(
    cli: CLI, edits: Path, tmp_path: Path, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(gpt2_folder, tmp_path / "merged")
    decode = Writer._decode
    models = {"runs/one": edits / "edits/edits.safetensors", "merged": tmp_path / "merged/model.safetensors"}
    for place, weights in models.items():
        command = ["generate", place, "--file", "prompts.txt", "--output", "out.jsonl", "--batch_size", "1"]
        command += ["--decoding.max_new_tokens", "4"]

        def begin(command: list[str] = command) -> None:
            def killed(self: Writer, tokens: Any, say: Any = None) -> list[str]:
                monkeypatch.setattr(Writer, "_decode", stopped)
                return decode(self, tokens, say)

            def stopped(self: Writer, tokens: Any, say: Any = None) -> list[str]:
                raise KeyboardInterrupt

            monkeypatch.setattr(Writer, "_decode", killed)
            assert cli(*command).status == 130
            monkeypatch.setattr(Writer, "_decode", decode)

        begin()
        for odd in (["--backbone_options.dtype", "bfloat16"], ["--template", "plain", "--decoding.seed", "1"]):
            assert "begun with another model" in cli(*command, *odd).error
        learned = load_file(weights)
        changed = {name: tensor + 0.01 for name, tensor in learned.items()}
        if weights.name == "edits.safetensors":
            rewrite(changed, weights.parent)
        else:
            save_file(changed, weights, metadata={"format": "pt"})
        assert "begun with another model" in cli(*command).error
        assert cli(*command, "--overwrite", "true").status == 0
        (tmp_path / "out.jsonl").unlink()


@pytest.mark.parametrize("ending", ["html", "md"])
def test_runs_are_shown_side_by_side(ending: str, cli: CLI, edits: Path, tmp_path: Path, gpt2_folder: Path) -> None:
    page = f"page.{ending}"
    models = ["runs/one", "--compare", "runs/two", str(gpt2_folder), "--baseline", "true"]
    done = cli("generate", *models, "--file", "prompts.txt", "--output", page)
    assert done.status == 0, done.err
    text = (tmp_path / page).read_text(encoding="utf-8")
    if ending == "html":
        heads = [part.split("</h3>")[0] for part in text.split("<h3>")[1:]]
        assert heads == ["unedited", "one", "two", gpt2_folder.name] * 2
        assert text.count("128 trained parameters") == 4
        assert greedy(gpt2_folder, None).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:3] in text
    assert "Decoded with" in text and "unedited: template source, num" in text.replace("\\", "")
    assert "exists already" in cli("generate", "--compare", "runs/one", "--prompt", "a", "--output", page).error


def test_a_page_refuses_before_the_first_answer_and_goes_on(
    cli: CLI, edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls = Writer._decode, []

    def killed(self: Writer, tokens: Any, say: Any = None) -> list[str]:
        calls.append(len(tokens))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return decode(self, tokens, say)

    monkeypatch.setattr(Writer, "_decode", killed)
    command = ["generate", "runs/one", "--compare", "runs/two", "--file", "prompts.txt", "--batch_size", "1"]
    record = tmp_path / "runs/two/edits/edits.json"
    good = record.read_text(encoding="utf-8")
    record.write_text(json.dumps({**json.loads(good), "data": {"max_source_length": 3}}), encoding="utf-8")
    assert "but the edits were trained on sources of at most 3" in cli(*command, "--output", "page.html").error
    assert calls == [] and not [*tmp_path.glob("page*")]
    record.write_text(good, encoding="utf-8")
    assert cli(*command, "--output", "page.html").status == 130
    assert not (tmp_path / "page.html").exists()
    done = cli(*command, "--output", "page.html")
    assert done.status == 0 and "going on: 3 of 4 texts are there" in done.err
    assert len(calls) == 5 and not (tmp_path / "page.html.part").exists()
    assert cli(*command, "--output", "whole.html").status == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "whole.html").read_text(encoding="utf-8") and page.count("Decoded with template") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "either --prompt TEXT or --file FILE"),
        (["--prompt", "a", "--file", "prompts.txt"], "either --prompt TEXT or --file FILE"),
        (["--file", "missing.txt"], "'missing.txt' does not exist"),
        (["--prompt", "a " * 99], "at most 64; shorten it, or have it cut (--overlong cut)"),
        (["--prompt", "a\udcff"], "the prompt is no UTF-8 text"),
        (["--prompt", "a", "--baseline", "true"], "--baseline belongs to --compare"),
        (["--prompt", "a", "--compare", "--output", "x.md"], "--compare names nothing"),
        (["--prompt", "a", "--compare", "runs/two"], "ends in .html or .md"),
        (["--prompt", "a", "--compare", "./nowhere", "--output", "x.md"], "'./nowhere' does not exist"),
        (["--prompt", "a", "--output", "no/x.jsonl"], "the folder 'no'"),
        (["--prompt", "a", "--device", "gpu"], "the device 'gpu' cannot be used"),
        (["--prompt", "a", "--decoding.num_beams", "2", "--decoding.temperature", "1"], "give num_beams 1"),
        (["--prompt", "a", "--template", "chat"], "has no chat template"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], said: str, cli: CLI, edits: Path) -> None:
    assert said in cli("generate", "runs/one", *options).error


def test_another_backbone_is_refused_without_the_edits_too(cli: CLI, edits: Path, llama_folder: Path) -> None:
    for option in (["--edited", "false"], ["--compare", "runs/two", "--baseline", "true", "--output", "page.md"]):
        done = cli("generate", "runs/one", "--prompt", "a", "--backbone", str(llama_folder), *option)
        assert "belong to another backbone" in done.error


@pytest.mark.parametrize("columns", [None, [], {"source": 5}])
def test_odd_columns_of_the_training_are_passed_over(columns: Any, cli: CLI, edits: Path) -> None:
    record = json.loads((edits / "edits/edits.json").read_text(encoding="utf-8"))
    record["data"]["columns"] = columns
    (edits / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    assert cli("generate", "runs/one", "--file", "prompts.txt").status == 0


def test_a_terminal_is_not_steered(cli: CLI, edits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "stream", lambda self, prompt, say: say("a\x1b[2J"))
    monkeypatch.setattr(Writer, "_decode", lambda self, rows: ["a\x9b"] * len(rows))
    wild = [cli("generate", "runs/one", "--prompt", "a").out, cli("generate", "runs/one", "--file", "prompts.txt").out]
    assert "\x1b" in wild[0] and "\x9b" in wild[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    tame = [cli("generate", "runs/one", "--prompt", "a").out, cli("generate", "runs/one", "--file", "prompts.txt").out]
    assert tame[0] == "a\ufffd[2J\n" and "\x9b" not in tame[1]


def test_without_a_model_it_says_so(cli: CLI) -> None:
    assert "name a run's edits" in cli("generate", "--prompt", "a").error
