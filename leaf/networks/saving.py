"""Save a network so that equal weights are an equal file; load one so that nothing in the file is run."""

import json
import math
import os
import tempfile
import zipfile
from pathlib import Path

import keras

from leaf import store
from leaf.errors import LeafError
from leaf.networks import archive

_HEADER = 4096  # bytes that HDF5 and JSON take for a variable beside its values, and to spare
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold


def save(model: keras.Model, path: str | Path) -> None:
    """Write the network alone, without optimizer, as a `.keras` file; equal networks give equal bytes."""
    if Path(path).suffix != ".keras":
        raise LeafError(f"{path}: not a .keras file")
    bare = keras.Model(model.input, model.output, name=model.name)  # leaves compile()'s settings behind
    config = keras.saving.serialize_keras_object(bare)
    metadata = {"keras_version": keras.__version__, "date_saved": "1980-01-01@00:00:00"}
    with store.replacing(path) as partial, tempfile.TemporaryDirectory(dir=partial.parent) as folder:
        _make_sure_of_room(partial, 2 * sum(4 * math.prod(each.shape) + _HEADER for each in bare.variables), path)
        variables = Path(folder) / "model.weights.h5"
        bare.save_weights(variables)
        with zipfile.ZipFile(partial, "w") as file:
            for name, value in (("metadata.json", metadata), ("config.json", config)):
                file.writestr(_entry(name), json.dumps(value, sort_keys=True))
            with file.open(_entry(variables.name), "w", force_zip64=True) as target, variables.open("rb") as source:
                while block := source.read(1 << 20):
                    target.write(block)


def _make_sure_of_room(partial: Path, size: int, path: str | Path) -> None:
    """Raise OSError that names `path` where `size` bytes have no room; HDF5 would add tracebacks of its own."""
    with partial.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # not on macOS
            pass
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            file.truncate(0)


def load(path: str | Path, sha256: str | None = None) -> keras.Model:
    """Load a network that `save` wrote.

    Args:
        path: a `.keras` file.
        sha256: what its SHA-256 must be, in hex; None for any.

    Raises:
        LeafError: for another kind of file, another SHA-256, and a file that is damaged or names a foreign class.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise LeafError(f"{path}: not a .keras file; valid: a network that `train` saved")
    if not path.is_file():
        raise LeafError(f"{path}: no such file; run `dvc repro` first")
    if sha256 is not None and (found := store.sha256(path)) != sha256:
        raise LeafError(f"{path}: changed since it was trained: its SHA-256 is {found}, not {sha256}")
    archive.check(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a damaged configuration makes Keras raise
        raise LeafError(f"{path}: not a network that Keras can build ({str(error)[:200]})") from error
    if not isinstance(model, keras.Model) or len(model.inputs) != 1 or model.inputs[0].shape[1:][-1:] != (3,):
        raise LeafError(f"{path}: takes no image; valid: a network that `train` saved")
    return model


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = 0o644 << 16
    return entry
