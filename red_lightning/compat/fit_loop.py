"""Where Lightning's training loop stands: within an accumulation, before a validation, after one."""

from lightning import Trainer


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the gradients of the current micro-batch wait for those of the next one.

    Lightning (2.6) decides so in the private ``_TrainingEpochLoop._should_accumulate``. The same is computed here from
    names that are public. If Lightning decides otherwise one day, a checkpoint would be taken to be whole while
    gradients are gathered, and training would not resume exactly.
    """
    progress, strategy = trainer.fit_loop.epoch_loop.batch_progress, trainer.strategy
    ready = progress.current.ready
    is_last = progress.is_last_batch or ready == trainer.num_training_batches
    steps_on_last = is_last and not strategy.handles_gradient_accumulation
    return bool(ready % trainer.accumulate_grad_batches) and not steps_on_last


def validates_next(trainer: Trainer) -> bool:
    """Return whether Lightning validates right after the current training batch; call it in ``on_train_batch_end``.

    Lightning (2.6) has no public name for this. ``_TrainingEpochLoop._should_check_val_fx`` depends on the epoch, the
    batch, the clock and on whether training stops early. Without it a run that resumes from a checkpoint written after
    the batch would skip that validation, so there is no other answer to fall back on.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def repeat_validation(trainer: Trainer) -> None:
    """Run the validation of a fit before the loop continues, as if it had run before the checkpoint was written.

    Lightning (2.6) marks a validation loop that has run by the private ``_has_run``, by which a restarted epoch is
    taken to be complete. With the mark, training would end after the repeated validation of an epoch's last batch.
    """
    validation = trainer.fit_loop.epoch_loop.val_loop
    validation.restarting = False
    trainer.validating = True
    validation.run()
    trainer.training = True
    validation._has_run = False
