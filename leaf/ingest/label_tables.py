"""Label tables: CSV, TSV, Label Studio JSON and CVAT XML files that assign labels, groups and splits to images."""

import difflib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from leaf.errors import LeafError
from leaf.ingest.classes import nfc
from leaf.store import csv_rows, read_text

# Role of a column by its usual names: lower case, with _ for anything but letters and digits.
COLUMNS = {
    "file": "file filename file_name filepath file_path image image_name image_path image_id img path id",
    "label": "label labels label_name class class_name category target disease diagnosis dx choice ground_truth",
    "group": "group group_id plant plant_id leaf leaf_id lesion_id patient patient_id subject_id session session_id",
    "split": "split set subset partition is_train is_test is_val is_valid is_validation",
    "site": "site location farm",
    "crop": "crop species",
    "camera": "camera device",
    "date": "date taken",
}
KEPT = ("site", "crop", "camera", "date")  # copied to index.csv for the audit
GIVEN_COLUMNS = ("file_hash", "who", "date", "run", "chosen")  # written by `leaf review --unlabelled`
NO_COLUMN = "none"  # in the key `columns`: the table has no such column
_ROLE = {name: role for role, names in COLUMNS.items() for name in names.split()}
_WEAK = {"id"}  # names that lose to any other name of the same role
_EMPTY = {"", "na", "n/a", "nan", "none", "null", "-", "?"}
_ONE = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True}
_FLAG = re.compile(r"(is|has|in|on|was|use|used|with)_|(train|test|val|valid|validation|ignore|exclude)$")


@dataclass(frozen=True)
class Row:
    """One row: its line in the file and its cell of each role, "" where empty."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A label table.

    Attributes:
        path: the file.
        rows: its rows.
        roles: the roles that its columns have.
        notes: remarks for the user, one line each.
        one_hot: whether the labels come from columns of 0 and 1.
        unused: columns without a role, those that look like labels first.
        categorical: whether the values of such a column repeat, as labels do.
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

    Without a label column, two or more columns of 0 and 1 of which each row sets exactly one are the labels (one-hot);
    names such as `is_train` and `in_field` are no classes.

    Args:
        path: a CSV or TSV table, a JSON export of Label Studio, or annotations.xml of CVAT.
        columns: role (file, label, group, split) to column name, "" to detect it by `COLUMNS`, `none` for no column.
        encoding: of the text; `auto` detects UTF-8, UTF-16 and Latin-1.

    Raises:
        LeafError: for a file that is no table, with its line, and for several columns of one role.
    """
    text, used = read_text(path, encoding)
    notes = [] if encoding != "auto" or used.startswith("utf") else [f"{path}: not UTF-8, read as {used}"]
    if path.suffix.lower() == ".json":
        lines = _from_json(text, path)
    elif path.suffix.lower() == ".xml":
        lines = _from_cvat(text, path)
    else:
        lines = list(csv_rows(text, path))
    names = [name.strip() for name in lines[0][1]] if lines else []
    body = lines[1:]
    for line, cells in body:
        if len(cells) != len(names):
            raise LeafError(f"{path}: line {line}: {len(cells)} fields, not {len(names)} fields as in the header.")
    if GIVEN_COLUMNS[0] in names:  # rows that identify the image by its hash: `leaf.ingest.unlabelled` reads them
        hashed = names.index(GIVEN_COLUMNS[0])
        own = [place for place, name in enumerate(names) if name not in GIVEN_COLUMNS]
        body = [(line, [cells[place] for place in own]) for line, cells in body if not cells[hashed].strip()]
        names = [names[place] for place in own]
    places = _places(names, path, columns or {})
    hot = [] if "label" in places or (columns or {}).get("label") else _one_hot(names, places, body, notes, path)
    free = [place for place, name in enumerate(names) if place not in {*places.values(), *hot} and name]
    if free:
        notes.append(f"{path}: columns not used: {', '.join(_with_nearest(names[place]) for place in free)}")
    rows = []
    notes += [note for role in ("label", "group") if role in places for note in _merged(role, places[role], body, path)]
    for line, cells in body:
        row = {role: _cell(cells[place], role) for role, place in places.items()}
        if hot:
            row["label"] = next(names[place] for place in hot if _ONE[cells[place].strip().lower()])
        rows.append(Row(line, row))
    if "split" in places:
        _read_flags_and_numbers(names[places["split"]], rows, notes, path)
    repeats = {names[place]: _repeats([cells[place].strip() for _, cells in body]) for place in free}
    unused = sorted(repeats, key=lambda name: not repeats[name])
    roles = {*places, *(["label"] if hot else [])}
    return Table(path, rows, roles, notes, bool(hot), unused, any(repeats.values()))


def _repeats(values: Sequence[str]) -> bool:
    distinct = {value for value in values if value.lower() not in _EMPTY}
    return 2 <= len(distinct) <= len(values) / 2


def _from_json(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return header and rows of a Label Studio export (JSON or JSON-MIN), or of any list of flat objects."""
    try:
        tasks = json.loads(text)
    except json.JSONDecodeError as error:
        raise LeafError(f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from None
    except RecursionError:
        raise LeafError(f"{path}: nested too deeply.") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise LeafError(f"{path}: not a list of objects. Use a JSON export of Label Studio, or a CSV table.")
    records: list[dict[str, Any]] = []
    for task in tasks:
        record = {**task, **(task["data"] if isinstance(task.get("data"), dict) else {})}
        results = [result for each in task.get("annotations") or [] for result in each.get("result") or []]
        choices = [choice for result in results for choice in (result.get("value") or {}).get("choices") or []]
        if len(set(choices)) > 1:
            raise LeafError(f"{path}: task {task.get('id')}: choices {sorted(set(choices))}; one label per image.")
        if choices:
            record["choice"] = choices[0]
        records.append({key: value for key, value in record.items() if not isinstance(value, (dict, list))})
    names = list(dict.fromkeys(key for record in records for key in record))
    cells = [["" if (value := record.get(name)) is None else str(value) for name in names] for record in records]
    return [(1, names), *((number, row) for number, row in enumerate(cells, 1))]


def _from_cvat(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return header and rows of CVAT's annotations.xml: the tag of each image."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LeafError(f"{path}: XML with entities. Use annotations.xml as CVAT exports it.")
    try:
        images = list(ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text)).iter("image"))  # noqa: S314
    except ElementTree.ParseError as error:
        raise LeafError(f"{path}: line {error.position[0]}: not XML ({error})") from None
    rows = []
    for number, image in enumerate(images, 1):
        labels = {tag.get("label", "") for tag in image.iter("tag")}
        if len(labels) > 1:
            raise LeafError(f"{path}: {image.get('name')}: tags {sorted(labels)}; one label per image.")
        rows.append((number, [image.get("name", ""), next(iter(labels), "")]))
    return [(1, ["file", "label"]), *rows]


def _places(names: Sequence[str], path: Path, chosen: Mapping[str, str]) -> dict[str, int]:
    """Return the position of the column of each role."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        if (role := _ROLE.get(_plain(name))) and not chosen.get(role):
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
            key = f" Choose one with -S columns.{role}=NAME." if role in ("file", "label", "group", "split") else ""
            raise LeafError(f"{path}: {which} may each be the {role}.{key}")
        found[role] = several
    if "file" not in found:
        valid = COLUMNS["file"].replace(" ", ", ")
        raise LeafError(
            f"{path}: its columns are {_shown(names)}; valid: one that names the file ({valid}). Choose one with "
            "-S columns.file=NAME."
        )
    return {role: several[0] for role, several in found.items()}


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:60] for name in names[:30]) + (" …" if len(names) > 30 else "") or "none"


def _plain(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words.casefold()).strip("_")


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
    """Return the positions of two or more columns of 0 and 1 of which each row sets exactly one, or []."""
    free = [place for place, name in enumerate(names) if place not in columns.values() and name]
    free = [place for place in free if not _FLAG.match(_plain(names[place]))]
    hot = [place for place in free if rows and all(row[place].strip().lower() in _ONE for _, row in rows)]
    if len(hot) < 2:
        return []
    for line, row in rows:
        ones = sum(_ONE[row[place].strip().lower()] for place in hot)
        if ones != 1:
            some = ", ".join(repr(names[place]) for place in hot[:4])
            notes.append(
                f"{path}: line {line}: {ones} of the columns of 0 and 1 ({some} …) are set, they are no classes"
            )
            return []
    return hot


def _merged(role: str, place: int, body: Sequence[tuple[int, Sequence[str]]], path: Path) -> list[str]:
    """Return a note for each value that is written in several ways, such as 1 and 1.0; three at most."""
    written: dict[str, set[str]] = defaultdict(set)
    for _, cells in body:
        written[_cell(cells[place], role)].add(cells[place])
    several = [(name, forms) for name, forms in written.items() if name and len(forms) > 1]
    return [f"{path}: {', '.join(map(ascii, sorted(forms)))} are one {role}, {name!r}" for name, forms in several[:3]]


def _cell(cell: str, role: str) -> str:
    if role == "file":
        return cell
    cell = nfc(cell)
    if role in ("label", "group"):  # a spreadsheet writes the number 1 as 1.0
        cell = re.sub(r"^(\d+)\.0+$", r"\1", cell)
    if role == "label":  # a class may be called none
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
        notes.append(f"{path}: column {name!r}: 1 is train, 2 is validation, 3 is test")
    else:
        return
    for row in rows:
        row.cells["split"] = names.get(row.cells["split"].lower(), "")


class Finder:
    """Match cells of a table with files, given as paths relative to the folder `root`."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """Index the paths `files`."""
        self._root = root.resolve().name
        self._files = files
        self._known: dict[int, dict[str, list[str]]] = {}

    def find(self, cell: str) -> list[str]:
        """Return the files that match `cell` by the strictest rule that matches any, or [].

        In order: the path or the end of one, which may start above the folder; ignoring case; without suffix; by
        number (7 matches 0007.jpg); without the prefix that Label Studio adds to uploads. URLs are matched by path.
        """
        text = unicodedata.normalize("NFC", cell if cell.strip() in ("", cell) else cell.strip())
        if url := re.match(r"[A-Za-z][\w+.-]+://[^/]*|/data/(local-files|upload)/", text):
            text = re.sub(r"^.*[?&]d=", "/", text) if "local-files" in url[0] else f"/{text[url.end() :]}"
            text = unquote(text.partition("?")[0].partition("#")[0])
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        inside = ["/".join(parts)]
        if self._root in parts[:-1]:
            inside.append("/".join(parts[len(parts) - parts[::-1].index(self._root) :]))
        elif re.match(r"[\\/]|[A-Za-z]:", text):  # absolute path of another machine: match its longest suffix
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
