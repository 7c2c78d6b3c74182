"""The values that configs take from the paper: those of its tables, for the config's own method and task."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

import red_lightning.methods
from red_lightning.errors import UsageError
from red_lightning.paper import register_resolvers
from red_lightning.paper.hyperparameters import hyperparameter, method_options, published, recipes
from red_lightning.paper.published import results as published_results

RECIPES = ["roberta_base", "roberta_large", "t5_base"]
TASKS = ["mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb"]
NAMES = {  # ours, and that of the transcribed tables
    "learning_rate": "lr",
    "weight_decay": "weight_decay",
    "warmup_ratio": "warmup_ratio",
    "max_epochs": "epochs",
    "batch_size": "batch_size",
}
METHODS = {"RED": "RED", "FullFineTuning": "FT"}
RIVALS = {"LoRA": "LoRA", "Adapter": "Adapter", "AdapterFFN": "Adapter_FFN", "BitFit": "BitFit"}
CASES = [
    *((recipe, method) for recipe in ("roberta_base", "roberta_large") for method in {**METHODS, **RIVALS}),
    ("t5_base", "RED"),
]
CASES.remove(("roberta_large", "BitFit"))
GPT2 = {
    "FullFineTuning": "FT",
    "LastBlocks": "FT_top2",
    "Adapter": "Adapter",
    "AdapterFFN": "Adapter_FFN",
    "LoRA": "LoRA",
    "PrefixTuning": "Prefix_Tuning",
}


@pytest.fixture(scope="module")
def tables(shared: Path) -> dict[str, Any]:
    return yaml.safe_load((shared / "paper/hyperparameters.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(shared: Path) -> dict[str, Any]:
    return yaml.safe_load((shared / "paper/results.yaml").read_text(encoding="utf-8"))


def test_tasks_are_in_the_order_of_the_tables(tables: dict[str, Any]) -> None:
    assert recipes()["tasks"] == tables["task_order"] == TASKS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("recipe", "method"), CASES)
def test_every_hyperparameter_is_the_papers(recipe: str, method: str, name: str, tables: dict[str, Any]) -> None:
    table = tables[recipe]
    value = table[{**METHODS, **RIVALS}[method]].get(
        NAMES[name], table.get(NAMES[name], 0.0 if name == "weight_decay" else None)
    )
    values = value if isinstance(value, list) else [value] * 8
    assert None not in values
    assert [hyperparameter(recipe, name, method, task) for task in TASKS] == values


def test_nothing_is_there_beyond_the_tables() -> None:
    """Every value of ``hyperparameters.yaml`` is compared by the other tests."""
    assert set(recipes()) == {"tasks", *RECIPES, "gpt2_medium", "gpt2_large", "llama2_7b"}
    for recipe in RECIPES:
        found = recipes()[recipe]
        assert set(found) == {*NAMES, "methods", "table"} - {"learning_rate"}
        assert set(found["methods"]) - {"RED+"} == {method for where, method in CASES if where == recipe}
        assert all(set(values) <= {*NAMES, "options"} for values in found["methods"].values())


def test_gpt2_has_the_values_of_its_table(tables: dict[str, Any]) -> None:
    table, plus = tables["gpt2_e2e"], tables["red_plus"]
    for recipe in ("gpt2_medium", "gpt2_large"):
        found = recipes()[recipe]
        assert set(found) == {"data", "table", "methods", *NAMES, "label_smoothing"} - {"learning_rate", "warmup_ratio"}
        assert set(found["methods"]) == {*GPT2, "RED", "RED+"}
        columns = {**{method: table[name] for method, name in GPT2.items()}, "RED": table[f"RED_{recipe[5:]}"]}
        for method, column in columns.items():
            for name, theirs in {**NAMES, "label_smoothing": "label_smoothing"}.items():
                if name in ("batch_size", "warmup_ratio"):
                    continue
                misprint = (recipe, method, name) == ("gpt2_large", "RED", "learning_rate")
                assert hyperparameter(recipe, name, method) == (6e-3 if misprint else column[theirs])
            assert hyperparameter(recipe, "batch_size", method) == table["batch_size"]
        for name in ("learning_rate", "weight_decay", "max_epochs"):
            assert hyperparameter(recipe, name, "RED+") == plus[recipe][NAMES[name]]


@pytest.mark.parametrize("recipe", ["roberta_base", "roberta_large", "gpt2_medium", "gpt2_large", "llama2_7b"])
def test_options_are_those_of_the_tables(recipe: str, tables: dict[str, Any]) -> None:
    sections = {"gpt2_medium": "gpt2_e2e", "gpt2_large": "gpt2_e2e", "llama2_7b": "llama2_7b_ultrafeedback"}
    table = tables[sections.get(recipe, recipe)]
    lora = method_options(recipe, "LoRA")
    sites = [name.removeprefix("r_") for name in table["LoRA"] if name.startswith("r_")]
    assert lora["sites"] == (sites or ["query", "value"])
    assert lora["alpha"] == table["LoRA"]["alpha"]
    ranks = {table["LoRA"][f"r_{site}"] for site in sites} or {table["LoRA"]["rank"]}
    assert {lora["rank"]} == ranks
    assert lora.get("dropout", 0) == table["LoRA"].get("dropout", 0)
    for method, name in {"Adapter": "Adapter", "AdapterFFN": "Adapter_FFN"}.items():
        assert method_options(recipe, method) == ({"rank": table[name]["rank"]} if name in table else {})
    prefix = table.get("Prefix_Tuning")
    assert method_options(recipe, "PrefixTuning") == ({"length": prefix["prefix_length"]} if prefix else {})
    assert method_options(recipe, "RED") == {}


@pytest.mark.parametrize("recipe", [*RECIPES, "gpt2_medium", "gpt2_large", "llama2_7b"])
def test_options_exist(recipe: str) -> None:
    for name in set(recipes()[recipe]["methods"]) - {"RED+"}:
        getattr(red_lightning.methods, name)(**method_options(recipe, name))


def test_published_results_are_the_transcribed_ones(results: dict[str, Any]) -> None:
    tables = {name: rows for name, rows in published_results().items() if isinstance(rows, list)}
    assert {f"table{number}" for number in (1, 2, 3, 5, 6, 7, 14, 15)} <= {name.split("_")[0] for name in tables}
    assert tables == {name: results[name] for name in tables}


def test_a_run_on_gpt2_is_shown_beside_its_own_row() -> None:
    def beside(method: str, **options: Any) -> Any:
        settings = config(method, task=None, recipe="gpt2_medium", backbone="openai-community/gpt2-medium")
        settings.model.init_args.method.init_args = options
        return settings.run.beside

    assert beside("LoRA", sites=["query", "key", "value"], rank=8, alpha=32) == {
        "paper (mean of 3 seeds)": {"BLEU": 0.6743, "NIST": 8.65, "METEOR": 0.4601, "ROUGE_L": 0.6964, "CIDEr": 2.42}
    }
    assert beside("LoRA", sites=["query", "key", "value"], rank=1, alpha=32) == {}
    assert beside("LoRA") == {}  # its own defaults adapt no keys
    assert beside("IA3") == {}
    assert beside("RED")["paper (mean of 3 seeds)"]["CIDEr"] == 2.28


def test_instruction_tuning_has_the_values_of_its_table(tables: dict[str, Any]) -> None:
    table, found = tables["llama2_7b_ultrafeedback"], recipes()["llama2_7b"]
    assert set(found) == {"data", "methods", *NAMES} - {"learning_rate", "max_epochs"}
    assert set(found["methods"]) == {*METHODS, "LoRA"}
    for method, column in {**METHODS, "LoRA": "LoRA"}.items():
        assert set(found["methods"][method]) - {"options"} == {"learning_rate", "max_epochs"}
        assert hyperparameter("llama2_7b", "learning_rate", method) == table[column]["lr"]
        assert hyperparameter("llama2_7b", "max_epochs", method) == table[column]["epochs"]
        for name in ("warmup_ratio", "batch_size"):
            assert hyperparameter("llama2_7b", name, method) == table[NAMES[name]]
        assert hyperparameter("llama2_7b", "weight_decay", method) == 0
        assert published("llama2_7b", method, None) == {}
    with pytest.raises(UsageError, match=r"gives no learning_rate for RED\+ on llama2_7b; give --model"):
        hyperparameter("llama2_7b", "learning_rate", "RED+")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_score_is_the_papers(recipe: str, method: str, results: dict[str, Any]) -> None:
    table = "table3_glue_t5_base" if recipe == "t5_base" else "table1_glue_roberta"
    size = recipe.split("_")[1]
    (row,) = [row for row in results[table] if row["method"].rstrip("*") == f"{METHODS[method]} ({size})"]
    columns = {"sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "stsb": "STS-B"}
    metrics = {"cola": "matthews", "stsb": "pearson"}
    for task in TASKS:
        ((title, scores),) = published(recipe, method, task).items()
        two = "two_class_" if (recipe, method, task) == ("t5_base", "RED", "mnli") else ""  # so the authors score it
        metric = two + metrics.get(task, "accuracy")
        assert scores == {metric: pytest.approx(row[columns.get(task, task.upper())] / 100)}
        assert title.startswith("paper" if recipe == "t5_base" else "paper (mean of 5 seeds)")


def test_red_plus_has_the_values_of_the_authors_repository(tables: dict[str, Any]) -> None:
    base, large = tables["red_plus"]["roberta_base"], tables["red_plus"]["roberta_large"]
    for task in TASKS:
        assert hyperparameter("roberta_base", "max_epochs", "RED+", task) == base["epochs"]
        assert hyperparameter("roberta_large", "max_epochs", "RED+", task) == large["epochs"]
        assert hyperparameter("roberta_large", "learning_rate", "RED+", task) == large["lr"]
        if task in base["lr"]:
            assert hyperparameter("roberta_base", "learning_rate", "RED+", task) == base["lr"][task]
        else:
            with pytest.raises(
                UsageError, match=rf"no learning_rate for RED\+ on roberta_base and {task}; give --model"
            ):
                hyperparameter("roberta_base", "learning_rate", "RED+", task)
        for recipe in ("roberta_base", "roberta_large"):  # what its scripts leave to the backbone
            assert hyperparameter(recipe, "batch_size", "RED+", task) == tables[recipe]["batch_size"]
            assert hyperparameter(recipe, "warmup_ratio", "RED+", task) == tables[recipe]["warmup_ratio"]
            assert hyperparameter(recipe, "weight_decay", "RED+", task) == 0
            assert published(recipe, "RED+", task) == {}


@pytest.mark.parametrize(
    ("recipe", "method"), [("t5_base", "FullFineTuning"), ("t5_base", "RED+"), ("roberta_base", "IA3")]
)
def test_what_the_paper_leaves_open_is_asked_for(recipe: str, method: str) -> None:
    with pytest.raises(UsageError, match=r"the paper gives no learning_rate for .*; give --model\.learning_rate$"):
        hyperparameter(recipe, "learning_rate", method, "rte")


@pytest.mark.parametrize("recipe", ["roberta_bass", "tasks", "bert"])
def test_an_unknown_recipe_is_refused(recipe: str) -> None:
    for ask in (lambda: hyperparameter(recipe, "batch_size", "RED", "rte"), lambda: published(recipe, "RED", "rte")):
        known = "known: gpt2_large, gpt2_medium, llama2_7b, roberta_base, roberta_large, t5_base"
        with pytest.raises(UsageError, match=rf"no recipe '{recipe}': .*{known}"):
            ask()


def test_an_unknown_task_is_refused() -> None:
    for ask in (
        lambda: hyperparameter("t5_base", "batch_size", "RED", "sst"),
        lambda: published("t5_base", "RED", "sst"),
    ):
        with pytest.raises(UsageError, match=r"unknown GLUE task 'sst': did you mean 'sst2'\?"):
            ask()


@pytest.mark.parametrize(("name", "meant"), [("learning_rat", "learning_rate"), ("epochs", "max_epochs")])
def test_an_unknown_hyperparameter_is_refused(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"no hyperparameter '{name}': did you mean '{meant}'\?"):
        hyperparameter("t5_base", name, "RED", "rte")


def config(
    method: str = "red_lightning.methods.RED",
    sites: list[str] | None = None,
    task: str | None = "mrpc",
    backbone: str = "FacebookAI/roberta-base",
    recipe: str = "roberta_base",
) -> DictConfig:
    """What a config of the paper says, as far as the values depend on it."""
    register_resolvers()
    adapted: dict[str, Any] = {"class_path": method, "init_args": {"sites": sites} if sites else {}}
    values = {name: f"${{paper:{recipe},{name}}}" for name in NAMES}
    return OmegaConf.create(
        {
            "model": {"class_path": "Classification", "init_args": {"backbone": backbone, "method": adapted, **values}},
            "data": {"class_path": "GLUE", "init_args": {"task": task} if task else {}},
            "run": {"beside": f"${{published:{recipe}}}"},
        }
    )


def resolved(settings: DictConfig) -> dict[str, Any]:
    return {name: settings.model.init_args[name] for name in NAMES}


def refusal(settings: DictConfig, name: str = "learning_rate") -> str:
    with pytest.raises(InterpolationResolutionError) as error:
        _ = settings.model.init_args[name]
    cause: BaseException | None = error.value
    while cause is not None and not isinstance(cause, UsageError):
        cause = cause.__context__  # omegaconf hides the cause
    return str(cause)


def test_a_config_follows_its_task_and_method() -> None:
    assert resolved(config()) == {
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "warmup_ratio": 0.06,
        "max_epochs": 40,
        "batch_size": 32,
    }
    settings = config()
    settings.data.init_args.task = "mnli"  # as the command line does
    assert (resolved(settings)["learning_rate"], resolved(settings)["max_epochs"]) == (1e-3, 20)
    settings.model.init_args.method.class_path = "FullFineTuning"
    assert (resolved(settings)["learning_rate"], resolved(settings)["weight_decay"]) == (1e-5, 1e-4)
    settings.model.init_args.learning_rate = 0.5
    assert resolved(settings)["learning_rate"] == 0.5
    large = config("FullFineTuning", task="qnli", recipe="roberta_large")
    assert (resolved(large)["batch_size"], resolved(large)["weight_decay"]) == (16, 0.1)


def test_a_config_without_a_task_follows_its_method() -> None:
    settings = config(task=None, recipe="llama2_7b", backbone="meta-llama/Llama-2-7b-hf")
    values = {"weight_decay": 0.0, "warmup_ratio": 0.1, "batch_size": 128}
    assert resolved(settings) == {"learning_rate": 1e-3, "max_epochs": 10, **values}
    settings.model.init_args.method.class_path = "FullFineTuning"
    assert resolved(settings) == {"learning_rate": 2e-5, "max_epochs": 3, **values}


@pytest.mark.parametrize(
    ("sites", "rate"),
    [
        (None, 3e-3),
        (["ffn"], 3e-3),
        (["query", "key", "value", "attention", "ffn"], 5e-3),
        (["ffn", "attention", "value", "key", "query"], 5e-3),
        (["query", "value", "ffn"], 3e-3),
    ],
    ids=str,
)
def test_all_sites_are_red_plus(sites: list[str] | None, rate: float) -> None:
    """Of RED on QNLI the paper says 3e-3; the authors' RED+ has 5e-3 and 20 epochs there."""
    settings = config(sites=sites, task="qnli")
    assert resolved(settings)["learning_rate"] == rate
    assert bool(settings.run.beside) == (sites in (None, ["ffn"]))  # there is no published score of other sites


def test_the_values_under_a_command() -> None:
    """LightningCLI keeps the config under the command's name."""
    register_resolvers()
    settings = OmegaConf.create({"log": "x", "fit": OmegaConf.to_container(config(task="rte"), resolve=False)})
    assert settings.fit.model.init_args.learning_rate == 8e-3
    assert settings.fit.run.beside == {"paper (mean of 5 seeds)": {"accuracy": 0.78}}


@pytest.mark.parametrize(
    ("backbone", "shown"),
    [("FacebookAI/roberta-base", True), ("/models/roberta-base", True), ("roberta-large", False), ("x/bert", False)],
)
def test_scores_are_shown_beside_the_same_backbone_only(backbone: str, shown: bool) -> None:
    expected = {"paper (mean of 5 seeds)": {"accuracy": 0.892}} if shown else {}
    assert config(backbone=backbone).run.beside == expected


def test_what_a_config_asks_in_vain() -> None:
    assert "no learning_rate for IA3 on roberta_base and mrpc" in refusal(config("peft.IA3"))
    assert "no learning_rate for RED+ on roberta_base and cola" in refusal(
        config(sites=["query", "key", "value", "attention", "ffn"], task="cola")
    )
    assert "unknown GLUE task 'mrpd': did you mean 'mrpc'?" in refusal(config(task="mrpd"))
    assert "no recipe 'roberta': did you mean 'roberta_base'?" in refusal(config(recipe="roberta"))
    assert "so data must be GLUE" in refusal(config(task=None))
