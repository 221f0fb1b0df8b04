"""Test the batching, order and errors of concurrent requests to one model."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaf.serve.batcher import MAX_BATCH, Batcher, QueueFullError


@pytest.fixture
def run_queued():
    """Return a function that queues requests while the first prediction is blocked, and returns the later batches."""

    def run(request, max_queue=64):
        gate, batches = threading.Event(), []

        def predict(items):
            if items == ["held"]:
                gate.wait()
            else:
                batches.append(list(items))
            return [1 / item if isinstance(item, int) else item.upper() for item in items]

        batcher = Batcher(predict, max_queue)

        async def unblock():
            first = asyncio.create_task(batcher.predict("held"))
            await asyncio.sleep(0.05)
            requests = asyncio.create_task(request(batcher, batches))
            await asyncio.sleep(0.05)
            gate.set()
            await first
            await requests

        try:
            with ThreadPoolExecutor(1) as thread:  # playwright keeps an event loop running in the main thread
                thread.submit(asyncio.run, unblock()).result()
        finally:
            gate.set()
            batcher.stop()
        return batches

    return run


def test_single_request_waits_for_one_batch_only(run_queued):
    async def request(batcher, batches):
        async def many():
            for number in range(3):
                await batcher.predict(f"many {number}")

        await asyncio.gather(many(), batcher.predict("one"))

    assert run_queued(request) == [["many 0", "one"], ["many 1"], ["many 2"]]


def test_waiting_images_are_batched_up_to_max_batch(run_queued):
    async def request(batcher, batches):
        await asyncio.gather(*(batcher.predict(str(number)) for number in range(MAX_BATCH + 1)))

    assert [len(batch) for batch in run_queued(request)] == [MAX_BATCH, 1]


def test_each_request_gets_its_own_prediction(run_queued):
    async def request(batcher, batches):
        answers = await asyncio.gather(*(batcher.predict(letter) for letter in "abcdef"))
        assert answers == list("ABCDEF")

    run_queued(request)


def test_predictions_run_before_heatmaps(run_queued):
    async def request(batcher, batches):
        await asyncio.gather(batcher.run_when_idle(lambda: batches.append("heatmap")), batcher.predict("image"))

    assert run_queued(request) == [["image"], "heatmap"]


def test_full_queue_raises_immediately(run_queued):
    async def request(batcher, batches):
        waiting = asyncio.create_task(batcher.predict("waits"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.predict("too many")
        await waiting

    assert run_queued(request, max_queue=1) == [["waits"]]


def test_error_is_raised_in_its_request_and_the_next_one_succeeds(run_queued):
    async def request(batcher, batches):
        with pytest.raises(ZeroDivisionError):
            await batcher.predict(0)
        assert await batcher.predict("next") == "NEXT"

    run_queued(request)


def test_canceled_request_is_not_predicted(run_queued):
    async def request(batcher, batches):
        cancelled = asyncio.create_task(batcher.predict("cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await batcher.predict("pending")

    assert run_queued(request) == [["pending"]]
