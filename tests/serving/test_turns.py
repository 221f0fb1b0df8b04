"""One network, many askers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaf.serving.batcher import TOGETHER, BusyError, Turns


@pytest.fixture
def order():
    """Run a coroutine with `Turns` whose first image is held, so that the rest stands in line; give the passes."""

    def run(ask, most=64):
        gate, passes = threading.Event(), []

        def judge(items):
            if items == ["held"]:
                gate.wait()
            else:
                passes.append(list(items))
            return [1 / item if isinstance(item, int) else item.upper() for item in items]

        turns = Turns(judge, most)

        async def all_of_it():
            first = asyncio.create_task(turns.answer("held"))
            await asyncio.sleep(0.05)
            asked = asyncio.create_task(ask(turns, passes))
            await asyncio.sleep(0.05)
            gate.set()
            await first
            await asked

        try:
            with ThreadPoolExecutor(1) as other:  # playwright keeps a loop running in the tests' own thread
                other.submit(asyncio.run, all_of_it()).result()
        finally:
            gate.set()
            turns.stop()
        return passes

    return run


def test_an_image_that_comes_between_has_its_turn_between(order):
    async def ask(turns, passes):
        async def many():
            for number in range(3):
                await turns.answer(f"many {number}")

        await asyncio.gather(many(), turns.answer("one"))

    assert order(ask) == [["many 0", "one"], ["many 1"], ["many 2"]]


def test_what_waits_is_taken_together_but_never_more_than_a_few(order):
    async def ask(turns, passes):
        await asyncio.gather(*(turns.answer(str(number)) for number in range(TOGETHER + 1)))

    assert [len(taken) for taken in order(ask)] == [TOGETHER, 1]


def test_everyone_gets_the_answer_to_what_they_asked(order):
    async def ask(turns, passes):
        answers = await asyncio.gather(*(turns.answer(letter) for letter in "abcdef"))
        assert answers == list("ABCDEF")

    order(ask)


def test_answers_come_before_heat_maps(order):
    async def ask(turns, passes):
        await asyncio.gather(turns.draw(lambda: passes.append("heat map")), turns.answer("answer"))

    assert order(ask) == [["answer"], "heat map"]


def test_too_long_a_line_is_refused_at_once(order):
    async def ask(turns, passes):
        waiting = asyncio.create_task(turns.answer("waits"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await turns.answer("too many")
        await waiting

    assert order(ask, most=1) == [["waits"]]


def test_a_failure_is_raised_where_it_was_asked_and_the_next_still_has_its_turn(order):
    async def ask(turns, passes):
        with pytest.raises(ZeroDivisionError):
            await turns.answer(0)
        assert await turns.answer("next") == "NEXT"

    order(ask)


def test_an_asker_who_left_costs_no_turn(order):
    async def ask(turns, passes):
        gone = asyncio.create_task(turns.answer("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        await turns.answer("stayed")

    assert order(ask) == [["stayed"]]
