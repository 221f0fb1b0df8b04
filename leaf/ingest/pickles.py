"""A pickled array of strings, read without running the pickle.

The course's file holds its labels as a *pickled* object array, and a pickle is a program: `numpy.load` would run
whatever it says. Here Python's own Unpickler reads it under two allow-lists. Of its instructions, only those that
numpy's arrays of strings need pass: none that makes a dictionary, a set or an instance, none that reaches outside.
And of the functions and classes that it names, only numpy's few pass, each replaced by a class of ours that records
what it was given: no code of numpy sees a stranger's state.
"""

import io
import pickle
import pickletools
from typing import Any

from leaf.errors import LeafError

# in the order of pickletools: the frame of a pickle, its memo, names and calls, numbers, text, bytes, tuples, lists
_INSTRUCTIONS = {
    *("PROTO", "FRAME", "MARK", "STOP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
}
# what the Unpickler raises for a pickle that does not add up
_BROKEN = (
    pickle.UnpicklingError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    MemoryError,
)


class RefusedError(Exception):
    """The pickle holds what no array of strings needs; the text says what."""


class _Record:
    """What a call would have made, as the pickle describes it: the call's arguments and the state that followed."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """In place of numpy's `_reconstruct`, which makes an empty array."""


class _Dtype(_Record):
    """In place of numpy.dtype."""


class _Scalar(_Record):
    """In place of numpy's `scalar`."""


def _latin1(text: Any, encoding: Any) -> bytes:
    """In place of _codecs.encode, by which protocols 0 to 2 spell bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise RefusedError("bytes in another spelling than numpy's")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # before numpy 2
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of `_reconstruct`, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise RefusedError(f"{module}.{name}")
        return _NAMES[module, name]


def unpickle_strings(data: bytes, count: int, name: str) -> list[str | int]:
    """The items of a pickled one-dimensional object array of `count` strings or whole numbers.

    Raises LeafError, which starts with the file's `name`, for anything else; nothing that the pickle names is imported
    or called.
    """
    try:
        _check_instructions(data)
        return _items(_Unpickler(io.BytesIO(data), encoding="latin1").load(), count)
    except RefusedError as refused:
        why = str(refused)
    except _BROKEN as error:
        why = f"a pickle that cannot be read ({type(error).__name__})"
    raise LeafError(f"{name}: labels holds {printable(why)}; valid: strings, nothing else is read from a pickle")


def printable(text: str) -> str:
    """A stranger's text for one line: ASCII, and not too long."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= 120 else plain[:117] + "..."


def _check_instructions(data: bytes) -> None:
    """Refuse every instruction but the allowed ones, and a memo number that would make the Unpickler reserve memory."""
    memorized = 0
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name not in _INSTRUCTIONS:
            raise RefusedError(f"the instruction {instruction.name}")
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if (argument or 0) > memorized:
                raise RefusedError(f"the memo number {argument} after {memorized} others")
            memorized += 1


def _items(array: Any, count: int) -> list[str | int]:
    if not isinstance(array, _Array):
        raise RefusedError("no array")
    if not isinstance(array.state, tuple) or len(array.state) != 5:
        raise RefusedError("an array without its items")
    _, shape, _, _, items = array.state
    if shape != (count,) or not isinstance(items, list) or len(items) != count:
        raise RefusedError("an array whose items are not as many as its header says")
    return [_item(item) for item in items]


def _item(item: Any) -> str | int:
    if isinstance(item, _Scalar):
        return _scalar(*item.arguments)
    if isinstance(item, bytes):
        return item.decode("utf-8")
    if isinstance(item, str) or (isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63):
        return item
    raise RefusedError(f"an item of type {type(item).__name__.strip('_')}")


def _scalar(kind: Any, raw: Any) -> str | int:
    """A numpy scalar inside the array, as `numpy.array([numpy.str_("a")], object)` holds."""
    if not isinstance(kind, _Dtype) or not isinstance(raw, bytes):
        raise RefusedError("a scalar of no type")
    code = kind.arguments[0]
    big = isinstance(kind.state, tuple) and kind.state[1] == ">"
    if not isinstance(code, str) or code[:1] not in ("U", "S", "i", "u"):
        raise RefusedError(f"a scalar of type {code}")
    if code[0] == "U":
        return raw.decode("utf-32-be" if big else "utf-32-le").rstrip("\0")
    if code[0] == "S":
        return raw.rstrip(b"\0").decode("utf-8")
    return int.from_bytes(raw, "big" if big else "little", signed=code[0] == "i")
