"""Predict images from concurrent requests in small batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

MAX_BATCH = 4  # maximum number of images per batch, a power of two

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """Raised if the queue has no room for another request."""


class Batcher(Generic[Item, Answer]):
    """Predict images from concurrent requests in small batches, in one thread.

    A batch contains the images in the queue when the model becomes free, at most `MAX_BATCH`. The model never waits
    to fill a batch.

    Args:
        predict: maps a sequence of items to one prediction per item.
        max_queue: maximum number of waiting requests.
    """

    def __init__(self, predict: Callable[[Sequence[Item]], Sequence[Answer]], max_queue: int = 64) -> None:
        self._predict = predict
        self._max_queue = max_queue
        self._images: deque[tuple[Any, Future[Any]]] = deque()
        self._idle: deque[tuple[Any, Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def predict(self, item: Item) -> Answer:
        """Return the prediction for `item`. Raises QueueFullError or any error from the model."""
        return await self._enqueue(self._images, item)

    async def run_when_idle(self, work: Callable[[], Result]) -> Result:
        """Run `work()` in the same thread when no image is waiting. Raises QueueFullError or any error from `work`."""
        return await self._enqueue(self._idle, work)

    def stop(self) -> None:
        """Finish all queued work, then end the thread."""
        self._thread.shutdown()

    def _enqueue(self, waiting: deque[tuple[Any, Future[Any]]], work: Any) -> Any:
        if len(self._images) + len(self._idle) >= self._max_queue:
            raise QueueFullError
        future: Future[Any] = Future()
        waiting.append((work, future))
        self._thread.submit(self._run_next)  # does nothing if an earlier batch already includes `work`
        return asyncio.wrap_future(future)

    def _run_next(self) -> None:
        if self._images:
            batch = [self._images.popleft() for _ in range(min(len(self._images), MAX_BATCH))]
            self._finish(batch, self._predict)
        elif self._idle:
            self._finish([self._idle.popleft()], lambda works: [work() for work in works])

    @staticmethod
    def _finish(entries: list[tuple[Any, Future[Any]]], work: Callable[[list], Sequence]) -> None:
        active = [(item, future) for item, future in entries if future.set_running_or_notify_cancel()]
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
