"""Replacing a value that Lightning has logged, without the cost of ``LightningModule.log``."""

from lightning import Trainer
from torch import Tensor


def replace_logged(trainer: Trainer, hook: str, name: str, value: Tensor, batch_size: int) -> bool:
    """Replace the value that a hook has logged in this epoch, if it has logged one.

    Lightning (2.6) holds logged values in the private ``Trainer._results``: by hook and name, with the arguments of the
    first call of ``log``. ``log`` checks these again on each call, which takes as long as all of Lightning's hooks of a
    step together. Nothing breaks without it: training steps take longer.

    Args:
        trainer: It, in the hook.
        hook: The hook's name, such as ``training_step``.
        name: The name that was logged.
        value: The new value, a scalar.
        batch_size: The rows that it is the mean of.

    Returns:
        False if nothing was replaced, so that ``log`` must be called: in a hook's first batch of an epoch, and on a
        release of Lightning that holds its results in another form.
    """
    key = f"{hook}.{name}"
    try:
        results = trainer._results
        if results is None or key not in results or results[key].has_reset:
            return False
        results.update_metrics(key, value, batch_size)
    except (AttributeError, TypeError, LookupError):
        return False
    return True
