"""One network, many askers: each image has its turn, answers before heat maps."""

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Picture = TypeVar("Picture")

TOGETHER = 4  # images in one pass of the network, a power of two
_FIRST, _LATER, _STOP = 0, 1, 2  # an answer that a person waits for, a picture beside it


class BusyError(Exception):
    """More work waits already than this machine does in a reasonable time."""


class Turns(Generic[Item, Answer]):
    """Ask a network in a thread of its own, so that the server itself never waits.

    Images wait one by one, whoever sent them, so one that comes after a hundred others of somebody who sends the next
    when the last is answered has its turn after those that wait now. The network is never kept idle to gather a
    batch: it takes what waits at that moment, at most `TOGETHER`, so nobody waits long for others either.
    """

    def __init__(self, judge: Callable[[Sequence[Item]], Sequence[Answer]], most: int = 64) -> None:
        """Answer images with `judge`; let at most `most` pieces of work wait."""
        self._judge = judge
        self._most = most
        self._order = itertools.count()
        self._line: queue.PriorityQueue[tuple[int, int, Any, Future[Any]]] = queue.PriorityQueue()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    async def answer(self, item: Item) -> Answer:
        """Wait for a turn, then for what `judge` says of `item`. Raises BusyError, and whatever `judge` raises."""
        return await asyncio.wrap_future(self._stand(_FIRST, item))

    async def draw(self, work: Callable[[], Picture]) -> Picture:
        """Wait until no image waits for its answer, then for `work()`. Raises BusyError, and whatever `work` raises."""
        return await asyncio.wrap_future(self._stand(_LATER, work))

    def stop(self) -> None:
        """Finish what waits, then end the thread."""
        self._line.put((_STOP, next(self._order), None, Future()))
        self._thread.join()

    def _stand(self, priority: int, what: Any) -> Future[Any]:
        if self._line.qsize() >= self._most:
            raise BusyError
        future: Future[Any] = Future()
        self._line.put((priority, next(self._order), what, future))
        return future

    def _run(self) -> None:
        while True:
            entry = self._line.get()
            if entry[0] == _STOP:
                return
            if entry[0] == _FIRST:
                self._finish(self._with_waiting(entry), self._judge)
            else:
                self._finish([entry], lambda works: [work() for work in works])

    def _with_waiting(self, entry: tuple) -> list[tuple]:
        """Give `entry` with the images that wait behind it now."""
        taken = [entry]
        while len(taken) < TOGETHER:
            try:
                following = self._line.get_nowait()
            except queue.Empty:
                break
            if following[0] != _FIRST:
                self._line.put(following)
                break
            taken.append(following)
        return taken

    @staticmethod
    def _finish(entries: list[tuple], work: Callable[[list], Sequence]) -> None:
        there = [(what, future) for _, _, what, future in entries if future.set_running_or_notify_cancel()]
        if not there:  # the askers have gone
            return
        try:
            answers = work([what for what, _ in there])
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
            for _, future in there:
                future.set_exception(error)
            return
        for (_, future), answer in zip(there, answers, strict=True):
            future.set_result(answer)
