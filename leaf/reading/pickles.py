"""A pickled array of strings, read without running the pickle.

The course's file holds its labels as a *pickled* object array, and a pickle is a program: `numpy.load` would run
whatever it says. Here its instructions are walked by a small machine that knows lists, strings and numbers and can
call nothing. The few names that numpy's arrays need stand on its stack as marks; any other name is refused.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

from leaf.errors import LeafError

_MARK = object()
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_NAMES = {
    *((module, name) for module in _MODULES for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how protocols 0 to 2 spell bytes
}
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, OverflowError)  # a pickle that does not add up


class RefusedError(Exception):
    """The pickle holds what no array of strings needs; the text says what."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names; here only a mark."""

    module: str
    name: str


@dataclass
class _Record:
    """What a call would have made, an array, a dtype or a scalar, as the pickle describes it."""

    kind: str
    arguments: tuple[Any, ...]
    state: Any = None


class _Machine:
    """A pickle's stack and memo. Nothing on it is ever called; its size is bounded by the pickle's own."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise RefusedError("no end")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                stack.append(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING" | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.push_tuple(["EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"].index(name))
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(self.since_mark())
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS":
                self.extend(self.since_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                self.push_name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                final = stack.pop()
                self.push_name(stack.pop(), final)
            case "REDUCE":
                self.reduce()
            case "BUILD":
                self.build()
            case _:
                raise RefusedError(f"the instruction {name}")

    def since_mark(self) -> list[Any]:
        """Take everything off the stack down to the last mark, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise RefusedError("no mark")

    def push_tuple(self, count: int) -> None:
        start = len(self.stack) - count
        if start < 0:
            raise RefusedError("too short a stack")
        items = tuple(self.stack[start:])
        del self.stack[start:]
        self.stack.append(items)

    def push_name(self, module: Any, name: Any) -> None:
        if (module, name) not in _NAMES:
            raise RefusedError(f"{module}.{name}")
        self.stack.append(_Name(module, name))

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedError("an append to no list")
        self.stack[-1].extend(items)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise RefusedError("a call of no name")
        if function.name == "encode":
            self.stack.append(_latin1(*arguments))
        elif function.name == "ndarray":
            raise RefusedError("a call of numpy.ndarray")
        else:
            self.stack.append(_Record(function.name, arguments))

    def build(self) -> None:
        state, record = self.stack.pop(), self.stack[-1]
        if not isinstance(record, _Record):
            raise RefusedError("a state for no array")
        record.state = state


def unpickle_strings(data: bytes, count: int, name: str) -> list[str | int]:
    """The items of a pickled one-dimensional object array of `count` strings or whole numbers.

    Raises LeafError, which starts with the file's `name`, for anything else; nothing is imported or called.
    """
    try:
        return _items(_Machine().run(data), count)
    except RefusedError as refused:
        why = str(refused)
    except _BROKEN as error:
        why = f"a pickle that cannot be read ({type(error).__name__})"
    raise LeafError(f"{name}: labels holds {shown(why)}; valid: strings, nothing else is read from a pickle")


def shown(text: str) -> str:
    """A stranger's text for one line: ASCII, and not too long."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= 120 else plain[:117] + "..."


def _items(array: Any, count: int) -> list[str | int]:
    if not isinstance(array, _Record) or array.kind != "_reconstruct":
        raise RefusedError("no array")
    if not isinstance(array.state, tuple) or len(array.state) != 5:
        raise RefusedError("an array without its items")
    _, shape, _, _, items = array.state
    if shape != (count,) or not isinstance(items, list) or len(items) != count:
        raise RefusedError("an array whose items are not as many as its header says")
    return [_item(item) for item in items]


def _item(item: Any) -> str | int:
    if isinstance(item, _Record) and item.kind == "scalar":
        return _scalar(item)
    if isinstance(item, bytes):
        return item.decode("utf-8")
    if isinstance(item, str) or (isinstance(item, int) and not isinstance(item, bool)):
        return item
    raise RefusedError(f"an item of type {type(item).__name__.strip('_')}")


def _scalar(record: _Record) -> str | int:
    """A numpy scalar inside the array, as `numpy.array([numpy.str_("a")], object)` holds."""
    kind, raw = record.arguments
    if not isinstance(kind, _Record) or kind.kind != "dtype" or not isinstance(raw, bytes):
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


def _latin1(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise RefusedError("bytes in another spelling than numpy's")
    return text.encode("latin1")
