"""The paper's hyperparameters and published results, as data that configs refer to."""

from red_lightning.paper.hyperparameters import register_resolvers

__all__ = ["register_resolvers"]
