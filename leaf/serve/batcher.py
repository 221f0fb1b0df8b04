"""Predict images from concurrent requests in small batches."""

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

MAX_BATCH = 4  # maximum number of images per batch, a power of two
_PREDICT, _WHEN_IDLE, _STOP = 0, 1, 2  # priorities

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """Raised if the queue has no room for another request."""


class Batcher(Generic[Item, Answer]):
    """Predict images from concurrent requests in small batches, in one thread.

    Images are queued individually, so a single image never waits for another client's whole upload. A batch contains
    the images in the queue when the model becomes free, at most `MAX_BATCH`; the model never waits to fill a batch.

    Args:
        predict: maps a sequence of items to one prediction per item.
        max_queue: maximum number of waiting requests.
    """

    def __init__(self, predict: Callable[[Sequence[Item]], Sequence[Answer]], max_queue: int = 64) -> None:
        self._predict = predict
        self._max_queue = max_queue
        self._order = itertools.count()
        self._queue: queue.PriorityQueue[tuple[int, int, Any, Future[Any]]] = queue.PriorityQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    async def predict(self, item: Item) -> Answer:
        """Return the prediction for `item`. Raises QueueFullError or any error from the model."""
        return await asyncio.wrap_future(self._enqueue(_PREDICT, item))

    async def run_when_idle(self, work: Callable[[], Result]) -> Result:
        """Run `work()` in the same thread when no image is waiting. Raises QueueFullError or any error from `work`."""
        return await asyncio.wrap_future(self._enqueue(_WHEN_IDLE, work))

    def stop(self) -> None:
        """Finish all queued work, then end the thread."""
        self._queue.put((_STOP, next(self._order), None, Future()))
        self._thread.join()

    def _enqueue(self, priority: int, work: Any) -> Future[Any]:
        if self._queue.qsize() >= self._max_queue:
            raise QueueFullError
        future: Future[Any] = Future()
        self._queue.put((priority, next(self._order), work, future))
        return future

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            if entry[0] == _STOP:
                return
            if entry[0] == _PREDICT:
                self._finish(self._fill_batch(entry), self._predict)
            else:
                self._finish([entry], lambda works: [work() for work in works])

    def _fill_batch(self, entry: tuple) -> list[tuple]:
        batch = [entry]
        while len(batch) < MAX_BATCH:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following[0] != _PREDICT:
                self._queue.put(following)
                break
            batch.append(following)
        return batch

    @staticmethod
    def _finish(entries: list[tuple], work: Callable[[list], Sequence]) -> None:
        active = [(item, future) for _, _, item, future in entries if future.set_running_or_notify_cancel()]
        if not active:  # all requests were canceled
            return
        try:
            results = work([item for item, _ in active])
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            for _, future in active:
                future.set_exception(error)
        else:
            for (_, future), result in zip(active, results, strict=True):
                future.set_result(result)
