"""Tables of labels, groups and splits as people and their spreadsheets write them."""

import csv
import difflib
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaf.errors import LeafError

# What a column is for, by the names that people give it (lower case, anything but letters and digits as _).
COLUMNS = {
    "file": "file filename file_name filepath file_path image image_name image_path image_id img path id",
    "label": "label labels label_name class class_name category target disease",
    "group": "group group_id plant plant_id leaf leaf_id patient patient_id session session_id",
    "split": "split set subset partition",
    "site": "site location farm",
    "crop": "crop species",
    "camera": "camera device",
    "date": "date taken",
}
KEPT = ("site", "crop", "camera", "date")  # for a later audit; nothing here goes by them
_ROLE = {name: role for role, names in COLUMNS.items() for name in names.split()}
_NOTHING = {"", "na", "n/a", "nan", "none", "null", "-", "?"}
_ONE = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True}


@dataclass(frozen=True)
class Row:
    """One row by the columns' roles ("" where it says nothing), and its line in the file."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table of labels: its rows, the roles that its columns have, and notes for a person, a line each."""

    path: Path
    rows: list[Row]
    roles: set[str]
    notes: list[str]


def read_labels(path: Path) -> Table:
    """Read a CSV or TSV table; separator, encoding and line ends are found, columns go by `COLUMNS`.

    Without a column of labels, two or more columns of 0 and 1 of which each row sets one are labels (one-hot). Raises
    LeafError, naming the line, for what is no table, and for several columns of one role.
    """
    text, notes = _decoded(path)
    lines = list(_cells(text, path))
    names = lines[0][1] if lines else []
    body = lines[1:]
    for line, cells in body:
        if len(cells) != len(names):
            raise LeafError(f"{path}: line {line}: not {len(names)} fields")
    columns = _columns(names, path)
    hot = [] if "label" in columns else _one_hot(names, columns, body, notes, path)
    unknown = [name for place, name in enumerate(names) if place not in {*columns.values(), *hot} and name.strip()]
    if unknown:
        notes.append(f"{path}: columns not used: {', '.join(map(_with_nearest, unknown))}")
    rows = []
    for line, cells in body:
        row = {role: _value(cells[place], role) for role, place in columns.items()}
        if hot:
            row["label"] = next(names[place].strip() for place in hot if _ONE[cells[place].strip().lower()])
        rows.append(Row(line, row))
    return Table(path, rows, {*columns, *(["label"] if hot else [])}, notes)


def _decoded(path: Path) -> tuple[str, list[str]]:
    data = path.read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise LeafError(f"{path}: a spreadsheet's own file; save it as CSV")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data[:200]:
        encodings = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        notes = [] if encoding.startswith("utf") else [f"{path}: not UTF-8, read as {encoding}"]
        return unicodedata.normalize("NFC", text), notes
    raise LeafError(f"{path}: no text in UTF-8, UTF-16 or Latin-1; valid: a CSV table")


def _cells(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, with the line each ends on."""
    head = re.match(r"sep=(.)[\r\n]+", text, re.IGNORECASE)  # Excel's own hint
    header = text[head.end() if head else 0 :].split("\n", 1)[0]
    separator = head[1] if head else max(",;\t|", key=re.sub(r'"[^"]*"', "", header).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not (head and reader.line_num == 1):
                yield reader.line_num, cells
    except csv.Error as error:
        raise LeafError(f"{path}: line {reader.line_num}: not a readable CSV table ({error})") from None


def _columns(names: Sequence[str], path: Path) -> dict[str, int]:
    """The place of the column of each role."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        if role := _ROLE.get(_plain(name)):
            places[role].append(place)
    for role, several in places.items():
        if len(several) > 1:
            which = " and ".join(repr(names[place]) for place in several)
            raise LeafError(f"{path}: {which} may each be the {role}; keep one of them, rename or delete the others")
    if "file" not in places:
        found = ", ".join(names) or "none"
        valid = COLUMNS["file"].replace(" ", ", ")
        raise LeafError(f"{path}: its columns are {found}; valid: one that names the file ({valid})")
    return {role: several[0] for role, several in places.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")


def _with_nearest(name: str) -> str:
    near = difflib.get_close_matches(_plain(name), _ROLE, 1, 0.75)
    return f"{name!r} (did you mean {near[0]}?)" if near else repr(name)


def _one_hot(
    names: Sequence[str],
    columns: dict[str, int],
    rows: Sequence[tuple[int, Sequence[str]]],
    notes: list[str],
    path: Path,
) -> list[int]:
    """The places of two or more columns of 0 and 1 of which each row sets exactly one; else none."""
    free = [place for place in range(len(names)) if place not in columns.values() and names[place].strip()]
    hot = [place for place in free if rows and all(row[place].strip().lower() in _ONE for _, row in rows)]
    if len(hot) < 2:
        return []
    for line, row in rows:
        ones = sum(_ONE[row[place].strip().lower()] for place in hot)
        if ones != 1:
            said = ", ".join(repr(names[place]) for place in hot[:4])
            notes.append(
                f"{path}: line {line}: {ones} of the columns of 0 and 1 ({said} …) are set, they are no classes"
            )
            return []
    return hot


def _value(cell: str, role: str) -> str:
    if role == "file":
        return cell
    cell = cell.strip()
    if role == "label":  # a class may be called none; a spreadsheet writes the number 1 as 1.0
        return "" if cell.lower() in ("", "na", "n/a", "nan") else re.sub(r"^(\d+)\.0+$", r"\1", cell)
    return "" if cell.lower() in _NOTHING else cell


class Finder:
    """Finds the file that a cell of a table means, among paths relative to the folder `root`."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """Take the paths of the files."""
        self._root = root.resolve().name
        self._files = files
        self._known: dict[int, dict[str, list[str]]] = {}

    def find(self, cell: str) -> list[str]:
        """The files that it may mean, by the strictest reading that any fits; none where no reading does.

        A path, or the end of one; it may begin above the folder. Then without regard to case; without the ending; by
        number (7 is 0007.jpg).
        """
        text = unicodedata.normalize("NFC", cell if cell.strip() in ("", cell) else cell.strip())
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        inside = ["/".join(parts)]
        if self._root in parts[:-1]:
            inside.append("/".join(parts[len(parts) - parts[::-1].index(self._root) :]))
        elif re.match(r"[\\/]|[A-Za-z]:", text):  # from the root of another machine: its end, the longest first
            inside += ["/".join(parts[place:]) for place in range(1, len(parts))]
        for way, (of_file, of_cell) in enumerate(_WAYS):
            if way not in self._known:
                self._known[way] = _by_ends(self._files, of_file)
            for path in inside:
                found = self._known[way].get(of_cell(path), [])
                whole = [file for file in found if of_file(unicodedata.normalize("NFC", file)) == of_cell(path)]
                if found:
                    return whole if len(whole) == 1 else found
        return []


def _by_ends(files: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """The files by the keys of their paths and of every end of these (`a/b/c`, `b/c`, `c`)."""
    known: dict[str, list[str]] = defaultdict(list)
    for file in files:
        end = unicodedata.normalize("NFC", file)
        while end:
            known[key(end)].append(file)
            end = end.partition("/")[2]
    known.pop("", None)
    return dict(known)


def _stem(path: str) -> str:
    return path.rpartition(".")[0].casefold() if "." in path.rpartition("/")[2] else path.casefold()


def _number(text: str) -> str:
    found = re.fullmatch(r"0*(\d+)(\.0+)?", text)
    return found[1] if found else ""


_WAYS: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
    (str, str),
    (str.casefold, str.casefold),
    (_stem, str.casefold),
    (lambda path: _number(_stem(path)), _number),
]
