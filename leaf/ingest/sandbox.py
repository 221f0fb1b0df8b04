"""Decode untrusted image files in worker processes with time and memory limits.

A running decoder can be stopped only by ending its process. Files that are cheap to decode according to their header,
such as ordinary small images, are decoded in this process; all others are decoded by a pool of workers. A timer kills a
worker that takes too long, and a new one replaces it. Workers import neither Keras nor the caller's script, and exit
when their parent process ends for any reason.
"""

import atexit
import functools
import os
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from leaf.ingest import files
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError, decode

SECONDS = 10  # maximum CPU time per image
MEMORY = 1280 * 2**20  # maximum bytes per image
LARGE = 2**24  # images with more pixels are decoded one at a time
FILE_BYTES = 272 * 2**20  # maximum file size: an uncompressed image of PIXELS pixels (256 MiB) and 16 MiB for the rest
SCANS = 100  # maximum scans per JPEG; cameras and software write 1 to 12
# Maximum pixels × scans of a JPEG, and maximum pixels of a PNG, to decode in this process. Decoding takes a few tenths
# of a second.
_CHEAP_JPEG, _CHEAP_PNG = 32_000_000, 4_000_000
_CHEAP_BYTES = {"JPEG": 32 * 2**20, "PNG": 4 * 2**20}
_CHEAP_PROFILE = 4096  # maximum bytes of an ICC profile; camera profiles have 500 to 3,200, printer profiles a million
_ANSWER = struct.Struct("<cII?")  # kind of answer, width, height, whether there are several frames
_DONE, _REFUSED, _LARGE = b"d", b"r", b"l"


def read_image(data: bytes, size: int, fit: Fit = "crop", mask: bool = False) -> DecodedImage:
    """Decode an image file like `leaf.ingest.decode.decode`, within the limits of this module.

    Thread-safe; the workers decode at most one image per core at a time. Raises UnreadableError if the file cannot be
    read as an image or exceeds a limit.
    """
    read = decode if _is_cheap(data) else decoders(os.getpid()).read
    return read(data, size, fit, mask)


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises UnreadableError if it is missing, too large or not a regular file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # does not block on a FIFO
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableError("not a regular file")
            if found.st_size > FILE_BYTES:
                raise UnreadableError(f"{found.st_size:,} bytes exceed the limit of {FILE_BYTES:,}")
            return file.read(found.st_size)
    except OSError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from None


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Decoders:
    """A pool of decoding workers, started on demand."""

    def __init__(self, most: int, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        """Limit the pool to `most` workers, and each image to `seconds` of CPU time and `memory` bytes."""
        self._limits = seconds, memory
        self._free = threading.BoundedSemaphore(most)
        self._one_large = threading.Lock()
        self._idle: list[_Decoder] = []
        self._busy: set[_Decoder] = set()
        self._closed = False

    def read(self, data: bytes, size: int, fit: Fit = "crop", mask: bool = False) -> DecodedImage:
        """Decode an image in a worker; see `read_image`."""
        with self._free:
            for _ in range(2):  # retry once, in case something else killed the worker
                if self._closed:
                    raise UnreadableError("not read because the program is exiting")
                with suppress(EOFError, OSError):
                    return self._ask(data, size, fit, mask)
        raise UnreadableError("the decoder crashed")

    def close(self) -> None:
        """Kill all workers, busy or idle. Pending and later calls raise UnreadableError."""
        self._closed = True
        for decoder in [*self._idle, *self._busy]:
            decoder.process.kill()
            decoder.process.wait()

    def _ask(self, data: bytes, size: int, fit: Fit, mask: bool) -> DecodedImage:
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = _Decoder(*self._limits)
        self._busy.add(decoder)
        try:
            result = decoder.ask(data, size, fit, mask, self._one_large)
            self._idle.append(decoder)
        except (EOFError, OSError):
            if decoder.status() == -signal.SIGPROF:
                raise UnreadableError(f"decoding took more than {self._limits[0]:g} seconds") from None
            raise
        finally:
            self._busy.discard(decoder)
        if isinstance(result, str):
            raise UnreadableError(result)
        return result


@functools.cache
def decoders(owner: int) -> Decoders:
    """Return the pool of the process with the ID `owner`, so that a forked child starts its own."""
    made = Decoders(cores())
    atexit.register(lambda: made.close() if os.getpid() == owner else None)
    return made


def end_decoders() -> None:
    """Kill this process's workers, so that it can exit immediately. Later images start new workers."""
    decoders(os.getpid()).close()
    decoders.cache_clear()


class _Decoder:
    """One worker process and the pipe to it."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._pipe, theirs = Pipe()
        pipe = theirs.fileno()
        # multiprocessing would import the caller's script again
        call = f"from leaf.ingest.sandbox import serve; serve({pipe}, {seconds}, {memory})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {call}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[pipe], start_new_session=True,  # Ctrl-C reaches only the parent, which ends the worker
        )  # fmt: skip
        theirs.close()

    def ask(self, data: bytes, size: int, fit: Fit, mask: bool, one_large: threading.Lock) -> DecodedImage | str:
        """Decode an image; return it or the reason for the failure. Raises EOFError or OSError if the worker ended."""
        self._pipe.send((size, fit, mask))
        self._pipe.send_bytes(data)
        answer, *shape = self._answer()
        held = False
        try:
            if answer == _LARGE:
                held = one_large.acquire()
                self._pipe.send_bytes(b"go")
                answer, *shape = self._answer()
            content = self._pipe.recv_bytes(size * size * 3 + 4096)
        finally:
            if held:
                one_large.release()
        if answer == _REFUSED:
            return content.decode("utf-8", "replace")
        return DecodedImage(np.frombuffer(content, np.uint8).reshape(size, size, 3), *shape)

    def _answer(self) -> tuple:
        return _ANSWER.unpack(self._pipe.recv_bytes(_ANSWER.size))

    def status(self) -> int:
        """Close the pipe, which ends a running worker, and return the exit status of the worker."""
        self._pipe.close()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def serve(handle: int, seconds: float, memory: int) -> None:
    """Decode images from the pipe `handle` in a worker process until the pipe is closed."""
    pipe = Connection(handle)
    _limit_memory(memory)

    def large(pixels: int) -> None:
        if pixels > LARGE:
            pipe.send_bytes(_ANSWER.pack(_LARGE, 0, 0, False))
            pipe.recv_bytes()

    with suppress(EOFError, OSError):
        while True:
            size, fit, mask = pipe.recv()
            data = pipe.recv_bytes()
            signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF kills the process, even inside C code
            try:
                image = decode(data, size, fit, mask, large)
                answer = _ANSWER.pack(_DONE, image.width, image.height, image.frames), image.pixels.tobytes()
            except UnreadableError as why:
                answer = _ANSWER.pack(_REFUSED, 0, 0, False), str(why).encode("utf-8", "replace")[:4096]
            signal.setitimer(signal.ITIMER_PROF, 0)
            del data
            for part in answer:
                pipe.send_bytes(part)


def _limit_memory(memory: int) -> None:
    """Limit this process to `memory` bytes more than it uses now. Without /proc, there is no limit."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _is_cheap(data: bytes) -> bool:
    """Return whether the file is cheap to decode, based on its header. Raises UnreadableError for too many scans."""
    kind = files.kind(data[: files.HEAD])
    if len(data) > _CHEAP_BYTES.get(kind, -1):
        return not kind  # describing a file that is not an image is fast
    if kind == "PNG":
        width, height = struct.unpack(">II", data[16:24]) if len(data) >= 24 else (0, 0)
        return width * height <= _CHEAP_PNG and b"iCCP" not in data
    pixels, start, profile = _jpeg_header(data)
    if not pixels or profile > _CHEAP_PROFILE:
        return False
    if pixels * data.count(b"\xff\xda", start) <= _CHEAP_JPEG:  # an upper bound on the number of scans
        return True
    scans = _scans(data, start)
    if scans > SCANS:
        raise UnreadableError(f"a JPEG with more than {SCANS} scans")
    return pixels * scans <= _CHEAP_JPEG


_SEGMENTS = 1000  # maximum segments of a JPEG that are parsed; an ordinary file has about ten


def _jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Return a JPEG's number of pixels (0 if malformed), the offset of its first scan, and its ICC profile's size."""
    place, pixels, profile = 2, 0, 0
    for _ in range(_SEGMENTS):
        marker, length = data[place : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        if len(marker) < 2 or marker[0] != 0xFF or length < 2:
            break
        if marker[1] == 0xDA:
            return pixels, place, profile
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9].ljust(4, b"\0"))
            pixels = max(pixels, height * width)
        if marker[1] == 0xE2 and data[place + 4 : place + 15] == b"ICC_PROFILE":
            profile += length
        place += 2 + length
    return 0, 0, profile


_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # all markers except those inside scan data


def _scans(data: bytes, place: int) -> int:
    """Count the scans of a JPEG, starting at the offset `place` of the first one. Stop counting above `SCANS`."""
    scans = 0
    for _ in range(_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None or found[1] == b"\xd9" or scans > SCANS:
            return scans
        scans += found[1] == b"\xda"
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return SCANS  # there may be more scans, so assume the maximum
