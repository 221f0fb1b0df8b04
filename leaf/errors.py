"""One clear line for a person's mistake, and the exit statuses of every command.

0: done. 1: done, but not for everything asked (a command says for what). 2: refused, nothing was changed.
130: interrupted.
"""

import errno
import importlib.abc
import importlib.util
import io
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LeafError(Exception):
    """A person's mistake: its text is one line, `FILE or KEY: what is wrong; what is valid`.

    `proposals` are settings (key to value) each of which would mend it; whoever knows how to set one tells the person.
    """

    def __init__(self, text: str, proposals: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.proposals = proposals

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        return printable(_LONG.sub(lambda word: f"{word[0][:100]}…{word[0][-100:]}", text))


_LONG = re.compile(r"\S{600,}")  # a path of thousands of letters, or a number of thousands of digits
_PATH = (  # what is wrong with a path, and a person can mend
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)


def printable(text: str) -> str:
    """The text with what is not printable as `\\u001b`: a name in a file must not move a terminal's cursor or lie."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a person's mistake into `error: …` on standard error and exit status 2, without a traceback.

    A full disk, a missing file or a refused permission is theirs as well. Anything else is a fault of ours and
    keeps its traceback. A terminal or file that cannot write a character gets its escape instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except LeafError as error:
        _fail(error)
    except MemoryError as error:
        _fail(f"memory: not enough for this step ({error or 'no size given'}); free memory or use smaller sizes")
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"{name}: no space left on the disk; make room and run again, nothing finished was lost")
        if error.errno in _PATH:
            _fail(f"{name}: {(error.strerror or 'cannot be used').lower()}")
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _fail(line: str | LeafError) -> None:
    print(f"error: {LeafError(str(line))}", file=sys.stderr)
    raise SystemExit(2) from None


_REMARKS = "^(I[0-9]{4} |WARNING: All log messages before absl|To enable the following instructions)"
_NO_CARD = "^[WE][0-9]{4} .*([Cc][Uu][Dd][Aa]|TensorRT|cuInit)"  # an error only where there is a card


def quiet_tensorflow() -> None:
    """Keep what TensorFlow says at its start, of a card that is not there and of its processor, from a person.

    It writes that to file descriptor 2 before it heeds TF_CPP_MIN_LOG_LEVEL. Errors pass; who sets the variable to 0
    reads all. To be called before TensorFlow is imported, by a program, not by a library.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0" and shutil.which("grep"):  # Keras leaves 1 to its children
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as usual, and wraps how it is loaded."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                with _filtered_stderr():
                    load(module)
                    module.config.list_physical_devices()  # what it has to say of cards
                logging.getLogger("tensorflow").setLevel("ERROR")  # its warnings are of what it compiles again

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """File descriptor 2 without the remarks; a process of its own, for the last words of one that crashes count."""
    card = any(Path("/dev").glob("nvidia[0-9]*"))
    command = ["grep", "-E", "-v", "--line-buffered", "-e", _REMARKS, *([] if card else ["-e", _NO_CARD])]
    real = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=real, stderr=subprocess.DEVNULL) as grep:
        os.dup2(grep.stdin.fileno(), 2)  # type: ignore[union-attr]
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
