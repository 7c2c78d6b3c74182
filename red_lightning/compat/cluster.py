"""The environment that Lightning's processes run in."""

from lightning import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment


def leave_requeueing(trainer: Trainer) -> None:
    """Keep Lightning from handling SLURM's signals; call it in a callback's ``setup``, before Lightning listens.

    Lightning (2.6) knows the environment of any strategy by the private ``Trainer._accelerator_connector``; the
    strategies of several processes have it as the public ``cluster_environment``. Without it, a signal that comes
    before a callback's own handlers are set saves a checkpoint within a step, and requeues the job twice.
    """
    known = getattr(trainer, "_accelerator_connector", trainer.strategy)
    environment = getattr(known, "cluster_environment", None)
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
