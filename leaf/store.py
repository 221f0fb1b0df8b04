"""Read and write arrays, tables, JSON and YAML: writes are atomic, and damaged files raise one-line errors."""

import csv
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from leaf.errors import LeafError

if TYPE_CHECKING:
    import pandas as pd

# Columns that `read_table` checks if they are required and not read as text.
INTEGER_COLUMNS = frozenset({"image", "label", "kept", "group", "epoch", "parent", "predicted"})
NUMBER_COLUMNS = frozenset({"distance", "weight", "mse", "aligned_mse", "loss", "accuracy"})
YAML_VALUES = 200_000  # maximum number of values in a YAML document after expanding its aliases
LOCK_SECONDS = 10

_Read = TypeVar("_Read", bound=Callable[..., Any])


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`. On success, flush the file and rename it to `path`; otherwise remove it.

    Symbolic links to writable files are followed. DVC's links to its cache are read-only and are replaced. An OSError
    contains `path` as its file name.
    """
    path = Path(path)
    if path.is_symlink() and path.exists() and path.stat().st_mode & 0o200:
        path = path.resolve()
    # NumPy and Keras derive the format from the suffix.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, partial, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _naming(read: _Read) -> _Read:
    """Add the path, the first argument of `read`, to each OSError that lacks a file name, such as EIO."""

    @wraps(read)
    def reader(path: str | Path, *arguments: Any, **options: Any) -> Any:
        try:
            return read(path, *arguments, **options)
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from None

    return cast(_Read, reader)


@contextmanager
def new_array(path: str | Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Yield a writable memory map of a new .npy file of zeros.

    Disk space is reserved first, so a full disk raises an OSError instead of a bus error later.
    """
    with replacing(path) as partial:
        if 0 in shape:  # an empty array cannot be mapped
            array = np.zeros(shape, dtype)
            yield array
            np.save(partial, array, allow_pickle=False)
            return
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(dtype), shape=shape)
        with partial.open("rb+") as file, suppress(AttributeError):  # macOS has no posix_fallocate
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        yield array
        array.flush()
        del array


def write_array(array: np.ndarray, path: str | Path) -> None:
    """Write an array as a .npy file."""
    with new_array(path, array.shape, array.dtype) as out:
        out[...] = array


@_naming
def read_array(path: str | Path) -> np.ndarray:
    """Return a read-only memory map of a .npy file. Raises LeafError if the file is missing or damaged."""
    try:
        with Path(path).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # An empty array cannot be mapped.
        return np.empty(shape, dtype) if 0 in shape else np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file. Run `dvc repro`.") from None
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (numpy raises many types for a damaged header)
        raise LeafError(
            f"{path}: not a complete .npy array ({str(error)[:200]}). Run `dvc repro` or `dvc checkout`."
        ) from None


def write_table(table: "pd.DataFrame", path: str | Path) -> None:
    """Write a table as CSV. Floats have their shortest exact form, so equal tables give identical files."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


@_naming
def read_table(
    path: str | Path, columns: Sequence[str] = (), text: Sequence[str] = (), data: bytes | None = None
) -> "pd.DataFrame":
    """Read a CSV table.

    Args:
        path: the file.
        columns: required columns. INTEGER_COLUMNS must contain nonnegative integers, and NUMBER_COLUMNS numbers or
            empty cells.
        text: columns to read as text; empty cells become "".
        data: file contents to parse instead of reading `path`.

    Raises:
        LeafError: if the file is missing, is not CSV, lacks a column, or a column has the wrong type.
    """
    import pandas as pd  # slow to import, and many commands read no table

    try:
        names = pd.read_csv(path if data is None else io.BytesIO(data), nrows=0, encoding="utf-8").columns
        table = pd.read_csv(
            path if data is None else io.BytesIO(data),
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,  # an image can have the name "NA"
            na_values={name: [""] for name in names if name not in text},
            encoding="utf-8",
            low_memory=False,
        )
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file. Run `dvc repro`.") from None
    except (ValueError, OverflowError) as error:
        raise LeafError(f"{path}: not a CSV table ({error}). Run `dvc repro`, or `git checkout` the file.") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise LeafError(
            f"{path}: no column {', '.join(missing)}. Available columns: {', '.join(map(str, table.columns))}."
        )
    for name in columns:
        if name not in text and len(table):
            _check_column(path, table[name])
    return table


def _check_column(path: str | Path, column: "pd.Series") -> None:
    name, kind = str(column.name), column.dtype.kind
    if name in INTEGER_COLUMNS and (kind not in "iu" or column.min() < 0):
        raise LeafError(f"{path}: column {name} must contain nonnegative integers. Run `dvc repro` or `dvc checkout`.")
    if name in NUMBER_COLUMNS and kind not in "iuf":
        raise LeafError(f"{path}: column {name} must contain numbers. Run `dvc repro` or `dvc checkout`.")


def read_classes(root: str | Path = ".") -> list[str]:
    """Return the class names of the ingested data set, in label order."""
    path = Path(root, "data/ingested/classes.csv")
    table = read_table(path, ["label", "name"], text=["name"]).sort_values("label")
    if table["label"].tolist() != list(range(len(table))):
        raise LeafError(
            f"{path}: column label must contain each of 0 to {len(table) - 1} once. Run `dvc repro` or `dvc checkout`."
        )
    return table["name"].tolist()


def write_json(value: Any, path: str | Path) -> None:
    """Write a value, converted with `plain`, as JSON with sorted keys."""
    with replacing(path) as partial:
        text = json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


@_naming
def read_json(
    path: str | Path, keys: Mapping[str, type | tuple[type, ...]] | None = None, data: bytes | None = None
) -> Any:
    """Read JSON.

    Args:
        path: the file.
        keys: required keys of the JSON object, with their Python types.
        data: file contents to parse instead of reading `path`.

    Raises:
        LeafError: if the file is missing, is not JSON, or does not match `keys`.
    """
    try:
        value = json.loads((Path(path).read_bytes() if data is None else data).decode("utf-8"))
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file. Run `dvc repro`.") from None
    except RecursionError:
        raise LeafError(f"{path}: nested too deeply. Run `dvc repro` or `dvc checkout`.") from None
    except ValueError as error:
        raise LeafError(f"{path}: not JSON ({error}). Run `dvc repro` or `dvc checkout`.") from None
    if keys is None:
        return value
    if not isinstance(value, dict):
        raise LeafError(f"{path}: not a JSON object. Run `dvc repro` or `dvc checkout`.")
    for key, kinds in keys.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if key not in value or not isinstance(value[key], kinds) or (type(value[key]) is bool and bool not in kinds):
            valid = " or ".join(kind.__name__ for kind in kinds)
            raise LeafError(f"{path}: {key}: missing or not of type {valid}. Run `dvc repro` or `dvc checkout`.")
    return value


def cache_folder(name: str) -> Path:
    """Return the cache folder `name` in $LEAF_STATE, $XDG_CACHE_HOME/leaf or ~/.cache/leaf, and create it if necessary.

    Without a writable home, as in some containers, fall back to .dvc/tmp/leaf in the project, and print a message.
    Raises LeafError if $LEAF_STATE is not writable.
    """
    chosen = os.environ.get("LEAF_STATE")
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(chosen or cache / "leaf") / name
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is not writable")
    except (OSError, RuntimeError) as error:  # RuntimeError: the home folder is unknown
        if chosen:
            raise LeafError(f"LEAF_STATE: {chosen}: {error}. Use a writable folder.") from None
        folder = Path(".dvc/tmp/leaf", name)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            print(f"{name}: cached in {folder}, because there is no writable home folder", file=sys.stderr)
    return folder


def save_cached_value(name: str, key: str, value: Any) -> None:
    """Save `value` under `key` in the cache file NAME.json. Write errors are ignored.

    A damaged file is replaced. A lock prevents concurrent writers from losing values.
    """
    # FileLock raises NotImplementedError if the file system does not support locks.
    with suppress(OSError, LeafError, NotImplementedError, Timeout):
        path = cache_folder("known") / f"{name}.json"
        with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            write_json({**_cached_values(path), key: value}, path)


def load_cached_value(name: str, key: str, like: Any) -> Any:
    """Return the value that `save_cached_value` saved under `key`, or None if it is missing or damaged.

    `like` is an example with the same types: a string, a number, or a dictionary of them.
    """
    with suppress(OSError, LeafError):
        return valid_or_none(_cached_values(cache_folder("known") / f"{name}.json").get(key), like)
    return None


def valid_or_none(value: Any, like: Any) -> Any:
    """Return `value` if it has the same types as `like` and its numbers are finite and positive, otherwise None."""
    if isinstance(like, dict):
        valid = isinstance(value, dict) and all(valid_or_none(value.get(key), like[key]) is not None for key in like)
    elif isinstance(like, float):
        valid = type(value) in (int, float) and 0 < value < math.inf
    else:
        valid = isinstance(value, type(like))
    return value if valid else None


def _cached_values(path: Path) -> dict[str, Any]:
    with suppress(OSError, LeafError):
        values = read_json(path) if path.is_file() else {}  # not a pipe, which would block
        return values if isinstance(values, dict) else {}
    return {}


EPOCH = {"seconds": 1.0, "images": 1.0, "memory": 1.0}  # example of a value saved under `epoch_key`


def epoch_key(params: Any) -> str:
    """Return the key under which `train` caches the time and memory of an epoch in epochs.json."""
    parts = (params.backbone, params.image_size, params.freeze_depth, params.micro_batch or params.batch_size)
    return " ".join(map(str, (*parts, params.precision, params.optimizer)))


def span(seconds: float) -> str:
    """Format a duration in hours, minutes or seconds."""
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= 2 * size), ("s", 1))
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML 1.2, in which `yes` is a string and `2e-05` a number (DVC #5971). Return None for empty text.

    Raises LeafError, starting with `name`, if the YAML is invalid or too deeply nested, a key is duplicated, or aliases
    expand to more than YAML_VALUES values.
    """
    try:
        value = YAML(typ="safe", pure=True).load(text)
        size = _expanded_size(value, {})
    except RecursionError:
        raise LeafError(f"{name}: nested too deeply. Remove nested values.") from None
    except (YAMLError, ValueError) as error:  # ValueError: a number with thousands of digits, or an invalid date
        raise LeafError(f"{name}: not YAML ({str(error)[:300]}). Correct the syntax.") from None
    if size > YAML_VALUES:
        raise LeafError(f"{name}: its aliases expand to more than {YAML_VALUES:,} values. Remove the aliases.")
    return value


def _expanded_size(value: Any, sizes: dict[int, float]) -> float:
    """Count the values after expanding all aliases; the count is infinite if a value contains itself."""
    if not isinstance(value, (dict, list, set)):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = math.inf  # remains infinite if the value contains itself
        items = [*value, *value.values()] if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_expanded_size(item, sizes) for item in items)
    return sizes[id(value)]


@_naming
def read_yaml(path: str | Path) -> Any:
    """Read a YAML file with `parse_yaml`. Raises LeafError if the file is missing, not UTF-8 or invalid."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise LeafError(
            f"{path}: no such file. Change to the project folder, or create a project with `leaf init`."
        ) from None
    except UnicodeDecodeError as error:
        raise LeafError(f"{path}: not UTF-8 ({error}). Save it in UTF-8.") from None


@_naming
def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Convert NumPy values, tuples and paths to JSON and YAML values. Non-finite floats become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
