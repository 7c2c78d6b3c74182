"""Base class of modules with trainable parameters."""

from red_lightning.compat.module_dtype import KeepsDtype


class Learned(KeepsDtype):
    """A module that is learned: it follows the backbone to another device, but never to another dtype.

    In bfloat16 a scaling would never leave 1 (its neighbour there is 1.0078), and small steps of any other number
    would be lost too.
    """
