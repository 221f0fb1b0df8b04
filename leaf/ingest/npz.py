"""Read .npz data sets in blocks.

An .npz file is a zip archive of .npy files. As in the course's file, the arrays of a data set are `data` (N, H, W, 3),
with values from 0 to 255, and `labels` (N,). `numpy.load` would load all of `data` into memory (575 MB for the course's
file); this module reads a few images at a time.

The course's file stores labels as a pickled object array, and unpickling can run arbitrary code. `unpickle_strings`
restricts Python's Unpickler with two allow-lists: opcodes, and the functions and classes that a pickled string array
refers to. Each function or class is replaced by a class that records its arguments, so no NumPy code receives untrusted
state.
"""

import errno
import io
import math
import pickle
import pickletools
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import PIXELS, DecodedImage, Fit, to_square
from leaf.ingest.decode_cache import content_hash
from leaf.ingest.files import NAMES, kind, read_head, what_it_is
from leaf.ingest.source import FractionalError, Source

BLOCK_BYTES = 8 * 2**20  # bytes read at a time
MEMBER_BYTES = 256 * 2**30  # maximum size of an array: 2.5 million images of the course's size
INFLATION = 250  # maximum compression ratio of a large array; images reach 10, zip bombs 1,000
SMALL_BYTES = 2**26  # arrays up to this size may have any compression ratio
OUTPUT = 1000  # maximum ratio of ingested bytes, beyond SMALL_BYTES, to file size; upsampling can exceed it
_HEADER_BYTES = 10_016  # longest .npy header that numpy accepts; numpy checks the length only after loading it
LABEL_BYTES = 1024  # maximum average size of a label in bytes


@dataclass(frozen=True)
class _Array:
    shape: tuple[int, ...]
    dtype: np.dtype
    member: zipfile.ZipInfo
    offset: int  # offset of the first item in the member, in bytes


class NpzSource(Source):
    """The images and labels of one .npz file. Raises LeafError if the file is invalid."""

    def __init__(self, path: Path) -> None:
        """Check the headers and read the labels; `images` reads the images."""
        import pandas as pd  # slow to import and not needed by `leaf predict`

        self.path = path
        with _opened(path) as file:
            self._data = _describe(file, "data")
            self._check_data(path.stat().st_size)
            count = self._data.shape[0]
            names = _read_labels(file, count)
        columns = {"source": [str(number) for number in range(count)], "name": names, "group": "", "split": ""}
        super().__init__(pd.DataFrame(columns))

    def _check_data(self, size: int) -> None:
        shape, dtype = self._data.shape, self._data.dtype
        if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
            raise LeafError(f"data has shape {shape}. Use (images, height, width, 3).")
        if shape[0] > size:
            raise LeafError(
                f"data has {shape[0]:,} images, too many for a file of {size:,} bytes. Save the file again."
            )
        if dtype.kind not in "fiu" or dtype.itemsize > 8:
            raise LeafError(f"data has dtype {dtype}. Use integers or floats from 0 to 255.")
        if shape[1] * shape[2] > PIXELS:
            raise LeafError(
                f"images of {shape[1]}×{shape[2]} pixels exceed the limit of {PIXELS:,} pixels. Resize them."
            )

    def images(self, places: np.ndarray, size: int, fit: Fit) -> Iterator[tuple[int, DecodedImage, str]]:
        """Yield the images; see `Source.images`. Also raises LeafError for values outside 0 to 255."""
        highest = 0.0
        count, height, width, _ = self._data.shape
        output, most = len(places) * size * size * 3, SMALL_BYTES + OUTPUT * self.path.stat().st_size
        wanted = np.zeros(count, bool)
        wanted[places] = True
        with _opened(self.path) as file:
            if output > most:
                raise LeafError(
                    f"its {len(places):,} images would take {output:,} bytes at image_size {size}. The limit for a "
                    f"file of this size is {most:,}. Reduce image_size."
                )
            for start, block in _ahead(self._raw_blocks(file)):
                with np.errstate(invalid="ignore", over="ignore"):  # values out of range are checked below
                    pixels = block.astype(self.dtype)
                if self.dtype != np.uint8 or not np.array_equal(pixels, block):
                    _check_range(block, start)
                    if self.dtype == np.uint8:
                        raise FractionalError
                highest = max(highest, float(pixels.max()))
                chosen = np.flatnonzero(wanted[start : start + len(pixels)])
                for place, square in zip(chosen.tolist(), to_square(pixels[chosen], size, fit), strict=True):
                    image = DecodedImage(square, width, height, frames=False)
                    yield start + place, image, content_hash(pixels[place].data)
            if highest <= 1:
                raise LeafError(f"data ranges from 0 to {highest:g} instead of 0 to 255. Multiply the values by 255.")

    def _raw_blocks(self, file: zipfile.ZipFile) -> Iterator[tuple[int, np.ndarray]]:
        shape, dtype = self._data.shape, self._data.dtype
        image_bytes = math.prod(shape[1:]) * dtype.itemsize
        count = max(1, BLOCK_BYTES // image_bytes)
        with file.open(self._data.member) as stream:
            stream.read(self._data.offset)
            for start in range(0, shape[0], count):
                images = min(count, shape[0] - start)
                raw = stream.read(images * image_bytes)
                if len(raw) != images * image_bytes:
                    raise EOFError
                yield start, np.frombuffer(raw, dtype).reshape(images, *shape[1:])


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz file. Convert errors caused by a damaged file to LeafError, and add the path to each LeafError."""
    try:
        _check_file(path)
        with zipfile.ZipFile(path) as file:
            if file.namelist() and not any(name.endswith(".npy") for name in file.namelist()):
                folder = path.with_suffix("")
                unpack = f"python -m zipfile -e {shlex.quote(str(path))} {shlex.quote(str(folder))}"
                raise LeafError(f"a zip archive without .npy arrays. Unpack it: {unpack}", [{"dataset": str(folder)}])
            yield file
    except LeafError as error:
        raise LeafError(f"{path}: {error}", error.proposals) from None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: seek before the start of the file
            raise
        raise LeafError(
            f"{path}: a damaged or truncated .npz ({error or 'unexpected end of file'}). Download or save it again."
        ) from None


def _check_file(path: Path) -> None:
    if not path.exists():
        raise LeafError("no such file. Set `dataset` to an .npz file or a folder.")
    if not path.is_file():
        raise LeafError("neither a file nor a folder. Use an .npz file or a folder of images.")
    start = read_head(path)
    if start.startswith(b"PK"):
        return
    found = f"a {NAMES[kind(start)]} image" if kind(start) else what_it_is(start)
    if found != "an archive":
        raise LeafError(f"not an .npz file ({found}). Use an .npz with `data` and `labels`, or a folder.")
    folder = path.with_name(path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") + ".images")
    source, target = shlex.quote(str(path)), shlex.quote(str(folder))
    raise LeafError(
        f"not an .npz file ({found}). Unpack it: mkdir {target} && tar -xf {source} -C {target}",
        [{"dataset": str(folder)}],
    )


def _describe(file: zipfile.ZipFile, name: str) -> _Array:
    """Read the header of an array and check it against the zip directory."""
    try:
        member = file.getinfo(f"{name}.npy")
    except KeyError:
        names = ", ".join(repr(entry.removesuffix(".npy")) for entry in file.namelist()[:8]) or "nothing"
        raise LeafError(f"no array `{name}`; it contains {names}. Save the array as `{name}`.") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise LeafError(f"{name} is compressed or encrypted in an unsupported way. Save it with numpy.savez.")
    if member.file_size > MEMBER_BYTES:
        raise LeafError(f"{name} has {member.file_size:,} bytes, more than {MEMBER_BYTES:,}. Split the data set.")
    if member.file_size > max(SMALL_BYTES, INFLATION * member.compress_size):
        raise LeafError(
            f"{name} expands from {member.compress_size:,} to {member.file_size:,} bytes. To stop zip bombs, "
            f"the compression ratio is limited to {INFLATION}. Save the array uncompressed."
        )
    with file.open(member) as content:
        stream = io.BytesIO(content.read(_HEADER_BYTES))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except Exception:  # noqa: BLE001 (numpy raises many types for a malformed header)
        raise LeafError(f"{name} is not a valid .npy array. Save it with NumPy.") from None
    if fortran and len(shape) > 1:
        raise LeafError(f"{name} is in Fortran order. Save numpy.ascontiguousarray({name}).")
    if min(shape, default=0) < 0:
        raise LeafError(f"{name} has the invalid shape {shape}. Save it with NumPy.")
    offset, size = stream.tell(), math.prod(shape) * dtype.itemsize
    found = member.file_size - offset
    if not dtype.hasobject and size != found:
        raise LeafError(f"{name} requires {size:,} bytes ({shape} of {dtype}), but has {found:,}. Save it with NumPy.")
    return _Array(shape, dtype, member, offset)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file, by name. Raises LeafError if the file is damaged or a zip bomb."""
    arrays = {}
    with _opened(path) as file:
        for name in (each.removesuffix(".npy") for each in file.namelist()):
            array = _describe(file, name)
            if array.dtype.hasobject:
                raise LeafError(f"{name} has dtype {array.dtype}. Use numbers or strings.")
            arrays[name] = np.frombuffer(_content(file, array), array.dtype).reshape(array.shape)
    return arrays


def _content(file: zipfile.ZipFile, array: _Array) -> bytes:
    with file.open(array.member) as stream:
        stream.read(array.offset)
        return stream.read()


def _read_labels(file: zipfile.ZipFile, count: int) -> list[str | int]:
    array = _describe(file, "labels")
    if len(array.shape) != 1:
        raise LeafError(f"labels has shape {array.shape}. Use ({count},), one label per image.")
    if array.shape[0] != count:
        raise LeafError(f"{array.shape[0]:,} labels for {count:,} images. Use one label per image.")
    limit = LABEL_BYTES * (count + 64)
    if array.member.file_size > limit:
        raise LeafError(f"labels has {array.member.file_size:,} bytes, more than {limit:,}. Use shorter class names.")
    raw = _content(file, array)
    if array.dtype.hasobject:
        if array.dtype != np.dtype(object):
            raise LeafError(f"labels has dtype {array.dtype}. Use strings.")
        return unpickle_strings(raw, count)
    if array.dtype.kind not in "USiu":
        raise LeafError(f"labels has dtype {array.dtype}. Use strings or integers.")
    values = np.frombuffer(raw, array.dtype)
    try:
        return [item.decode() if isinstance(item, bytes) else item for item in values.tolist()]
    except ValueError:
        raise LeafError("labels contains text that is not UTF-8. Save str instead of bytes.") from None


def _check_range(block: np.ndarray, start: int) -> None:
    """Raise LeafError for the first image of the block with a value outside 0 to 255."""
    low, high = block.min(axis=(1, 2, 3)), block.max(axis=(1, 2, 3))  # NaN if the image contains NaN
    wrong = ~((low >= 0) & (high <= 255))
    if not wrong.any():
        return
    place = int(np.flatnonzero(wrong)[0])
    if not np.isfinite(block[place]).all():
        raise LeafError(f"image {start + place} contains NaN or infinity. Use values from 0 to 255.")
    raise LeafError(
        f"image {start + place} has values from {low[place]:g} to {high[place]:g}. "
        + ("Undo the scaling to -1..1." if low[place] >= -1 and high[place] <= 1 else "Use values from 0 to 255.")
    )


def _ahead(blocks: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Read the next block in a thread while the current one is processed: zlib and disk reads release the GIL."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = pool.submit(next, blocks, None)
            yield block


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


def unpickle_strings(data: bytes, count: int) -> list[str | int]:
    """Return the items of a pickled one-dimensional object array of `count` strings or integers.

    Raises LeafError for any other content.
    """
    try:
        _check_opcodes(data)
        return _items(_Unpickler(io.BytesIO(data), encoding="latin1").load(), count)
    except RefusedError as refused:
        why = str(refused)
    except Exception as error:  # noqa: BLE001 (the Unpickler raises many types for a malformed pickle)
        why = f"a pickle that cannot be read ({type(error).__name__})"
    shown = why.encode("ascii", "backslashreplace").decode()
    raise LeafError(f"labels contains {shown[:120]}. Save only strings or integers.")


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
