"""Say how much of the batches of an epoch is padding."""

from collections.abc import Sequence
from typing import Literal

from red_lightning.data.resumable_loader import EpochBatches

Way = Literal["packed", "grouped", "plain"]


def padding_note(
    lengths: Sequence[int],
    global_batch_size: int,
    micro_batch_size: int | None,
    seed: int,
    world_size: int,
    way: Way,
) -> str:
    """Return a sentence on the padding of the first epoch, and on what it would be otherwise.

    Args:
        lengths: Tokens of each row.
        global_batch_size: Rows of an optimizer step.
        micro_batch_size: Rows of a forward pass; None for the whole share of a process.
        seed: Seed of the order.
        world_size: Number of processes.
        way: How rows share batches: packed into one sequence, grouped by length, or neither.
    """

    def share(grouped: bool) -> float:
        """Return the padding among all tokens."""
        padded = 0
        for rank in range(world_size):
            like = lengths if grouped else None
            batches = EpochBatches(len(lengths), global_batch_size, seed, rank, world_size, like, micro_batch_size)
            padded += sum(len(rows) * max(lengths[row] for row in rows) for rows in batches if rows[0] >= 0)
        return 1 - sum(lengths) / padded

    if way == "packed":
        return f"padding: none, for rows are packed (otherwise {share(False):.1%} of the tokens)"
    if way == "grouped":
        return (
            f"padding: {share(True):.1%} of the tokens, for rows are grouped by length (otherwise {share(False):.1%})"
        )
    return f"padding: {share(False):.1%} of the tokens; data.packing or data.group_by_length saves it"
