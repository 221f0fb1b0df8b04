"""With damaged files, commands print a result or a one-line error, never a traceback."""

import shutil
import traceback
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.errors import LeafError

pytestmark = pytest.mark.slow

COMMANDS = {
    "results": ("results",),
    "results without dvc.lock": ("results",),
    "why": ("why", "3"),
    "compare": ("compare", "HEAD", "workspace"),
    "report": ("report", "HEAD", "workspace", "--to", "fuzz.html"),
}
TABLES = {  # the files that each command reads, and dvc.lock for the up-to-date check of `leaf results`
    "results": ("models/run.json", "data/cleaned/decisions.csv", "dvc.lock"),
    "results without dvc.lock": ("metrics/*.json",),
    "why": (
        *("data/ingested/index.csv", "data/ingested/classes.csv", "data/overrides.csv", "data/cleaned/decisions.csv"),
        *("data/cleaned/pairs.csv", "data/split/splits.csv", "data/balanced/index.csv", "data/scored/predictions.csv"),
    ),
    "compare": (
        *("data/ingested/index.csv", "data/ingested/classes.csv", "data/cleaned/decisions.csv"),
        *("data/split/splits.csv", "data/scored/predictions.csv"),
    ),
    "report": ("params.yaml", "data/scored/scores.json", "models/history.csv", "models/run.json"),
}


def swap_columns(raw: bytes) -> bytes:
    return b"\n".join(b",".join(reversed(line.split(b","))) for line in raw.split(b"\n"))


def replace_cells(cell: bytes):
    def damage(raw: bytes) -> bytes:
        head, *lines = raw.split(b"\n")
        return b"\n".join([head, *(b",".join([cell] * (line.count(b",") + 1)) for line in lines if line)])

    return damage


def replace_values(value: bytes):
    """Replace every value that is on the same line as its key in JSON or YAML."""

    def damage(raw: bytes) -> bytes:
        lines = raw.split(b"\n")
        return b"\n".join(
            line.partition(b": ")[0] + b": " + value + b"," * line.endswith(b",") if b": " in line else line
            for line in lines
        )

    return damage


DAMAGES = {
    "empty": lambda _: b"",
    "half": lambda raw: raw[: len(raw) // 2],
    "first line": lambda raw: raw.split(b"\n")[0] + b"\n",
    "header renamed": lambda raw: b"x" + raw,
    "no first row": lambda raw: b"\n".join(raw.split(b"\n")[:1] + raw.split(b"\n")[2:]),
    "doubled": lambda raw: raw + raw.partition(b"\n")[2],
    "NUL": lambda raw: raw[:20] + b"\0\0" + raw[20:],
    "not UTF-8": lambda raw: raw[:20] + b"\xff\xfe" + raw[20:],
    "columns swapped": swap_columns,
    "cells text": replace_cells(b"x"),
    "cells empty": replace_cells(b""),
    "cells negative": replace_cells(b"-7"),
    "cells huge": replace_cells(b"99999999999999999999"),
    "cells nan": replace_cells(b"nan"),
    "cells large": replace_cells(b"9000"),
    "values text": replace_values(b'"x"'),
    "values null": replace_values(b"null"),
    "values list": replace_values(b"[]"),
    "values mapping": replace_values(b"{}"),
    "values huge": replace_values(b"1e999"),
    "list": lambda _: b"[]",
    "null": lambda _: b"null",
    "mapping": lambda _: b"{}",
    "number": lambda _: b"7",
    "deep": lambda _: b"[" * 5000,
}


def damaged_files(folder: Path, command: str):
    return [path for pattern in TABLES[command] for path in sorted(folder.glob(pattern))]


def outcome(command: str) -> str:
    """Run a command; return the traceback of an unexpected error, or an empty string."""
    error = CliRunner().invoke(app, COMMANDS[command]).exception
    if error is None or isinstance(error, (LeafError, SystemExit, OSError)):
        return ""
    return "".join(traceback.format_exception(error))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=pytest.mark.full if name in ("compare", "report") else ()) for name in COMMANDS],
)
def test_damaged_file_gives_a_result_or_a_one_line_error(project, command, monkeypatch):
    monkeypatch.chdir(project.folder)
    if command == "results without dvc.lock":
        (project.folder / "dvc.lock").unlink()  # with dvc.lock, changed metrics would be skipped
    assert CliRunner().invoke(app, COMMANDS[command]).exit_code == 0
    failed = {}
    for path in damaged_files(project.folder, command):
        whole = path.read_bytes()
        path.chmod(0o644)
        copy = path.with_name("whole")
        path.rename(copy)  # the original may be a link to DVC's cache, so do not overwrite it
        for name, damage in DAMAGES.items():
            path.write_bytes(damage(whole))
            if said := outcome(command):
                failed[f"{path.relative_to(project.folder)}: {name}"] = said.splitlines()[-1]
            path.unlink()
        path.mkdir()
        if said := outcome(command):
            failed[f"{path.relative_to(project.folder)}: a folder"] = said.splitlines()[-1]
        shutil.rmtree(path)
        if said := outcome(command):
            failed[f"{path.relative_to(project.folder)}: missing"] = said.splitlines()[-1]
        copy.rename(path)
    assert failed == {}
