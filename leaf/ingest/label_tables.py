"""Read label tables: CSV, TSV, Label Studio JSON and CVAT XML files that assign labels, groups and splits to images."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from leaf.edited_tables import csv_rows, read_text
from leaf.errors import LeafError
from leaf.ingest.classes import nfc
from leaf.ingest.files import SUFFIXES

# Common column names of each role, in lower case, with _ in place of anything but letters and digits.
COLUMNS = {
    "file": "file filename file_name filepath file_path image image_name image_path image_id img path id",
    "label": "label labels label_name class class_name category target tag disease diagnosis dx choice ground_truth",
    "group": "group group_id plant plant_id leaf leaf_id lesion_id patient patient_id subject_id session session_id",
    "split": "split set subset partition is_train is_test is_val is_valid is_validation",
    "site": "site location farm",
    "crop": "crop species",
    "camera": "camera device",
    "date": "date taken",
}
KEPT = ("site", "crop", "camera", "date")  # copied to index.csv for the audit
GIVEN_COLUMNS = ("file_hash", "who", "date", "run", "chosen")  # written by `leaf review --unlabelled`
NO_COLUMN = "none"  # value of a role in the key `columns`: the table has no such column
_ROLE = {name: role for role, names in COLUMNS.items() for name in names.split()}
_WEAK = {"id"}  # names that are used only if no other name of the same role exists
ROBOFLOW = "_classes.csv"  # columns of 0 and 1 for each class
SEVERAL = "\0several"  # the cell of an image with several labels
_EMPTY = {"", "na", "n/a", "nan", "none", "null", "-", "?"}
_ONE = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_ONE |= {"no": False, "yes": True, "n": False, "y": True, "f": False, "t": True}
_FLAG = re.compile(r"(is|has|in|on|was|use|used|with)_|(train|test|val|valid|validation|ignore|exclude)$")


@dataclass(frozen=True)
class Row:
    """A table row: its line in the file, and its cells by role ("" if empty)."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A label table.

    Attributes:
        path: the file.
        rows: the rows.
        roles: the roles of its columns.
        notes: one-line messages for the user.
        one_hot: whether the labels come from columns of 0 and 1.
        unused: columns without a role; those that look like labels come first.
        categorical: whether the values of an unused column repeat, as labels do.
    """

    path: Path
    rows: list[Row]
    roles: set[str]
    notes: list[str]
    one_hot: bool = False
    unused: Sequence[str] = ()
    categorical: bool = False


def read_labels(path: Path, columns: Mapping[str, str] | None = None, encoding: str = "auto") -> Table:
    """Read a label table.

    Without a label column, two or more 0/1 columns are the labels (one-hot) if each row sets exactly one of
    them. Names such as `is_train` and `in_field` are not classes.

    Args:
        path: a CSV or TSV table, a JSON export of Label Studio, or annotations.xml of CVAT.
        columns: maps a role (file, label, group, split) to a column name, "" to detect it by `COLUMNS`, or `none`.
        encoding: text encoding; `auto` detects UTF-8, UTF-16 and Latin-1.

    Raises:
        LeafError: if the file is not a table (the message gives the line), or several columns have one role.
    """
    text, used = read_text(path, encoding)
    notes = [] if encoding != "auto" or used.startswith("utf") else [f"{path}: not UTF-8, read as {used}"]
    if path.suffix.lower() in (".json", ".xml"):
        from leaf.ingest import label_exports  # imports pydantic, which decoding processes do not need

        lines = (label_exports.read_cvat if path.suffix.lower() == ".xml" else label_exports.read_label_studio)(
            text, path
        )
    else:
        lines = list(csv_rows(text, path))
    names = [name.strip() for name in lines[0][1]] if lines else []
    body = lines[1:]
    for line, cells in body:
        if len(cells) != len(names):
            raise LeafError(f"{path}: line {line}: {len(cells)} fields; the header has {len(names)}.")
    if GIVEN_COLUMNS[0] in names:  # rows with a hash are read by `leaf.ingest.unlabelled`
        hashed = names.index(GIVEN_COLUMNS[0])
        own = [place for place, name in enumerate(names) if name not in GIVEN_COLUMNS]
        body = [(line, [cells[place] for place in own]) for line, cells in body if not cells[hashed].strip()]
        names = [names[place] for place in own]
    places = _places(names, path, columns or {}, body, notes)
    hot = [] if "label" in places or (columns or {}).get("label") else _one_hot(names, places, body, notes, path)
    free = [place for place, name in enumerate(names) if place not in {*places.values(), *hot} and name]
    if free:
        notes.append(f"{path}: columns not used: {', '.join(_with_nearest(names[place]) for place in free)}")
    if hot:
        notes.append(f"{path}: its columns of 0 and 1 are the classes: {_shown([names[place] for place in hot])}")
    rows = []
    notes += [note for role in ("label", "group") if role in places for note in _merged(role, places[role], body, path)]
    for line, cells in body:
        row = {role: _cell(cells[place], role) for role, place in places.items()}
        if hot:
            row["label"] = single(names[place] for place in hot if _ONE[cells[place].strip().lower()])
        rows.append(Row(line, row))
    if several := [row for row in rows if row.cells.get("label") == SEVERAL]:
        notes.append(
            f"{path}: {len(several)} rows have several labels (first: line {several[0].line}) and are left out"
        )
        for each in several:
            each.cells["label"] = ""
    if "split" in places:
        _read_flags_and_numbers(names[places["split"]], rows, notes, path)
    repeats = {names[place]: _repeats([cells[place].strip() for _, cells in body]) for place in free}
    unused = sorted(repeats, key=lambda name: not repeats[name])
    roles = {*places, *(["label"] if hot else [])}
    return Table(path, rows, roles, notes, bool(hot), unused, any(repeats.values()))


def _repeats(values: Sequence[str]) -> bool:
    distinct = {value for value in values if value.lower() not in _EMPTY}
    return 2 <= len(distinct) <= len(values) / 2


def _places(
    names: Sequence[str],
    path: Path,
    chosen: Mapping[str, str],
    body: Sequence[tuple[int, Sequence[str]]],
    notes: list[str],
) -> dict[str, int]:
    """Return the position of each role's column."""
    found: dict[str, list[int]] = defaultdict(list)
    plain = [_plain(name) for name in names]
    tasks = {"annotation_id", "lead_time"} <= set(plain)  # in Label Studio's CSV, `id` is the task number
    for place, name in enumerate(plain):
        if (role := _ROLE.get(name)) and not chosen.get(role) and not (tasks and name == "id"):
            found[role].append(place)
    for role, name in chosen.items():
        if name and name != NO_COLUMN:
            if name not in names:
                raise LeafError(f"columns.{role}: {name!r}: no such column in {path}. Its columns: {_shown(names)}.")
            found[role] = [names.index(name)]
    for role, several in found.items():
        if len(several) > 1:
            several = [place for place in several if _plain(names[place]) not in _WEAK]
        if len(several) > 1:
            which = " and ".join(repr(names[place]) for place in several)
            choices = [{f"columns.{role}": names[place]} for place in several]
            chosen_by_key = role in ("file", "label", "group", "split")
            key = f" Choose one with -S columns.{role}=NAME." if chosen_by_key else ""
            raise LeafError(f"{path}: {which} both match the role {role}.{key}", choices if chosen_by_key else ())
        found[role] = several
    if "file" not in found and not chosen.get("file"):
        of_files = [place for place in range(len(names)) if body and all(_is_file(cells[place]) for _, cells in body)]
        if len(of_files) == 1:
            found["file"] = of_files
            notes.append(f"{path}: column {names[of_files[0]]!r} is used for the file names")
    if "file" not in found:
        if any(_is_file(word) for name in names for word in name.split()):
            raise LeafError(f"{path}: no header. Add a first line with the column names, such as file,label.")
        valid = COLUMNS["file"].replace(" ", ", ")
        raise LeafError(
            f"{path}: no column has a known name for the file ({valid}). Its columns: {_shown(names)}. Choose one with "
            "-S columns.file=NAME."
        )
    return {role: several[0] for role, several in found.items()}


def _is_file(cell: str) -> bool:
    return Path(cell.partition("?")[0].strip()).suffix.lower() in SUFFIXES


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:60] for name in names[:30]) + (" …" if len(names) > 30 else "") or "none"


def _plain(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words.casefold()).strip("_")


def _with_nearest(name: str) -> str:
    near = difflib.get_close_matches(_plain(name), _ROLE, 1, 0.75)
    return f"{name!r} (did you mean {near[0]}?)" if near and near[0] != _plain(name) else repr(name)


def _one_hot(
    names: Sequence[str],
    columns: dict[str, int],
    rows: Sequence[tuple[int, Sequence[str]]],
    notes: list[str],
    path: Path,
) -> list[int]:
    """Return the positions of two or more columns of 0 and 1 if nearly every row sets exactly one, otherwise []."""
    free = [place for place, name in enumerate(names) if place not in columns.values() and name]
    free = [place for place in free if not _FLAG.match(_plain(names[place]))]
    hot = [place for place in free if rows and all(row[place].strip().lower() in _ONE for _, row in rows)]
    if len(hot) < 2:
        return []
    other = [(line, row) for line, row in rows if sum(_ONE[row[place].strip().lower()] for place in hot) != 1]
    if len(other) > len(rows) / 10 and path.name.lower() != ROBOFLOW:
        line, row = other[0]
        some = ", ".join(repr(names[place]) for place in hot[:4])
        ones = sum(_ONE[row[place].strip().lower()] for place in hot)
        notes.append(
            f"{path}: line {line}: {ones} of the columns of 0 and 1 ({some} …) are set, so they are not classes"
        )
        return []
    return hot


def single(labels: Iterable[str]) -> str:
    """Return the only label, "" if there is none, or SEVERAL if they differ."""
    distinct = set(labels)
    return SEVERAL if len(distinct) > 1 else next(iter(distinct), "")


def _merged(role: str, place: int, body: Sequence[tuple[int, Sequence[str]]], path: Path) -> list[str]:
    """Return up to three notes on values with several spellings, such as 1 and 1.0."""
    written: dict[str, set[str]] = defaultdict(set)
    for _, cells in body:
        written[_cell(cells[place], role)].add(cells[place])
    several = [(name, forms) for name, forms in written.items() if name and len(forms) > 1]
    return [
        f"{path}: {', '.join(map(ascii, sorted(forms)))} are the same {role}, {name!r}" for name, forms in several[:3]
    ]


def _cell(cell: str, role: str) -> str:
    if role == "file" or cell == SEVERAL:
        return cell
    if role == "label" and cell.startswith('{"choices":'):  # several labels in Label Studio's CSV
        return SEVERAL
    cell = nfc(cell)
    if role in ("label", "group"):  # a spreadsheet writes the number 1 as 1.0
        cell = re.sub(r"^(\d+)\.0+$", r"\1", cell)
    if role == "label":  # `none` can be a class name
        return "" if cell.lower() in ("", "na", "n/a", "nan") else cell
    return "" if cell.lower() in _EMPTY else cell


def _read_flags_and_numbers(name: str, rows: Sequence[Row], notes: list[str], path: Path) -> None:
    """Translate columns such as `is_test`, and splits numbered 1, 2, 3, into names."""
    flag = re.fullmatch(r"is_(train|test|val|valid|validation)", _plain(name))
    values = {row.cells["split"].lower() for row in rows if row.cells["split"]}
    if flag and values <= _ONE.keys():
        other = "test" if flag[1] == "train" else "train"
        names = {value: flag[1] if is_set else other for value, is_set in _ONE.items()}
    elif values <= {"1", "2", "3", "1.0", "2.0", "3.0"} and values & {"3", "3.0"}:
        names = {"1": "train", "2": "validation", "3": "test"}
        names |= {f"{number}.0": split for number, split in names.items()}
        notes.append(f"{path}: column {name!r}: 1 means train, 2 validation and 3 test")
    else:
        return
    for row in rows:
        row.cells["split"] = names.get(row.cells["split"].lower(), "")


class Finder:
    """Match table cells with files. Files are paths relative to the folder `root`."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """Index the paths `files`."""
        self._root = root.resolve().name
        self._files = files
        self._known: dict[int, dict[str, list[str]]] = {}

    def find(self, cell: str) -> list[str]:
        """Return the files that match `cell` by the strictest rule that matches any file, or [].

        The rules, in order: the path or the end of one, which may start above the folder; the same without case;
        without suffix; by number (7 matches 0007.jpg); without the prefix that Label Studio adds to uploads. URLs are
        matched by path.
        """
        text = unicodedata.normalize("NFC", cell if cell.strip() in ("", cell) else cell.strip())
        if url := re.match(r"[A-Za-z][\w+.-]+://[^/]*|/data/(local-files|upload)/", text):
            text = re.sub(r"^.*[?&]d=", "/", text) if "local-files" in url[0] else f"/{text[url.end() :]}"
            text = unquote(text.partition("?")[0].partition("#")[0])
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        inside = ["/".join(parts)]
        if self._root in parts[:-1]:
            inside.append("/".join(parts[len(parts) - parts[::-1].index(self._root) :]))
        elif re.match(r"[\\/]|[A-Za-z]:", text):  # absolute path from another machine: match its longest suffix
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
    """Map the key of each path and of each of its ends (`a/b/c`, `b/c`, `c`) to the files."""
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
    (str.casefold, lambda path: re.sub(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)", r"\1", path.casefold())),
]
