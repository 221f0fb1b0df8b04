"""Read a pickled array of strings without executing the pickle.

The course's file stores labels as a pickled object array, and unpickling can run arbitrary code. This module restricts
Python's Unpickler with two allow-lists: opcodes, and the functions and classes that a pickled string array refers to.
Each function or class is replaced by a class that records its arguments, so no NumPy code receives untrusted state.
"""

import io
import pickle
import pickletools
from typing import Any

from leaf.errors import LeafError

# allowed opcodes, in the order of pickletools
_OPCODES = {
    *("PROTO", "FRAME", "MARK", "STOP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
}


class RefusedError(Exception):
    """Raised if a pickle contains anything that is not allowed; the message names it."""


class _Record:
    """The arguments of a call in the pickle, and the state that the pickle sets on the result."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PickledArray(_Record):
    """Replacement for NumPy's `_reconstruct`, which creates an empty array."""


class _Dtype(_Record):
    """Replacement for `numpy.dtype`."""


class _Scalar(_Record):
    """Replacement for NumPy's `scalar`."""


def _latin1(text: Any, encoding: Any) -> bytes:
    """Encode text like `_codecs.encode`, which pickle protocols 0 to 2 call to restore bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise RefusedError("bytes that NumPy did not encode")
    return text.encode("latin1")


_REPLACEMENTS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,  # module name before NumPy 2
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of `_reconstruct`, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REPLACEMENTS:
            raise RefusedError(f"{module}.{name}")
        return _REPLACEMENTS[module, name]


def unpickle_strings(data: bytes, count: int, name: str) -> list[str | int]:
    """Return the items of a pickled one-dimensional object array of `count` strings or integers.

    Raises:
        LeafError: for any other content; the message starts with the file `name`.
    """
    try:
        _check_opcodes(data)
        return _items(_Unpickler(io.BytesIO(data), encoding="latin1").load(), count)
    except RefusedError as refused:
        why = str(refused)
    except Exception as error:  # noqa: BLE001 (the Unpickler raises many types for a malformed pickle)
        why = f"a pickle that cannot be read ({type(error).__name__})"
    shown = why.encode("ascii", "backslashreplace").decode()
    raise LeafError(f"{name}: labels contains {shown[:120]}. Save only strings or integers.")


def _check_opcodes(data: bytes) -> None:
    """Reject opcodes that are not allowed, and memo indices that would make the Unpickler allocate too much memory."""
    memorized = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise RefusedError(f"the opcode {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if (argument or 0) > memorized:
                raise RefusedError(f"the memo index {argument}, but only {memorized} entries")
            memorized += 1


def _items(array: Any, count: int) -> list[str | int]:
    if not isinstance(array, _PickledArray) or not isinstance(array.state, tuple) or len(array.state) != 5:
        raise RefusedError("a pickle of something other than an array")
    _, shape, _, _, items = array.state
    if shape != (count,) or not isinstance(items, list) or len(items) != count:
        raise RefusedError("an array with the wrong number of items")
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
    """Return the value of a NumPy scalar, as in `numpy.array([numpy.str_("a")], object)`."""
    if not isinstance(kind, _Dtype) or not isinstance(raw, bytes):
        raise RefusedError("a scalar without a type")
    code = kind.arguments[0]
    big = isinstance(kind.state, tuple) and kind.state[1] == ">"
    if not isinstance(code, str) or code[:1] not in ("U", "S", "i", "u"):
        raise RefusedError(f"a scalar of type {code}")
    if code[0] == "U":
        return raw.decode("utf-32-be" if big else "utf-32-le").rstrip("\0")
    if code[0] == "S":
        return raw.rstrip(b"\0").decode("utf-8")
    return int.from_bytes(raw, "big" if big else "little", signed=code[0] == "i")
