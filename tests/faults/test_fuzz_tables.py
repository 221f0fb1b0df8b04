"""Fuzz overrides.csv and metadata.csv: each is read or rejected with a one-line error, in limited memory."""

import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from leaf.clean import decisions
from leaf.edited_tables import read_edited_table
from leaf.ingest.ingest import ingest

CLASSES = ("healthy", "unhealthy")
HASHES = [f"{number:032x}" for number in range(4)]
MEMORY = 512 * 2**20  # bytes that reading may allocate; more raises MemoryError and fails the test
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}

WORDS = ["keep", "drop", "relabel", "group", "apart", "", "NA", "nan", "=1+1", "../x", "healthy/0.png"]
CELLS = st.sampled_from([*HASHES, *CLASSES, *WORDS]) | st.text(max_size=12)
OVERRIDES = ",".join(decisions.TEXT)
HEADS = st.sampled_from(
    ["hash,ruling,label,who,why", "file,label,group,split", "hash,hash,label", "file,label,file", OVERRIDES]
)


def line(cells):
    return ",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell for cell in cells)


TABLES = st.builds(
    lambda head, rows: "\n".join([head, *map(line, rows)]).encode("utf-8", "surrogatepass"),
    HEADS,
    st.lists(st.lists(CELLS, min_size=1, max_size=8), max_size=6),
)


@st.composite
def contents(draw):
    """Draw a table with some bytes changed or cut off or, in 10% of cases, random bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    raw = bytearray(draw(TABLES))
    for _ in range(draw(st.integers(0, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.sampled_from(b'\0\n\r",\xff\xef;\t\x1a'))
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)


@pytest.fixture(autouse=True)
def limit_memory():
    """Limit the growth of the address space to MEMORY."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("image_folder")
    for label in CLASSES:
        (root / label).mkdir()
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), 40 * number + 9, np.uint8)).save(root / label / f"{number}.png")
    return root


def read_overrides(path):
    table = read_edited_table(path, decisions.COLUMNS, decisions.TEXT)
    decisions.read_overrides(table, pd.DataFrame({"hash": HASHES}), CLASSES)


@pytest.mark.slow
@settings(max_examples=2000, **SLOW)
@given(content=contents())
def test_fuzzed_overrides_are_read_or_rejected(accept_or_refuse, tmp_path, content):
    path = tmp_path / "overrides.csv"
    path.write_bytes(content)
    accept_or_refuse(read_overrides, path)


@pytest.mark.slow
@settings(max_examples=1000, **SLOW)
@given(content=contents())
def test_fuzzed_metadata_is_read_or_rejected(accept_or_refuse, image_folder, tmp_path, content):
    (image_folder / "metadata.csv").write_bytes(content)
    accept_or_refuse(ingest, image_folder, tmp_path / "images.npy", CLASSES, 8)


def test_valid_tables_are_read(image_folder, tmp_path):
    (tmp_path / "overrides.csv").write_text(f"hash,ruling,label,who,why\n{HASHES[1]},relabel,unhealthy,me,seen\n")
    read_overrides(tmp_path / "overrides.csv")
    (image_folder / "metadata.csv").write_text("file,label\nhealthy/0.png,healthy\nunhealthy/1.png,unhealthy\n")
    assert len(ingest(image_folder, tmp_path / "images.npy", CLASSES, 8).index) == 2
