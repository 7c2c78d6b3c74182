"""Strategies that divide a backbone over processes, for ``trainer.strategy`` (torch >= 2.6).

Their checkpoints are those of a single process: each resumes what another wrote, on any number of processes.
"""

from red_lightning.strategies.deepspeed import DeepSpeed
from red_lightning.strategies.fsdp import FSDP
from red_lightning.strategies.fsdp2 import FSDP2

__all__ = ["FSDP", "FSDP2", "DeepSpeed"]
