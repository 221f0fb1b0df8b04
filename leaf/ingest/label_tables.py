"""Read tables of labels, groups and splits: CSV and TSV files, and exports of Label Studio (JSON) and CVAT (XML)."""

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from leaf.edited_tables import csv_rows, read_text
from leaf.errors import LeafError, plural
from leaf.ingest.classes import nfc
from leaf.ingest.files import SUFFIXES

# Recognized column names by role, in lower case and with _ instead of spaces and punctuation.
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
_ROLE = {name: role for role, names in COLUMNS.items() for name in names.split()}
_WEAK = {"id"}  # used only if no other column matches the role
ROBOFLOW = "_classes.csv"  # Roboflow's table, with a 0/1 column for each class
SEVERAL = "\0several"  # placeholder for several labels on one image
_EMPTY = {"", "na", "n/a", "nan", "none", "null", "-", "?"}
_FLAGS = {
    **dict.fromkeys(("0", "0.0", "false", "no", "n", "f"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes", "y", "t"), True),
}
_NO_CLASS = re.compile(r"(is|has|in|on|was|use|used|with)_|(train|test|val|valid|validation|ignore|exclude)$")

_Body = Sequence[tuple[int, Sequence[str]]]  # line number and cells of each row


@dataclass(frozen=True)
class Table:
    """A label table."""

    path: Path
    rows: dict[int, dict[str, str]]  # the cells by role ("" if empty) of each line
    roles: set[str]
    notes: list[str]  # one-line messages for the user
    one_hot: bool  # whether the labels are one-hot encoded in 0/1 columns
    unused: Mapping[str, bool]  # columns without a role; True if their values repeat, as labels do


def read_labels(path: Path, columns: Mapping[str, str] | None = None, encoding: str = "auto") -> Table:
    """Read a label table.

    Without a label column, two or more 0/1 columns are read as one-hot labels if at least 90% of the rows set exactly
    one, or if the table is Roboflow's. Columns named like flags, such as `is_train` and `in_field`, are not classes.

    Args:
        path: a CSV or TSV table, a JSON export of Label Studio, or annotations.xml of CVAT.
        columns: maps a role (file, label, group, split) to a column name, `none`, or "" to detect it with `COLUMNS`.
        encoding: text encoding; `auto` detects UTF-8, UTF-16 and Latin-1.

    Raises:
        LeafError: if the file is not a table, has no file column, or has several columns for the same role.
    """
    columns = columns or {}
    text, used = read_text(path, encoding)
    notes = [] if encoding != "auto" or used.startswith("utf") else [f"not UTF-8, read as {used}"]
    read = {".json": _label_studio_rows, ".xml": _cvat_rows}.get(path.suffix.lower(), csv_rows)
    lines = list(read(text, path))
    names = [name.strip() for name in lines[0][1]] if lines else []
    body = lines[1:]
    for line, cells in body:
        if len(cells) != len(names):
            raise LeafError(
                f"{path}: line {line}: {len(cells)} fields, but the header has {len(names)}. Correct the line."
            )
    if GIVEN_COLUMNS[0] in names:  # rows with a hash are read by `leaf.ingest.unlabelled`
        hashed = names.index(GIVEN_COLUMNS[0])
        own = [place for place, name in enumerate(names) if name not in GIVEN_COLUMNS]
        body = [(line, [cells[place] for place in own]) for line, cells in body if not cells[hashed].strip()]
        names = [names[place] for place in own]
    places = _places(names, path, columns, body, notes)
    free = [place for place, name in enumerate(names) if place not in places.values() and name]
    hot = [] if "label" in places or columns.get("label") else _one_hot(names, free, body, notes, path)
    free = [place for place in free if place not in hot]
    if free:
        notes.append(f"columns not used: {', '.join(_with_nearest(names[place]) for place in free)}")
    if hot:
        notes.append(f"its 0/1 columns are read as classes: {_shown([names[place] for place in hot])}")
    notes += [note for role in ("label", "group") if role in places for note in _merged(role, places[role], body)]
    rows, several = {}, []
    for line, cells in body:
        rows[line] = {role: _cell(cells[place], role) for role, place in places.items()}
        if hot:
            rows[line]["label"] = single(names[place] for place in hot if _flag(cells[place]))
        if rows[line].get("label") == SEVERAL:
            rows[line]["label"] = ""
            several.append(line)
    if several:
        notes.append(f"skipped {plural(len(several), 'row')} with several labels (first: line {several[0]})")
    if "split" in places:
        _name_splits(names[places["split"]], rows.values(), notes)
    unused = {names[place]: _repeats([cells[place].strip() for _, cells in body]) for place in free}
    roles = {*places, *(["label"] if hot else [])}
    return Table(path, rows, roles, [f"{path}: {note}" for note in notes], bool(hot), unused)


def _repeats(values: Sequence[str]) -> bool:
    distinct = {value for value in values if value.lower() not in _EMPTY}
    return 2 <= len(distinct) <= len(values) / 2


def _places(
    names: Sequence[str], path: Path, chosen: Mapping[str, str], body: _Body, notes: list[str]
) -> dict[str, int]:
    """Return the position of each role's column."""
    found: dict[str, list[int]] = defaultdict(list)
    plain = [_plain(name) for name in names]
    tasks = {"annotation_id", "lead_time"} <= set(plain)  # in Label Studio's CSV, `id` is the task number
    for place, name in enumerate(plain):
        if (role := _ROLE.get(name)) and not chosen.get(role) and not (tasks and name == "id"):
            found[role].append(place)
    for role, name in chosen.items():
        if name and name != "none":
            if name not in names:
                raise LeafError(
                    f"columns.{role}: {name!r}: no such column in {path}. Available columns: {_shown(names)}."
                )
            found[role] = [names.index(name)]
    for role, several in found.items():
        if len(several) > 1:
            several = [place for place in several if plain[place] not in _WEAK]
        if len(several) > 1:
            which = " and ".join(repr(names[place]) for place in several)
            choices = [{f"columns.{role}": names[place]} for place in several]
            has_key = role not in KEPT
            todo = f"Choose one with -S columns.{role}=NAME." if has_key else "Rename one."
            raise LeafError(f"{path}: {which} match the same role, {role}. {todo}", choices if has_key else ())
        found[role] = several
    if "file" not in found and not chosen.get("file"):
        of_files = [place for place in range(len(names)) if body and all(_is_file(cells[place]) for _, cells in body)]
        if len(of_files) == 1:
            found["file"] = of_files
            notes.append(f"column {names[of_files[0]]!r} is used for the file names")
    if "file" not in found:
        if any(_is_file(word) for name in names for word in name.split()):
            raise LeafError(f"{path}: no header. Add a first line with the column names, such as file,label.")
        valid = COLUMNS["file"].replace(" ", ", ")
        raise LeafError(
            f"{path}: no file column found (recognized names: {valid}). Available columns: {_shown(names)}. Select "
            "one with -S columns.file=NAME."
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


def _flag(cell: str) -> bool | None:
    return _FLAGS.get(cell.strip().lower())


def _one_hot(names: Sequence[str], free: Sequence[int], body: _Body, notes: list[str], path: Path) -> list[int]:
    """Return the positions of the 0/1 columns that are classes, or [] if there are none; see `read_labels`."""
    hot = [
        place
        for place in free
        if not _NO_CLASS.match(_plain(names[place])) and body and all(_flag(row[place]) is not None for _, row in body)
    ]
    if len(hot) < 2:
        return []
    ones = {line: sum(bool(_flag(row[place])) for place in hot) for line, row in body}
    other = [line for line, count in ones.items() if count != 1]
    if len(other) <= len(body) / 10 or path.name.lower() == ROBOFLOW:
        return hot
    some = ", ".join(repr(names[place]) for place in hot[:4])
    notes.append(
        f"line {other[0]} sets {ones[other[0]]} of the 0/1 columns ({some} …), so they are not used as classes"
    )
    return []


def single(labels: Iterable[str]) -> str:
    """Return the label if `labels` has one distinct label, "" if it has none, and SEVERAL otherwise."""
    distinct = set(labels)
    return SEVERAL if len(distinct) > 1 else next(iter(distinct), "")


def _merged(role: str, place: int, body: _Body) -> list[str]:
    """Return up to three notes on cells that are written differently but read as one value, such as 1 and 1.0."""
    written: dict[str, set[str]] = defaultdict(set)
    for _, cells in body:
        written[_cell(cells[place], role)].add(cells[place])
    several = [(name, forms) for name, forms in written.items() if name and len(forms) > 1]
    return [
        f"{', '.join(map(ascii, sorted(forms)))} are merged into the {role} {name!r}" for name, forms in several[:3]
    ]


def _cell(cell: str, role: str) -> str:
    if role == "file" or cell == SEVERAL:
        return cell
    if role == "label" and cell.startswith('{"choices":'):  # how Label Studio writes several labels in a CSV file
        return SEVERAL
    cell = nfc(cell)
    if role in ("label", "group"):  # spreadsheets write 1 as 1.0
        cell = re.sub(r"^(\d+)\.0+$", r"\1", cell)
    empty = ("", "na", "n/a", "nan") if role == "label" else _EMPTY  # `none` can be a class name
    return "" if cell.lower() in empty else cell


def _name_splits(column: str, rows: Collection[dict[str, str]], notes: list[str]) -> None:
    """Convert the values of a column such as `is_test`, or the numbers 1 to 3, to split names."""
    flag = re.fullmatch(r"is_(train|test|val|valid|validation)", _plain(column))
    values = {row["split"].lower() for row in rows if row["split"]}
    if flag and values <= _FLAGS.keys():
        other = "test" if flag[1] == "train" else "train"
        names = {value: flag[1] if is_set else other for value, is_set in _FLAGS.items()}
    elif values <= {"1", "2", "3", "1.0", "2.0", "3.0"} and values & {"3", "3.0"}:
        names = {"1": "train", "2": "validation", "3": "test"}
        names |= {f"{number}.0": split for number, split in names.items()}
        notes.append(f"column {column!r}: 1, 2 and 3 mean train, validation and test")
    else:
        return
    for row in rows:
        row["split"] = names.get(row["split"].lower(), "")


class _Value(BaseModel):
    choices: list[str] | None = None


class _Result(BaseModel):
    from_name: str = "choice"
    value: _Value = _Value()


class _Annotation(BaseModel):
    was_cancelled: bool = False
    result: list[_Result] = []


class _Task(BaseModel):
    model_config = ConfigDict(extra="allow")

    data: dict[str, Any] | None = None
    annotations: list[_Annotation] = []


def _label_studio_rows(text: str, path: Path) -> Iterable[tuple[int, list[str]]]:
    """Return the header and rows of a Label Studio export (JSON or JSON-MIN), or of any list of flat objects.

    Each choice control becomes a column, named `choice` if it is the only one. Skipped annotations are ignored.
    """
    try:
        tasks = TypeAdapter(list[_Task]).validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        where = f"{path}: line {error.lineno}, column {error.colno}"
        raise LeafError(f"{where}: not JSON ({error.msg}). Export the file again.") from None
    except RecursionError:
        raise LeafError(f"{path}: nested too deeply. Use a JSON export of Label Studio, or a CSV table.") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "top level"
        raise LeafError(
            f"{path}: {where}: {error.errors()[0]['msg']}. Use a JSON export of Label Studio, or a CSV table."
        ) from None
    choices = [_choices(task) for task in tasks]
    controls = sorted({control for each in choices for control, names in each.items() if names})
    records = []
    for task, each in zip(tasks, choices, strict=True):
        record = {key: _text(value) for key, value in (task.data or task.model_extra or {}).items()}
        for control in controls:
            record["choice" if len(controls) == 1 else control] = single(each[control])
        records.append(record)
    return _table_rows(records)


def _choices(task: _Task) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for annotation in task.annotations:
        for result in () if annotation.was_cancelled else annotation.result:
            found[result.from_name] += result.value.choices or []
    return found


def _text(value: Any) -> str | None:
    """Convert a JSON value to text, or to None if it is a list or object other than choices."""
    if isinstance(value, dict) and set(value) == {"choices"}:
        value = value["choices"]
    if isinstance(value, list):
        return single(value) if all(isinstance(item, str) for item in value) else None
    return None if isinstance(value, dict) else "" if value is None else str(value)


def _cvat_rows(text: str, path: Path) -> Iterable[tuple[int, list[str]]]:
    """Return the header and rows of CVAT's annotations.xml: the file, tag, attributes and subset of each image."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LeafError(f"{path}: contains XML entities. Use annotations.xml as exported by CVAT.")
    try:
        images = list(ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text)).iter("image"))  # noqa: S314
    except ElementTree.ParseError as error:
        raise LeafError(f"{path}: line {error.position[0]}: not XML ({error}). Export the file again.") from None
    if not any(image.find("tag") is not None for image in images):
        raise LeafError(f"{path}: no image has a tag. Label images with tags; boxes and masks are not read.")
    records = []
    for image in images:
        record = {each.get("name", ""): each.text or "" for each in image.iterfind("tag/attribute")}
        record["file"] = image.get("name", "")
        record["tag"] = single(tag.get("label", "") for tag in image.iter("tag"))
        if image.get("subset", "default") != "default":
            record["subset"] = image.get("subset", "")
        records.append(record)
    return _table_rows(records)


def _table_rows(records: Sequence[Mapping[str, str | None]]) -> Iterable[tuple[int, list[str]]]:
    names = list(dict.fromkeys(key for record in records for key, value in record.items() if value is not None))
    yield 1, names
    for number, record in enumerate(records, 1):
        yield number, [record.get(name) or "" for name in names]
