"""`in_order` runs ahead of its consumer in threads and returns results in the order of the items."""

import threading

import pytest

from leaf.ingest import source
from leaf.ingest.source import in_order


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 127, 128, 129, 300])
def test_results_are_in_item_order(count):
    items = list(range(count))
    assert list(in_order(lambda part: [2 * item for item in part], items, 3)) == [2 * k for k in items]


def test_the_number_of_waiting_results_is_bounded():
    done, lock = [], threading.Lock()

    def work(part):
        with lock:
            done.extend(part)
        return part

    for place, _ in enumerate(in_order(work, range(1000), 2)):
        with lock:
            assert len(done) <= place + source.AHEAD + 16


def test_an_error_stops_the_work():
    begun = []

    def work(part):
        begun.append(part[0])
        if part[0] == 32:
            raise ValueError("broken")
        return part

    with pytest.raises(ValueError, match="broken"):
        list(in_order(work, range(100_000), 2))
    assert len(begun) < 30
