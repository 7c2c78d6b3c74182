"""Divide the rows of an optimizer step among processes and micro-batches."""

from typing import Any

from red_lightning.errors import UsageError


def accumulation(global_batch_size: int, micro_batch_size: int | None, world_size: int) -> int:
    """Micro-batches of each process that make a global batch.

    Args:
        global_batch_size: Rows of one optimizer step.
        micro_batch_size: Rows that one process reads at once; None for its whole share.
        world_size: Number of processes.

    Raises:
        UsageError: They do not divide.
    """
    if global_batch_size % world_size:
        raise UsageError(
            f"data.global_batch_size is {global_batch_size}, which {world_size} processes cannot share equally; "
            f"make it a multiple of {world_size}"
        )
    share = global_batch_size // world_size
    if micro_batch_size is None:
        return 1
    if share % micro_batch_size:
        raise UsageError(
            f"data.global_batch_size {global_batch_size} on {world_size} process{'es' * (world_size > 1)} is {share} "
            f"rows each, which data.micro_batch_size {micro_batch_size} does not divide; make it a divisor of {share}"
        )
    return share // micro_batch_size


def accumulate(trainer: Any, global_batch_size: int, micro_batch_size: int | None) -> None:
    """Let Lightning accumulate as many micro-batches as make a global batch.

    Args:
        trainer: The Trainer, whose ``accumulate_grad_batches`` is set.
        global_batch_size: Rows of an optimizer step.
        micro_batch_size: Rows of a forward pass; None for the whole share of a process.

    Raises:
        UsageError: They do not divide, or the trainer was given another number.
    """
    micro_batches = accumulation(global_batch_size, micro_batch_size, trainer.world_size)
    if trainer.accumulate_grad_batches not in (1, micro_batches):
        raise UsageError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but accumulation follows from the "
            "batch sizes; leave it out and give data.micro_batch_size, the rows that a process reads at once"
        )
    trainer.accumulate_grad_batches = micro_batches
