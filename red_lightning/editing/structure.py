"""Count changes of models' modules, so that cached facts about a model can be refreshed."""

_changes = 0


def structure_changed() -> None:
    """Note that modules were added to a model or removed from it."""
    global _changes
    _changes += 1


def structure_changes() -> int:
    """Return how often :func:`structure_changed` was called in this process."""
    return _changes
