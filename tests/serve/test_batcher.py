"""One network, many requests."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaf.serve.batcher import MAX_BATCH, Batcher, QueueFullError


@pytest.fixture
def order():
    """Run a coroutine with `Batcher` whose first image is held, so that the rest queues up; give the passes."""

    def run(ask, max_queue=64):
        gate, passes = threading.Event(), []

        def predict(items):
            if items == ["held"]:
                gate.wait()
            else:
                passes.append(list(items))
            return [1 / item if isinstance(item, int) else item.upper() for item in items]

        batcher = Batcher(predict, max_queue)

        async def all_of_it():
            first = asyncio.create_task(batcher.predict("held"))
            await asyncio.sleep(0.05)
            asked = asyncio.create_task(ask(batcher, passes))
            await asyncio.sleep(0.05)
            gate.set()
            await first
            await asked

        try:
            with ThreadPoolExecutor(1) as other:  # playwright keeps a loop running in the tests' own thread
                other.submit(asyncio.run, all_of_it()).result()
        finally:
            gate.set()
            batcher.stop()
        return passes

    return run


def test_an_image_that_comes_between_has_its_turn_between(order):
    async def ask(batcher, passes):
        async def many():
            for number in range(3):
                await batcher.predict(f"many {number}")

        await asyncio.gather(many(), batcher.predict("one"))

    assert order(ask) == [["many 0", "one"], ["many 1"], ["many 2"]]


def test_what_waits_is_taken_together_but_never_more_than_a_few(order):
    async def ask(batcher, passes):
        await asyncio.gather(*(batcher.predict(str(number)) for number in range(MAX_BATCH + 1)))

    assert [len(taken) for taken in order(ask)] == [MAX_BATCH, 1]


def test_everyone_gets_the_prediction_of_their_own_image(order):
    async def ask(batcher, passes):
        answers = await asyncio.gather(*(batcher.predict(letter) for letter in "abcdef"))
        assert answers == list("ABCDEF")

    order(ask)


def test_predictions_come_before_heat_maps(order):
    async def ask(batcher, passes):
        await asyncio.gather(batcher.run_when_idle(lambda: passes.append("heat map")), batcher.predict("answer"))

    assert order(ask) == [["answer"], "heat map"]


def test_a_full_queue_refuses_at_once(order):
    async def ask(batcher, passes):
        waiting = asyncio.create_task(batcher.predict("waits"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.predict("too many")
        await waiting

    assert order(ask, max_queue=1) == [["waits"]]


def test_a_failure_is_raised_where_it_was_asked_and_the_next_still_has_its_turn(order):
    async def ask(batcher, passes):
        with pytest.raises(ZeroDivisionError):
            await batcher.predict(0)
        assert await batcher.predict("next") == "NEXT"

    order(ask)


def test_a_cancelled_request_is_not_predicted(order):
    async def ask(batcher, passes):
        gone = asyncio.create_task(batcher.predict("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        await batcher.predict("stayed")

    assert order(ask) == [["stayed"]]
