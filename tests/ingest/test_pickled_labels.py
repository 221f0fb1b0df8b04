"""Pickled label arrays are read without executing the pickle. Pickles with disallowed calls are rejected."""

import builtins
import codecs
import os
import pickle
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.errors import LeafError
from leaf.ingest.npz import unpickle_strings

PROTOCOLS = range(6)
NAMES = ["healthy", "unhealthy", "healthy"]


def array_of(*items):
    return np.array(items, dtype=object)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_array_of_strings_is_read(protocol):
    assert unpickle_strings(pickle.dumps(array_of(*NAMES), protocol), 3) == NAMES


def test_pickles_of_numpy_1_are_read():
    old = pickle.dumps(array_of(*NAMES), 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert unpickle_strings(old, 3) == NAMES


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [np.str_, np.bytes_])
def test_numpy_strings_inside_the_array_are_read(protocol, kind):
    array = np.empty(3, object)
    array[:] = [kind(name) for name in NAMES]
    assert unpickle_strings(pickle.dumps(array, protocol), 3) == NAMES


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_integers_inside_the_array_are_read(protocol, kind):
    array = np.empty(3, object)
    array[:] = [kind(0), kind(1), kind(0)]
    assert unpickle_strings(pickle.dumps(array, protocol), 3) == [0, 1, 0]


def test_100_000_labels_are_read_within_seconds():
    data = pickle.dumps(array_of(*["healthy", "unhealthy"] * 50_000), 3)
    start = time.process_time()
    assert len(unpickle_strings(data, 100_000)) == 100_000
    assert time.process_time() - start < 5


class Call:
    """An object whose pickle calls `function` with `arguments` and sets `state`, if given, on the result."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


MARKER = "executed-by-a-pickle"
ATTACKS = {
    "os.system": Call(os.system, f"touch {MARKER}"),
    "os.popen": Call(os.popen, f"touch {MARKER}"),
    "builtins.eval": Call(eval, f"open('{MARKER}', 'w')"),
    "builtins.exec": Call(exec, f"open('{MARKER}', 'w')"),
    "builtins.open": Call(open, MARKER, "w"),
    "builtins.__import__": Call(builtins.__import__, "antigravity"),
    "subprocess": Call(subprocess.call, ["touch", MARKER]),
    "a getattr chain": Call(getattr, Call(__import__, "os"), "system"),
    "numpy.load": Call(np.load, MARKER, None, True),
    "numpy.fromfile": Call(np.fromfile, "/etc/passwd"),
    "numpy.save": Call(np.save, MARKER, [1]),
    "numpy.memmap": Call(np.memmap, MARKER, "uint8", "w+", 0, 8),
    "numpy.ndarray itself": Call(np.ndarray, (10**12,)),
    "numpy.zeros": Call(np.zeros, 10**12),
    "numpy.dtype subclass trick": Call(np.dtype, Call(os.system, f"touch {MARKER}")),
    "codecs other than latin1": Call(codecs.encode, "x", "rot13"),
    "pickle.loads": Call(pickle.loads, b"cos\nsystem\n(S'touch x'\ntR."),
    "nested in an item": array_of("healthy", Call(os.system, f"touch {MARKER}"), "healthy"),
    "nested twice": array_of("healthy", array_of(Call(os.system, f"touch {MARKER}")), "healthy"),
    "in a dict": array_of("healthy", {"a": Call(os.system, f"touch {MARKER}")}, "healthy"),
    "a state": Call(Call, os.system, state={"__setstate__": os.system}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_pickle_with_a_disallowed_call_is_rejected_without_executing_it(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in PROTOCOLS:
        with pytest.raises(LeafError, match=r"^labels contains "):
            unpickle_strings(pickle.dumps(attack, protocol), 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("attack", ["os.system", "numpy.load", "builtins.eval"])
def test_error_names_the_global_in_the_pickle(attack):
    with pytest.raises(LeafError, match=r"(posix\.system|numpy\.load|numpy\.lib\._npyio_impl\.load|__builtin__\.eval)"):
        unpickle_strings(pickle.dumps(ATTACKS[attack], 2), 3)


GOOD = pickle.dumps(array_of(*NAMES), 3)
BY_HAND = {
    "a global by its two halves": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "instance": b"(S'id'\nios\nsystem\n.",
    "object": b"\x80\x02(cos\nsystem\nU\x02ido.",
    "new object": b"\x80\x02cos\nsystem\n)\x81.",
    "extension registry": b"\x80\x02\x82\x01.",
    "persistent id": b"Pid\n.",
    "a memo slot of two thousand million": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytes of a million million": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",
    "a shape of a million million": GOOD.replace(b"K\x03\x85", b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85"),
    "a number of ten million digits": b"I" + b"9" * 10_000_000 + b"\n.",
    "lists in lists": b"(" + b"l(" * 20_000 + b"l.",
    "a state for a name": b"\x80\x02cnumpy\nndarray\n}b.",
    "a dictionary": b"\x80\x02}.",
    "no end": GOOD[:-1],
    "nothing": b"",
    "an empty stack": b"\x80\x02.",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
}


@pytest.mark.parametrize("data", BY_HAND.values(), ids=BY_HAND.keys())
def test_a_handcrafted_pickle_is_rejected_quickly(data):
    start = time.process_time()
    with pytest.raises(LeafError):
        unpickle_strings(data, 3)
    assert time.process_time() - start < 2


def test_huge_memo_index_is_rejected_before_unpickling():
    with pytest.raises(LeafError, match="2147483647"):
        unpickle_strings(BY_HAND["a memo slot of two thousand million"], 3)


@pytest.mark.parametrize("data", [b"\x80\x02}.", b"\x80\x04\x8f."], ids=["a dictionary", "a set"])
def test_unneeded_opcode_is_rejected_before_unpickling(data):
    with pytest.raises(LeafError, match=r"EMPTY_(DICT|SET)"):
        unpickle_strings(data, 3)


def test_wrong_number_of_items_is_rejected():
    with pytest.raises(LeafError, match="wrong number of items"):
        unpickle_strings(GOOD, 4)


def _change_and_read(data):
    raw = bytearray(pickle.dumps(array_of(*NAMES), data.draw(st.sampled_from(PROTOCOLS))))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=5)):
        raw[place] = data.draw(st.integers(0, 255))
    try:
        items = unpickle_strings(bytes(raw), 3)
    except LeafError:
        return
    assert all(type(item) in (str, int) for item in items)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_modified_pickle_is_read_or_gives_a_one_line_error(data):
    _change_and_read(data)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(st.data())
def test_thousands_of_modified_pickles_are_read_or_give_a_one_line_error(data):
    _change_and_read(data)
