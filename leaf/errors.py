"""One-line user errors and exit statuses.

Each command exits with 0 on success, 1 if it succeeded only partly, 2 after a user error, or 130 if interrupted.
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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LeafError(Exception):
    """A user error, printed as one line: `FILE or KEY: what is wrong. What to do.`

    Attributes:
        proposals: alternative settings, by key, that would fix the error. Callers can print them as commands.
    """

    def __init__(self, text: str, proposals: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.proposals = proposals

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        return printable(_LONG.sub(lambda word: f"{word[0][:100]}…{word[0][-100:]}", text))


_LONG = re.compile(r"\S{600,}")  # a path or number with hundreds of characters


def printable(text: str) -> str:
    """Escape unprintable characters as `\\u001b`, so that untrusted text cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `2,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_TRAIN = ("tensorflow", "keras", "dvc", "dvclive", "h5py")  # packages of the extra [train]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print user errors as `error: …` on stderr and exit with status 2, without a traceback.

    This includes operating system errors such as a full disk or a missing file. Other exceptions are bugs and keep
    their traceback. Characters that a stream cannot encode are escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except LeafError as error:
        _fail(error)
    except MemoryError as error:
        _fail(f"out of memory ({error or 'unknown size'}). Free memory, or reduce image_size or batch_size.")
    except BrokenPipeError:  # as in `leaf results | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN:
            raise
        _fail(f"{error.name}: not installed. Run `pip install 'leaf-dvc[train]'`.")
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename in _TRAIN:
            _fail(f"{error.filename}: not found. Run `pip install 'leaf-dvc[train]'`.")
        _fail(os_error_line(error))
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        _fail("path: contains a NUL character. Remove it.")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def output_of(*command: str, accepted: Collection[int] = (0,), **options: Any) -> str:
    """Run a program and return its stdout without surrounding whitespace.

    Raises LeafError with the last line of the program's error message if the exit status is not accepted.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode not in accepted:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and line[:5] != "hint:"]
        raise LeafError(f"{' '.join(command[:2])}: {lines[-1] if lines else 'failed'}")
    return done.stdout.strip()


def os_error_line(error: OSError) -> str:
    """Describe an operating system error in one line that includes the file name."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else "disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{name}: no space left on the disk. Free space and run the command again; finished outputs are kept."
    reason = (error.strerror or "not usable").lower()
    if error.errno == errno.EIO:
        return f"{name}: {reason}. Check the disk or the network file system, then run the command again."
    return f"{name}: {reason}"


def _fail(line: str | LeafError) -> None:
    print(f"error: {LeafError(str(line))}", file=sys.stderr)
    raise SystemExit(2) from None


_REMARKS = "^(I[0-9]{4} |WARNING: All log messages before absl|To enable the following instructions)"
_NO_GPU = "^[WE][0-9]{4} .*([Cc][Uu][Dd][Aa]|TensorRT|cuInit)"  # harmless on a machine without a GPU


def quiet_tensorflow() -> None:
    """Hide TensorFlow's startup messages about missing GPUs and CPU instructions, unless TF_CPP_MIN_LOG_LEVEL is 0.

    TensorFlow writes them to file descriptor 2 before it reads that variable. Errors are still printed. Call this
    function before the first import of TensorFlow, and only in programs, not in libraries.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0" and shutil.which("grep"):  # Keras sets 1 for child processes
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Find TensorFlow as usual and filter stderr while it loads."""

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
                    module.config.list_physical_devices()  # prints the messages about GPUs
                logging.getLogger("tensorflow").setLevel("ERROR")  # hides warnings about retracing

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Filter file descriptor 2 in a child process, so that the last message before a crash is printed too."""
    gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    command = ["grep", "-E", "-v", "--line-buffered", "-e", _REMARKS, *([] if gpu else ["-e", _NO_GPU])]
    real = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=real, stderr=subprocess.DEVNULL) as grep:
        os.dup2(grep.stdin.fileno(), 2)  # type: ignore[union-attr]
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
