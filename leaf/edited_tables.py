"""Read CSV tables edited by hand or in a spreadsheet: detect the separator and encoding, and skip blank rows."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leaf.errors import LeafError

if TYPE_CHECKING:
    import pandas as pd


def read_text(path: str | Path, encoding: str = "auto") -> tuple[str, str]:
    """Return the text of a file in Unicode NFC, and its encoding. `auto` detects UTF-8, UTF-16 and Latin-1.

    Raises LeafError if the file is not text in this encoding, or the encoding is unknown.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file. Restore it with `git checkout {path}`.") from None
    if data.startswith(b"version https://git-lfs"):
        raise LeafError(f"{path}: a Git LFS pointer, not the file itself. Run `git lfs pull`.")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise LeafError(f"{path}: a spreadsheet or zip file. Export the table as CSV.")
    encodings = [encoding] if encoding != "auto" else ["utf-8-sig", "cp1252", "latin-1"]
    if encoding == "auto" and b"\0" in data[:200]:
        bom = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        encodings = ["utf-16" if bom else "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    for name in encodings:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        except LookupError:
            raise LeafError(f"encoding: {name}: unknown. Use auto, or a Python encoding such as cp1252.") from None
        if "\0" in text:
            break
        return unicodedata.normalize("NFC", text.removeprefix("\ufeff")), name
    valid = "UTF-8, UTF-16 or Latin-1" if encoding == "auto" else encoding
    raise LeafError(
        f"{path}: cannot be decoded as {valid}. Save it as a CSV table in UTF-8 or, if it is the label table, set the "
        "key `encoding`."
    )


def csv_rows(text: str, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each non-blank row of a CSV table with its last line number. The separator is detected.

    Blank cells beyond the last header column are removed. Raises LeafError if the table is not valid CSV.
    """
    head = re.match(r"sep=(.)[\r\n]+", text, re.IGNORECASE)  # written by Excel
    header = text[head.end() if head else 0 :].split("\n", 1)[0]
    separator = head[1] if head else max(",;\t|", key=re.sub(r'"[^"]*"', "", header).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not (head and reader.line_num == 1):
                while len(cells) > max(width, 1) and not cells[-1].strip():
                    cells.pop()
                width = width or len(cells)
                yield reader.line_num, cells
    except csv.Error as error:
        raise LeafError(
            f"{path}: line {reader.line_num}: not a readable CSV table ({error}). Correct the line."
        ) from None


def read_edited_table(path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()) -> "pd.DataFrame":
    """Read a hand-edited CSV table as text. The names of `columns` and `optional` are case-insensitive.

    The index is the line number minus 2, so 0 is the row below the header. Raises LeafError if the table is damaged or
    lacks one of the `columns`.
    """
    import pandas as pd

    rows = list(csv_rows(read_text(path)[0], path))
    names = [name.strip() for name in rows[0][1]] if rows else []
    known = {name.lower(): name for name in (*columns, *optional)}
    names = [known.get(name.lower(), name) for name in names]
    missing = [name for name in columns if name not in names]
    if missing or len(set(names)) < len(names):
        wrong = f"no column {', '.join(missing)}" if missing else "a column name appears twice"
        raise LeafError(f"{path}: {wrong}. Available columns: {', '.join(names)}.")
    for line, cells in rows[1:]:
        if len(cells) > len(names):
            raise LeafError(
                f"{path}: line {line}: {len(cells)} fields; the header has {len(names)}. Quote fields that contain the "
                "separator."
            )
        cells[:] = [cell.strip() for cell in cells] + [""] * (len(names) - len(cells))
    return pd.DataFrame([cells for _, cells in rows[1:]], [line - 2 for line, _ in rows[1:]], names, dtype=object)
