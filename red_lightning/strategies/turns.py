"""Threads that take turns: one runs, until it waits for the others or ends."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from red_lightning.strategies.allocation import share_freed_memory

Waiting = Mapping[int, Any]
"""What each thread that waits has called, by its number."""

Switch = Callable[[int | None, int | None], None]
"""Told that the turn goes from one thread (None: none) to another."""


class StoppedError(SystemExit):
    """Ends a thread because the others were ended."""


class Turns:
    """Runs pieces of work in threads, of which one has the turn at any time, always in the same order.

    A thread gives its turn to the next when it calls :meth:`meet`. When all that have not ended do, one of them
    computes what several have called, and they go on. So nothing depends on timing, and nothing needs a lock.

    Args:
        count: How many threads there are.
        choose: Given what every thread waits for, says which threads are served together; the first computes.
        compute: Given what these have called, returns what each gets. It runs in the first one's thread, and so under
            its autocast and its device.
        switch: Called whenever the turn goes from one thread (None: none) to another.
    """

    def __init__(
        self,
        count: int,
        choose: Callable[[Waiting, int], Sequence[int]],
        compute: Callable[[Waiting], Mapping[int, Any]],
        switch: Switch = lambda before, after: None,
    ) -> None:
        self._choose, self._compute, self._switch = choose, compute, switch
        self._gates = [threading.Semaphore(0) for _ in range(count)]
        self._over = threading.Event()
        self._live: list[int] = []
        self._waiting: dict[int, Any] = {}
        self._results: dict[int, Any] = {}
        self._served: Sequence[int] = ()
        self.stopped = False
        self.ended: dict[int, BaseException | None] = {}
        """How each thread has ended: None, or its exception."""

    def start(self, work: Sequence[Callable[[], None]]) -> None:
        """Start the threads, each with its piece of work; and others, when they have ended."""
        self._live = list(range(len(work)))
        self.ended.clear()
        self._over.clear()
        share_freed_memory()
        self._threads = [threading.Thread(target=self._run, args=(me, one), daemon=True) for me, one in enumerate(work)]
        for thread in self._threads:
            thread.start()
        self._switch(None, 0)
        self._gates[0].release()

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until all threads have ended.

        Args:
            meanwhile: Called now and then in the thread that calls this, which may be the one that hears signals.
        """
        while not self._over.wait(
            0.2
        ):  # an interrupt in Thread.join lets Python 3.11 believe that the thread has ended
            meanwhile()
        for thread in self._threads:
            thread.join()

    def meet(self, me: int, called: Any) -> Any:
        """Wait until every other thread waits too, or has ended, and get what was called.

        Raises:
            BaseException: What computing it has raised, or the threads were stopped.
        """
        self._waiting[me] = called
        following = self._next(me)
        if following != me:
            self._pass_on(me, following)
            self._gates[me].acquire()
        if me not in self._results:
            self.check()
            self._serve()
        result = self._results.pop(me)
        if isinstance(result, BaseException):
            raise result
        return result

    def stop(self) -> None:
        """Let every thread end where it waits, or calls :meth:`check`."""
        self.stopped = True

    def check(self) -> None:
        """End the thread that calls this, if the threads were stopped."""
        if self.stopped:
            raise StoppedError(1)

    def _run(self, me: int, work: Callable[[], None]) -> None:
        error: BaseException | None = None
        self._gates[me].acquire()
        try:
            self.check()
            work()
        except BaseException as caught:
            error = caught
        self.ended[me] = error
        self._live.remove(me)
        self._waiting.pop(me, None)
        self._pass_on(me, self._next(me))

    def _next(self, me: int) -> int | None:
        """Whose turn it is next: the next thread's that can go on, or else one's that computes for several."""
        free = [other for other in self._live if other not in self._waiting]
        if free:
            return next((other for other in free if other > me), free[0])
        if not self._live:
            return None
        self._served = self._choose(self._waiting, me)
        return self._served[0]

    def _serve(self) -> None:
        """Compute what the chosen threads have called; an exception is everybody's."""
        served, self._served = self._served, ()
        called = {other: self._waiting.pop(other) for other in served}
        try:
            self._results.update(self._compute(called))
        except BaseException as error:
            self._results.update(dict.fromkeys(called, error))

    def _pass_on(self, before: int | None, after: int | None) -> None:
        """Let another thread go on; what follows in this one must wait at its gate, or end."""
        self._switch(before, after)
        if after is None:
            self._over.set()
        else:
            self._gates[after].release()
