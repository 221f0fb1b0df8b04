"""Assign class, group and split to each image of a folder, from its folders and label tables."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from leaf.errors import LeafError
from leaf.ingest.classes import Folders, by_folders, few, nfc, refuse_containers, split_name
from leaf.ingest.files import Links, Listing, kind, read_head
from leaf.ingest.label_tables import KEPT, ROBOFLOW, Finder, Row, Table, read_labels

METADATA = ("metadata.csv", ROBOFLOW)
_REMEDIES = {  # advice for a folder without images, by the type of its files
    r"(?i)\.(zip|tar|tgz|gz|7z|rar)$": "Unpack the archives in it.",
    r"\.dvc$": "Run `dvc pull`.",
    r"(?i)\.(parquet|arrow|tfrecord|h5|hdf5|npz|npy)$": "Export the images as files, or set `dataset` to an .npz file.",
}


class UnlabelledError(LeafError):
    """No image of a folder has a label."""

    def __init__(self, files: Sequence[str], text: str, proposals: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(text, proposals)
        self.files = files


@dataclass(frozen=True)
class Entry:
    """One image file: its path in the data set and its class name, group and split ("" if not given)."""

    file: str
    name: str
    group: str
    split: str
    more: Mapping[str, str] = field(default_factory=dict)  # values of the columns KEPT


@dataclass
class Layout:
    """Entries, excluded files with their reasons, the excluded files without a label, and one-line notes."""

    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Reading(TypedDict, total=False):
    """The parameters that define how a data set is read, named as in params.yaml.

    Attributes:
        ignore: shell patterns of classes to leave out.
        labels: a label table that replaces each metadata.csv in a folder.
        group_by: with `folder`, each folder below the class is a group, or each folder above it if there is none below.
        columns: the columns of the label table; see `leaf.ingest.label_tables.read_labels`.
        encoding: the encoding of the label table.
        links: see `leaf.ingest.files.list_folder`.
    """

    ignore: Sequence[str]
    labels: str | Path | None
    group_by: Literal["none", "folder"]
    columns: Mapping[str, str] | None
    encoding: str
    links: Links


def lay_out(root: Path, listing: Listing, known: Collection[str], **reading: Unpack[Reading]) -> Layout:
    """Join folders and tables; tables take precedence over folders.

    If any table has labels, images without a label in a table are left out.

    Args:
        root: the folder of the data set.
        listing: its files.
        known: class names that are recognized at any folder level.
        **reading: see `Reading`.

    Raises:
        LeafError: if there are no classes, if several folders contain the same class folders, if a row matches several
            files, or if a file appears twice with different values.
    """
    table_path = reading.get("labels")
    labels = Path(table_path) if table_path else None
    columns = reading.get("columns") or {}
    made = Layout()
    tables = _tables(root, listing, labels, made.notes, columns, reading.get("encoding", "auto"))
    labelled = any("label" in table.roles for _, table in tables)
    folders = by_folders(root, listing.images, known, labelled)
    if labelled and labels is None and len({each.name for each in folders.values() if each.name}) > 1:
        labelled = any("label" in table.roles and not table.one_hot for _, table in tables)
        made.notes += [
            f"{table.path}: columns of 0 and 1 do not override the class folders. To use them, set the key "
            "`labels` to the table."
            for _, table in tables
            if table.one_hot
        ]
    if not labelled:
        _check_label_column(labels, tables, known, bool(columns.get("label")))
        refuse_containers(root, listing.images, folders, known, reading.get("ignore", ()), made.notes)
    rows: dict[str, tuple[Table, Row]] = {}
    for base, each in tables:
        made.notes += each.notes
        _join(root, base, each, listing.images, rows, made.left_out)
    overruled = relabelled = 0
    for file in listing.images:
        by_folder = folders[file]
        table, row = rows.get(file, (None, Row(0, {})))
        if labelled and table is None:
            made.left_out[file] = f"not in {' nor in '.join(dict.fromkeys(table.path.name for _, table in tables))}"
            if by_folder.name not in known:
                made.unlabelled.append(file)
            continue
        name = row.cells.get("label", "") if labelled else by_folder.name
        if not name:
            if labelled and table:
                made.left_out[file] = f"no label in {table.path.name}"
            else:
                made.left_out[file] = "in no class folder"
            made.unlabelled.append(file)
            continue
        relabelled += bool(labelled and labels is None and by_folder.name and nfc(name) != by_folder.name)
        split = _given_split(table, row)
        overruled += bool(split and by_folder.split and split != by_folder.split)
        group = row.cells.get("group") or (by_folder.folder if reading.get("group_by") == "folder" else "")
        more = {"crop": by_folder.crop} if by_folder.crop and not labelled else {}
        more |= {key: row.cells[key] for key in KEPT if key in row.cells}
        made.entries.append(Entry(file, name, group, split or by_folder.split, more))
    if overruled:
        made.notes.append(
            f"{overruled} images: the splits in the table and in the folder names differ; the table is used"
        )
    if relabelled:
        which = ", ".join(sorted({table.path.name for _, table in tables if "label" in table.roles}))
        made.notes.append(f"{relabelled} images: the label in {which} overrides the folder")
    if not made.entries:
        raise _no_classes(root, listing, [note for _, table in tables for note in table.notes])
    if not labelled and tables and len(rows) < len(made.entries):
        made.notes.append(f"{len(made.entries) - len(rows)} images are in no table, so they have no group")
    _drop_a_single_split(made)
    for several in _alike(entry.name for entry in made.entries):
        made.notes.append(f"{several} are separate classes; a mapping of `classes` joins them")
    for several in _alike(entry.group for entry in made.entries if entry.group)[:3]:
        made.notes.append(
            f"{several} are separate groups, although they differ only in case, blanks, punctuation or leading zeros"
        )
    made.notes += _merged(listing.images, {entry.name for entry in made.entries})
    below = _folders_below(made.entries, folders)
    if below == "classes" and not known:
        made.notes.append(
            "the folders below the classes look like classes themselves, as in CROP/DISEASE; `leaf start` offers "
            "both levels"
        )
    elif below == "plants" and not any(entry.group for entry in made.entries):
        made.notes.append(
            "each folder below the classes seems to show a single plant; -S group_by=folder keeps each in one split"
        )
    return made


def _alike(names: Iterable[str]) -> list[str]:
    """Return a text for each set of names that differ only in case, spaces, punctuation or leading zeros."""
    alike = defaultdict(set)
    for name in dict.fromkeys(names):
        plain = re.sub(r"[ _-]*\b(copy|kopie|copie)?( ?\(\d+\))?$", "", unicodedata.normalize("NFKC", name).casefold())
        words = re.findall(r"[^\W\d_]+|[1-9]\d*|0(?!\d)", plain)
        alike[" ".join(words) or name].add(name)
    return [", ".join(map(repr, sorted(several))) for several in alike.values() if len(several) > 1]


def _merged(files: Sequence[str], classes: Collection[str]) -> list[str]:
    """Return a note for class folders that become one class after normalization."""
    raw: dict[str, set[str]] = defaultdict(set)
    for part in {part for file in files for part in file.split("/")[:-1]}:
        raw[nfc(part)].add(part)
    return [
        f"folders {', '.join(map(ascii, sorted(raw[name])))} are the same class, {name!r}"
        for name in sorted(classes)
        if len(raw[name]) > 1
    ]


def _check_label_column(
    labels: Path | None, tables: Sequence[tuple[str, Table]], known: Collection[str], chosen: bool
) -> None:
    """Reject a `labels` table that assigns nothing, or that has a label column with an unrecognized name."""
    table = tables[0][1] if labels is not None and tables and tables[0][1].path == labels else None
    if table is None or (table.roles - {"file"} and (known or chosen or not table.categorical)):
        return
    missing = "a label" if table.roles - {"file"} else "a label, group or split"
    raise LeafError(
        "; ".join([f"labels: {table.path}: no column contains {missing}", *table.notes])
        + ". Choose one with columns.label, or set columns.label=none if the folders are the classes.",
        proposals=[{"columns.label": name} for name in table.unused[:3]],
    )


def _tables(
    root: Path,
    listing: Listing,
    labels: Path | None,
    notes: list[str],
    columns: Mapping[str, str],
    encoding: str,
) -> list[tuple[str, Table]]:
    """Return the tables to use, each with the folder that contains its files."""
    inside = [path for path in listing.others if path.rpartition("/")[2].lower() in METADATA]
    if labels is not None:
        if not labels.is_file():
            what = "a folder" if labels.is_dir() else "no such file"
            raise LeafError(f"labels: {labels}: {what}. Use a CSV table of files and labels.")
        table = read_labels(labels, columns, encoding)
        if table.rows:
            notes += [f"{path} in the folder is not read, because `labels` is {labels}" for path in inside]
            return [("", table)]
    listing.others = [path for path in listing.others if path not in inside]
    return [(path.rpartition("/")[0], read_labels(root / path, columns, encoding)) for path in inside]


def _join(
    root: Path,
    base: str,
    table: Table,
    images: Sequence[str],
    rows: dict[str, tuple[Table, Row]],
    left_out: dict[str, str],
) -> None:
    """Add the row of each file to `rows`; rows that match no file go to `left_out`."""
    prefix = f"{base}/" if base else ""
    finder = Finder(root / base, [file.removeprefix(prefix) for file in images if file.startswith(prefix)])
    missing = []
    for row in table.rows:
        where, cell = f"{table.path}: line {row.line}", row.cells["file"]
        if not cell.strip():
            raise LeafError(f"{where}: no file name")
        found = finder.find(cell)
        if len(found) > 1:  # such as a raw file and its JPEG
            found = [file for file in found if _readable(root / base / file)] or found
        if len(found) > 1:
            raise LeafError(
                f"{where}: {cell!r} matches {len(found)} files: {few(found)}. Use the path relative to the folder."
            )
        if not found:
            missing.append(cell)
            left_out[cell] = f"listed in {table.path.name}, but not found in {root / base}"
            continue
        file = prefix + found[0]
        if file in rows and {**rows[file][1].cells, "file": ""} != {**row.cells, "file": ""}:
            raise LeafError(f"{where}: {cell!r} appears twice with different values (see line {rows[file][1].line})")
        rows[file] = (table, row)
    if missing and len(missing) == len(table.rows):
        shown = f"; the folder contains {few(images)}" if images else ""
        raise LeafError(f"{table.path}: no row matches an image in {root / base}: {few(missing)}{shown}")


def _readable(path: Path) -> bool:
    with suppress(OSError):
        return kind(read_head(path)) != ""
    return False


def _given_split(table: Table | None, row: Row) -> str:
    given = row.cells.get("split", "")
    split = split_name(given) if given else ""
    if table and given and not split:
        raise LeafError(
            f"{table.path}: line {row.line}: the split {given!r}; valid: train, validation, test, or empty. "
            "To ignore the column, set columns.split=none."
        )
    return split


def _drop_a_single_split(made: Layout) -> None:
    """Remove the given splits if all images are in train, so that validation and test splits are drawn."""
    if {entry.split for entry in made.entries} == {"train"}:
        made.entries = [Entry(each.file, each.name, each.group, "", each.more) for each in made.entries]
        made.notes.append("all images are in train; validation and test are drawn from them")


def _folders_below(entries: Iterable[Entry], folders: Mapping[str, Folders]) -> Literal["", "plants", "classes"]:
    """Return whether the folders below the classes are plants or classes.

    Return "" unless classes have several such folders that contain nearly all images.

    Plant names contain digits, such as `plant_07`; class names rarely do.
    """
    sizes = Counter((entry.name, folders[entry.file].folder) for entry in entries)
    below = {key: count for key, count in sizes.items() if key[1]}
    per_class = Counter(name for name, _ in below)
    images = sum(below.values())
    if images < 0.8 * sizes.total() or images < 2 * len(below) or min(per_class.values(), default=0) < 2:
        return ""
    numbered = sum(any(map(str.isdigit, folder.rpartition("/")[2])) for _, folder in below)
    return "plants" if 2 * numbered >= len(below) else "classes"


def _no_classes(root: Path, listing: Listing, notes: Sequence[str]) -> LeafError:
    if not listing.images:
        remedies = [
            remedy for suffix, remedy in _REMEDIES.items() if any(map(re.compile(suffix).search, listing.others))
        ]
        return LeafError(
            "; ".join([f"{root}: no image files", *listing.notes()])
            + f". {' '.join(remedies) or 'Use a folder of images for each class, or a table of labels.'}"
        )
    tables = [path for path in listing.others if path.lower().endswith((".csv", ".tsv", ".txt"))][:3]
    todo = (
        "Sort the images into a folder per class, set the key `labels` to a table of files and labels, or list the "
        "classes in `classes` and label the images with `leaf review --unlabelled`"
    )
    return UnlabelledError(
        listing.images,
        "; ".join([f"{root}: no class for {few(listing.images)}", *notes, todo]),
        proposals=[{"labels": str(root / path)} for path in tables if not path.lower().endswith(".txt")],
    )
