"""How many processes Lightning's ModelParallelStrategy divides a model over."""

from typing import Any


def divide_over_all(strategy: Any) -> None:
    """Divide the model over all processes; call it before the strategy's ``setup_environment``.

    Lightning's ModelParallelStrategy (2.6) takes the number in its constructor, when the processes are not counted yet,
    and keeps it in the private ``_data_parallel_size``. Its own ``"auto"`` is the number of nodes, with which the
    processes of a node would work on the same rows.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes
