"""Arrays, tables and JSON on disk, written whole or not at all.

Every output is written to a temporary name in its own folder, flushed to the disk and then renamed: a reader, or a
stage after a kill, sees the old file or the new one and never a part.
"""

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from leaf.errors import LeafError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed and takes the name `path`, else it is removed.

    A partial file that an earlier, killed run left under the same temporary name is overwritten.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept at the end: some writers (numpy, Keras) choose the format by it or append their own.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def new_array(path: str | Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Give a writable memory map of a new .npy file at `path`, of `shape` and `dtype`, filled with zeros.

    The file's blocks are reserved first, so a full disk is an OSError here and not a bus error in mid-write.
    """
    with replacing(path) as partial:
        if 0 in shape:  # an empty file cannot be mapped
            array = np.zeros(shape, dtype)
            yield array
            np.save(partial, array, allow_pickle=False)
            return
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(dtype), shape=shape)
        with partial.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except AttributeError:  # not on macOS
                pass
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
        yield array
        array.flush()
        del array


def write_array(array: np.ndarray, path: str | Path) -> None:
    """Write an array that is in memory as a .npy file."""
    with new_array(path, array.shape, array.dtype) as out:
        out[...] = array


def read_array(path: str | Path) -> np.ndarray:
    """Memory-map a .npy file, read-only. Raises LeafError where the file is missing or no .npy array."""
    try:
        with Path(path).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # An empty array cannot be mapped.
        return np.empty(shape, dtype) if 0 in shape else np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file; run `dvc repro` first") from None
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a damaged header makes numpy raise)
        raise LeafError(
            f"{path}: not a whole .npy array ({str(error)[:200]}); run `dvc repro` or `dvc checkout`"
        ) from None


def write_table(table: "pd.DataFrame", path: str | Path) -> None:
    """Write a table as UTF-8 CSV, floats in their shortest exact form, so equal tables are equal files."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def read_table(path: str | Path, columns: Sequence[str] = (), text: Sequence[str] = ()) -> "pd.DataFrame":
    """Read a CSV table; the columns named in `text` stay strings ("" where empty), also if they look like numbers.

    Raises LeafError where the file is missing, cannot be parsed or lacks one of `columns`.
    """
    import pandas as pd  # here, for commands that read no table: importing it takes as long as they do

    try:
        names = pd.read_csv(path, nrows=0, encoding="utf-8").columns
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,  # an image may be called "NA"
            na_values={name: [""] for name in names if name not in text},
            encoding="utf-8",
        )
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file; run `dvc repro` first") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise LeafError(f"{path}: not a readable CSV table ({error})") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise LeafError(f"{path}: no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    return table


def read_classes(root: str | Path = ".") -> list[str]:
    """The names of the classes of the ingested data set under the project's folder `root`, in label order."""
    table = read_table(Path(root, "data/ingested/classes.csv"), ["label", "name"], text=["name"])
    return table.sort_values("label")["name"].tolist()


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON with sorted keys; a float that is not finite becomes null, numpy's scalars become Python's."""
    with replacing(path) as partial:
        text = json.dumps(_plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises LeafError where the file is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file; run `dvc repro` first") from None
    except RecursionError:
        raise LeafError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise LeafError(f"{path}: not JSON ({error})") from None


def cache_folder(name: str) -> Path:
    """The folder `name` of what this machine keeps between runs, in $LEAF_STATE, else in $XDG_CACHE_HOME/leaf, else in
    ~/.cache/leaf; it exists afterwards.

    Where nothing can be written there (a container run by an unknown user has no home), it is in .dvc/tmp/leaf of the
    project, which DVC and git ignore, and that is said. Raises LeafError where $LEAF_STATE cannot be written to.
    """
    chosen = os.environ.get("LEAF_STATE")
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(chosen or cache / "leaf") / name
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to")
    except (OSError, RuntimeError) as error:  # RuntimeError: neither $HOME nor the user is known
        if chosen:
            raise LeafError(f"LEAF_STATE: {chosen}: {error}; valid: a folder that can be written to") from None
        folder = Path(".dvc/tmp/leaf", name)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{name}: kept in {folder}, for there is no home to write to", file=sys.stderr)
    return folder


def save_cached_value(name: str, key: str, value: Any) -> None:
    """Keep `value` under `key` in NAME.json of the cache; where that cannot be written, it is not kept."""
    path = cache_folder("known") / f"{name}.json"
    with suppress(OSError, LeafError):
        write_json({**(read_json(path) if path.is_file() else {}), key: value}, path)


def epoch_key(params: Any) -> str:
    """What the time and memory of an epoch go by: the key under which `train` remembers them in `epochs`."""
    parts = (params.backbone, params.image_size, params.freeze_depth, params.micro_batch or params.batch_size)
    return " ".join(map(str, (*parts, params.precision, params.optimizer)))


def span(seconds: float) -> str:
    """Seconds as a person reads them: in hours, minutes or seconds."""
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= 2 * size), ("s", 1))
    return f"{seconds / size:.2g} {unit}"


def load_cached_value(name: str, key: str) -> Any:
    """What `save_cached_value` kept, or None."""
    path = cache_folder("known") / f"{name}.json"
    return read_json(path).get(key) if path.is_file() else None


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML 1.2, as DVC writes it: `yes` and `no` are text, `2e-05` is a number (DVC #5971). None where empty.

    Raises LeafError, with `name` in front, where it is no YAML, a key stands twice, or it is nested without end.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise LeafError(f"{name}: nested too deeply") from None
    except (YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits, a date like 2026-99-99
        raise LeafError(f"{name}: not YAML: {str(error)[:300]}") from None


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file; see `parse_yaml`. Raises LeafError where it is missing or not UTF-8, too."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file; run in the project's folder") from None
    except UnicodeDecodeError as error:
        raise LeafError(f"{path}: not UTF-8: {error}") from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
