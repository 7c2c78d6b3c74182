"""What the cells of the paper's tables train at the real sizes, beside the paper's ``# Params``."""

from decimal import Decimal

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig

import red_lightning.methods
from red_lightning.paper.published import published_row
from red_lightning.studies.cells import setting
from tests.methods.real_sizes import CONFIGS, on_meta
from tests.studies.test_shipped_studies import shipped

POOLER = {"base": 768 * 768 + 768, "large": 1024 * 1024 + 1024}
PRINTED_OTHERWISE = {
    # Classifiers have no pooler here, as in the authors' code; the paper prints the size of the published checkpoint.
    ("table1_glue_roberta", "FT (base)"): (125, lambda count: count + POOLER["base"]),
    ("table1_glue_roberta", "FT (large)"): (355, lambda count: count + POOLER["large"]),
    # Others' figure, rounded to two digits: 222,903,552.
    ("table3_glue_t5_base", "FT (base)"): (220, lambda count: round(count, -7)),
}
LLAMA = LlamaConfig(  # Llama-2-7B
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
)


def cells() -> list[tuple[str, str]]:
    """A study and a row of its table, for each row."""
    found = []
    for name in ("table1", "table2", "table3", "table5"):
        study, every = shipped(name)
        assert study.report.published is not None
        found += [(name, row) for row in dict.fromkeys(study.report.published["row"].format(**c.labels) for c in every)]
    return found


@pytest.mark.parametrize(("name", "row"), cells())
def test_the_counts_of_the_tables_are_the_printed_ones(name: str, row: str) -> None:
    study, every = shipped(name)
    assert study.report.published is not None
    table, pattern = study.report.published["table"], study.report.published["row"]
    cell = next(cell for cell in every if pattern.format(**cell.labels) == row)
    backbone = str(setting(cell.experiment, "model.backbone")).rsplit("/", 1)[-1]
    auto = {"roberta": AutoModel, "gpt2": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM}[backbone.split("-")[0]]
    method = setting(cell.experiment, "model.method")
    make = getattr(red_lightning.methods, method["class_path"].rsplit(".", 1)[-1])
    count = sum(p.numel() for p in make(**method.get("init_args") or {}).apply(on_meta(backbone, auto)).values())
    printed, of = PRINTED_OTHERWISE.get((table, row), (published_row(table, row).parameters, lambda count: count))
    assert printed is not None
    assert rounded(of(count), printed) == Decimal(str(printed))


@pytest.mark.parametrize(("label", "printed", "exact"), [("LoRA", 8.39, 8_388_608), ("RED", 0.26, 262_144)])
def test_the_counts_on_llama_are_the_printed_ones(label: str, printed: float, exact: int) -> None:
    _, every = shipped("llama")
    method = setting(next(cell for cell in every if cell.labels["method"] == label).experiment, "model.method")
    make = getattr(red_lightning.methods, method["class_path"].rsplit(".", 1)[-1])
    with torch.device("meta"):
        backbone = AutoModelForCausalLM.from_config(LLAMA)
    assert sum(p.numel() for p in make(**method.get("init_args") or {}).apply(backbone).values()) == exact
    assert rounded(exact, printed) == Decimal(str(printed))


def test_the_sizes_of_the_backbones_are_the_published_ones() -> None:
    assert sum(p.numel() for p in on_meta("roberta-base").parameters()) + POOLER["base"] == 124_645_632
    assert sum(p.numel() for p in on_meta("gpt2-medium", AutoModelForCausalLM).parameters()) == 354_823_168
    assert sum(p.numel() for p in on_meta("t5-base", AutoModelForSeq2SeqLM).parameters()) == 222_903_552
    assert set(CONFIGS) == {"roberta-base", "roberta-large", "t5-base", "gpt2-medium", "gpt2-large"}


def rounded(count: float, printed: float) -> Decimal:
    """A count in millions, to as many places as the printed one has."""
    return (Decimal(count) / 1_000_000).quantize(Decimal(str(printed)))
