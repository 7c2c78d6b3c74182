"""AdaLoRA: its steps against peft's own, the penalty, exact resume, and accumulation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor

from red_lightning.errors import UsageError
from red_lightning.methods import AdaLoRA
from red_lightning.tasks.optimization import add_gradient
from tests.backbones_zoo import build
from tests.callbacks.test_resume import KeepEvery
from tests.methods.guarantees import run
from tests.training import learned, make_data, make_task, make_trainer

STEPS = 20


def as_peft(name: str) -> str:
    return f"base_model.model.{name.replace('.editor', '.default')}"


def test_every_step_is_pefts() -> None:
    """Importance, budget, pruning and the mask of the last phase, through all three phases."""
    method = AdaLoRA(
        ["query", "value"], 2, 4, alpha=16, initial_share=0.2, final_share=0.4, interval=3, orthogonality=0.3
    )
    ours = build("gpt2", dropout=0)
    parameters = method.apply(ours)
    config: Any = AdaLoraConfig(
        task_type="CAUSAL_LM",  # else peft leaves the penalty out
        init_r=4,
        target_r=2,
        lora_alpha=16,
        tinit=4,
        tfinal=8,
        deltaT=3,
        total_step=STEPS,
        orth_reg_weight=0.3,
        target_modules=["c_attn"],
        fan_in_fan_out=True,
    )
    theirs = get_peft_model(build("gpt2", dropout=0), config)
    direct = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for name, parameter in parameters.items():
        direct[as_peft(name)].data.copy_(parameter)
    assert len(direct) == len(parameters)
    optimizers = [torch.optim.Adam(group.values(), lr=0.05) for group in (parameters, direct)]
    ranks = []
    for step in range(1, STEPS + 1):
        rows = torch.randint(0, 300, (2, 5), generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        ours(input_ids=rows, labels=rows).loss.backward()
        add_gradient(method.penalty(ours), parameters.values())
        theirs(input_ids=rows, labels=rows).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        method.after_step(ours, optimizers[0].state, step, STEPS)
        theirs.base_model.update_and_allocate(step)
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter, direct[as_peft(name)], atol=2e-5, rtol=1e-4)
        ranks.append(sum(int(p.count_nonzero()) for name, p in parameters.items() if "lora_E" in name))
    assert ranks[0] == ranks[4] == 8  # two linears of rank 4; the first pruning is at step 6
    assert ranks[5] == 5  # 4 + 4 * 0.75 ** 3
    assert ranks[11:] == [4] * 9  # the target, for good


def test_penalty_is_zero_for_orthogonal_matrices() -> None:
    method, model = AdaLoRA(target_rank=2, initial_rank=3, orthogonality=0.5), build("roberta")
    parameters = method.apply(model)
    grams = []
    for name, parameter in parameters.items():
        if "lora_E" not in name:
            tall = parameter if "lora_B" in name else parameter.T
            grams.append((tall.T @ tall - torch.eye(3)).pow(2).sum().sqrt())
    torch.testing.assert_close(method.penalty(model), 0.5 * sum(grams) / len(grams))
    for name, parameter in parameters.items():
        if "lora_E" not in name:
            torch.nn.init.orthogonal_(parameter.data)
    assert method.penalty(model).item() < 1e-6


def small() -> AdaLoRA:
    return AdaLoRA(["query", "ffn"], 1, 3, initial_share=0.2, final_share=0.4, interval=3)


def fitted(
    folder: Path, gpt2: Path, checkpoint: Path | None = None, micro_batch_size: int | None = None, **options: Any
) -> tuple[dict[str, Tensor], Any]:
    """Fit a small task, with Adam for three epochs or with SGD for one."""
    trainer = make_trainer(folder, KeepEvery(every_n_steps=1), max_epochs=1 if options else 3)
    task = make_task(gpt2, method=small(), **options)
    rows = make_data(folder.parent, micro_batch_size=micro_batch_size)
    trainer.fit(task, datamodule=rows, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return learned(task), trainer


def test_resume_is_bit_identical_in_each_phase(gpt2_folder: Path, tmp_path: Path) -> None:
    end, trainer = fitted(tmp_path / "whole", gpt2_folder)
    assert trainer.global_step == 18
    kept = [int(value.count_nonzero()) for name, value in end.items() if "lora_E" in name]
    assert sum(kept) == 4 and len(kept) == 4  # a mean rank of 1
    for step in (2, 7, 14):
        path = tmp_path / f"whole/checkpoints/step{step}.kept"
        resumed, _ = fitted(tmp_path / f"resumed{step}", gpt2_folder, path)
        assert not [name for name, value in resumed.items() if not torch.equal(value, end[name])], step
    state = torch.load(path, weights_only=True)["optimizer_states"][0]["state"]
    e = next(entry for name, entry in state.items() if "lora_E" in name)
    assert {"importance", "uncertainty", "kept", "exp_avg"} <= set(e)


def test_penalty_counts_once_whatever_the_accumulation(gpt2_folder: Path, tmp_path: Path) -> None:
    whole, _ = fitted(tmp_path / "whole", gpt2_folder, optimizer="SGD")
    parts, _ = fitted(tmp_path / "parts", gpt2_folder, optimizer="SGD", micro_batch_size=1)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-3)


def test_a_skipped_step_prunes_nothing() -> None:
    method, model = small(), build("gpt2")
    parameters = method.apply(model)
    optimizer = torch.optim.Adam(parameters.values(), lr=0.1)
    for step in range(1, 11):  # no gradients at all: nothing is known
        add_gradient(method.penalty(model), parameters.values())
        optimizer.step()
        method.after_step(model, optimizer.state, step, 10)
    assert all(parameter.grad is None for parameter in parameters.values())
    run(model).square().mean().backward()
    optimizer.step()
    assert all(p.count_nonzero() for name, p in parameters.items() if "lora_A" in name)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target_rank": 13}, "target_rank is 13, but must lie between 1 and 12"),
        ({"initial_share": 0.6, "final_share": 0.6}, "initial_share and final_share make more than 1"),
        ({"interval": 0}, "interval is 0, but must be at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        AdaLoRA(**options)
