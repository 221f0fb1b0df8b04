"""One clear line for a person's mistake, and the exit statuses of every command.

0: done. 1: done, but not for everything asked (a command says for what). 2: refused, nothing was changed.
130: interrupted.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class LeafError(Exception):
    """A person's mistake: its text is one line, `FILE or KEY: what is wrong; what is valid`.

    `proposals` are settings (key to value) each of which would mend it; whoever knows how to set one tells the person.
    """

    def __init__(self, text: str, proposals: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.proposals = proposals

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split()))


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
        _fail(str(error))
    except MemoryError as error:
        _fail(f"memory: not enough for this step ({error or 'no size given'}); free memory or use smaller sizes")
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"{name}: no space left on the disk; make room and run again, nothing finished was lost")
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EROFS):
            _fail(f"{name}: {(error.strerror or 'cannot be used').lower()}")
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2) from None
