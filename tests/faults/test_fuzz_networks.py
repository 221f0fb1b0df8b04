"""Fuzz `.keras` files: each loads or raises a one-line error, within a memory limit."""

import copy
import io
import json
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.damaged import damaged

MEMORY = 12 << 30  # bytes of address space; TensorFlow reserves several gigabytes on import
SECONDS = 30  # time limit per file
# fmt: off
ABSURD = (
    0, -1, 7, 2**31, 2**63, 10**30, 1e400, -1e400, float("nan"), 1e-300, 0.5, True, None, "", "x", "same", "\u202e",
    "a" * 5000, "float16", "string", [], {}, [1], [[1]], [2**31, 2**31], [None, 0, 0, 3], [None, 16, 16, 3],
    {"class_name": "Dense"},
)
# fmt: on


def value_paths(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a configuration."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*above, key)
        yield from value_paths(value, (*above, key))


def configurations(valid: dict[str, Any], count: int) -> Iterator[bytes]:
    """Yield `count` copies of a configuration with one to three values deleted or replaced with absurd ones."""
    choice, paths = random.Random(0), list(value_paths(valid))
    for _ in range(count):
        changed = copy.deepcopy(valid)
        for path in choice.sample(paths, choice.randint(1, 3)):
            node = changed
            try:
                for key in path[:-1]:
                    node = node[key]
                node[path[-1]] = choice.choice(ABSURD)
                if choice.random() < 0.2:
                    del node[path[-1]]
            except (KeyError, IndexError, TypeError):  # removed by an earlier change
                continue
        yield json.dumps(changed).encode()


def archive(entries: dict[str, bytes]) -> bytes:
    """Return the bytes of a `.keras` file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return stream.getvalue()


def changed_files(part: str, valid: bytes, count: int) -> Iterator[bytes]:
    """Yield `count` files changed in the configuration, in the arrays, or anywhere (`file`)."""
    with zipfile.ZipFile(io.BytesIO(valid)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    if part == "file":
        yield from damaged(valid, count)
    elif part == "arrays":
        for content in damaged(entries["model.weights.h5"], count):
            yield archive(entries | {"model.weights.h5": content})
    else:
        for content in configurations(json.loads(entries["config.json"]), count):
            yield archive(entries | {"config.json": content})


def main(part: str, count: int, folder: Path) -> None:
    """Load the changed files one by one. Stop at the first unexpected error, and keep that file in `folder`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import keras

    from leaf.errors import LeafError
    from leaf.models.build import build_model
    from leaf.models.saving import load_model, save_model

    path = folder / "changed.keras"
    save_model(build_model("cnn_small", 16), path)
    outcomes = {"loaded": 0, "refused": 0}
    for number, content in enumerate(changed_files(part, path.read_bytes(), count)):
        path.write_bytes(content)
        start = time.monotonic()
        try:
            load_model(path)
            outcomes["loaded"] += 1
        except LeafError as error:
            outcomes["refused"] += 1
            if not str(error).startswith(f"{path}: "):
                raise
        assert time.monotonic() - start < SECONDS, number
        keras.backend.clear_session()
    print(json.dumps(outcomes))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["configuration", "arrays", "file"])
def test_fuzzed_models_load_or_raise_a_one_line_error(part, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.test_fuzz_networks", part, "1000", tmp_path],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == 1000
    assert outcomes["refused"] > 10  # in `file`, the archive's checksums reveal most changes


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
