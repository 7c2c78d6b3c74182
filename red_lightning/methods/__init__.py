"""Ways to adapt a frozen backbone: one paper, one file."""

from inspect import isabstract

from red_lightning.methods.adalora import AdaLoRA
from red_lightning.methods.adapters import Adapter, AdapterDrop, AdapterFFN
from red_lightning.methods.bitfit import BitFit
from red_lightning.methods.full import FullFineTuning
from red_lightning.methods.head_only import HeadOnly
from red_lightning.methods.ia3 import IA3
from red_lightning.methods.last_blocks import LastBlocks
from red_lightning.methods.lora import LoRA
from red_lightning.methods.method import Method
from red_lightning.methods.prefix import PrefixTuning
from red_lightning.methods.prompt import PromptTuning
from red_lightning.methods.qlora import QLoRA
from red_lightning.methods.red import RED, RED_PLUS_SITES, RepresentationEditor
from red_lightning.methods.reft import LoReFT
from red_lightning.methods.ssf import SSF
from red_lightning.methods.steering import SteeringVector
from red_lightning.methods.vera import VeRA

__all__ = [
    "IA3",
    "RED",
    "RED_PLUS_SITES",
    "SSF",
    "AdaLoRA",
    "Adapter",
    "AdapterDrop",
    "AdapterFFN",
    "BitFit",
    "FullFineTuning",
    "HeadOnly",
    "LastBlocks",
    "LoRA",
    "LoReFT",
    "Method",
    "PrefixTuning",
    "PromptTuning",
    "QLoRA",
    "RepresentationEditor",
    "SteeringVector",
    "VeRA",
]


def shipped() -> dict[str, type[Method]]:
    """Return the methods of the package by class name, in the order of ``__all__``."""
    every = {name: globals()[name] for name in __all__}
    return {n: c for n, c in every.items() if isinstance(c, type) and issubclass(c, Method) and not isabstract(c)}


def that_combine(*kinds: str) -> list[str]:
    """Return the names of the methods whose adapters combine in one of these ways (:attr:`Method.combines`)."""
    return [name for name, method in shipped().items() if method.combines in kinds]
