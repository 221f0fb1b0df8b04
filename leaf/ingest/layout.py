"""Derive the class, group and split of each image in a folder from its subfolders and from label tables."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import unquote

from leaf.errors import LeafError
from leaf.ingest.classes import Folders, by_folders, few, nfc, reject_containers, split_name
from leaf.ingest.files import Links, Listing, kind, list_folder, read_head
from leaf.ingest.label_tables import KEPT, ROBOFLOW, Row, Table, read_labels
from leaf.ingest.source import FileSource, Rows

METADATA = ("metadata.csv", ROBOFLOW)
_REMEDIES = {  # advice for a folder without images, by the type of its files
    r"(?i)\.(zip|tar|tgz|gz|7z|rar)$": "Unpack the archives in it.",
    r"\.dvc$": "Run `dvc pull`.",
    r"(?i)\.(parquet|arrow|tfrecord|h5|hdf5|npz|npy)$": "Export the images as files, or set `dataset` to an .npz file.",
}


class UnlabelledError(LeafError):
    """No image in a folder has a label."""

    def __init__(self, files: Sequence[str], text: str, proposals: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(text, proposals)
        self.files = files


@dataclass(frozen=True)
class Entry:
    """An image file: its path in the data set, class name, group and split ("" if unknown)."""

    file: str
    name: str
    group: str
    split: str
    more: Mapping[str, str]  # values of the columns KEPT


@dataclass
class Layout:
    """The images of a folder."""

    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # excluded files: reason
    unlabelled: list[str] = field(default_factory=list)  # excluded files without a label
    notes: list[str] = field(default_factory=list)  # one-line messages for the user


class Reading(TypedDict, total=False):
    """The parameters in params.yaml that define how a data set is read.

    `group_by: folder` makes each folder below the class a group, or the folder above the class if there is none below.
    """

    ignore: Sequence[str]  # shell patterns of classes to exclude
    labels: str | Path | None  # a label table, used instead of a metadata.csv in the folder
    group_by: Literal["none", "folder"]
    columns: Mapping[str, str] | None  # see `leaf.ingest.label_tables.read_labels`
    encoding: str  # of the label tables
    links: Links  # see `leaf.ingest.files.list_folder`


class FolderSource(FileSource):
    """The images of one folder, sorted by path. Raises LeafError if the folder is not a data set."""

    def __init__(
        self, root: Path, skip_unreadable: bool = True, known: Collection[str] = (), **reading: Unpack[Reading]
    ) -> None:
        """List the files and assign labels; see `lay_out`."""
        listing = list_folder(root, reading.get("links", "refuse"))
        layout = lay_out(root, listing, known, **reading)
        entries = layout.entries
        more = {
            key: [each.more.get(key, "") for each in entries] for key in KEPT if any(key in e.more for e in entries)
        }
        rows = Rows(
            [each.file for each in entries],
            [each.name for each in entries],
            [each.group for each in entries],
            [each.split for each in entries],
            more,
        )
        super().__init__(rows, root.joinpath, skip_unreadable)
        self.left_out, self.unlabelled = layout.left_out, layout.unlabelled
        if self.left_out and not skip_unreadable:
            file, why = next(iter(self.left_out.items()))
            raise LeafError(f"{root}: {file!r}: {why}. Correct this, or set `unreadable: skip`.")
        self.notes = [*layout.notes, *listing.notes()]


def lay_out(root: Path, listing: Listing, known: Collection[str], **reading: Unpack[Reading]) -> Layout:
    """Derive the class, group and split of each image from folders and tables; tables take precedence.

    If any table has labels, images without a label in a table are excluded.

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
    with_labels = [table for _, table in tables if "label" in table.roles]
    folders = by_folders(root, listing.images, known, bool(with_labels))
    if labels is None and len({each.name for each in folders.values() if each.name}) > 1:
        made.notes += [
            f"{table.path}: 0/1 columns do not override the class folders. To use them, set `labels` to the table."
            for table in with_labels
            if table.one_hot
        ]
        with_labels = [table for table in with_labels if not table.one_hot]
    if not with_labels:
        _check_label_column(labels, tables, known, bool(columns.get("label")))
        made.notes += reject_containers(root, folders, known, reading.get("ignore", ()))
    rows: dict[str, tuple[Table, Row]] = {}
    for base, each in tables:
        made.notes += each.notes
        _join(root, base, each, listing.images, rows, made.left_out)
    overruled = relabelled = 0
    for file in listing.images:
        by_folder = folders[file]
        table, row = rows.get(file, (None, Row(0, {})))
        name = row.cells.get("label", "") if with_labels else by_folder.name
        if not name:
            names = [table.path.name] if table else dict.fromkeys(table.path.name for _, table in tables)
            absent = f"{'no label' if table else 'not'} in {' nor in '.join(names)}"
            made.left_out[file] = absent if with_labels else "in no class folder"
            if table or by_folder.name not in known:
                made.unlabelled.append(file)
            continue
        relabelled += bool(with_labels and labels is None and by_folder.name and nfc(name) != by_folder.name)
        split = _given_split(table, row)
        overruled += bool(split and by_folder.split and split != by_folder.split)
        group = row.cells.get("group") or (by_folder.folder if reading.get("group_by") == "folder" else "")
        more = {"crop": by_folder.crop} if by_folder.crop and not with_labels else {}
        more |= {key: row.cells[key] for key in KEPT if key in row.cells}
        made.entries.append(Entry(file, name, group, split or by_folder.split, more))
    if not made.entries:
        raise _no_classes(root, listing, [note for _, table in tables for note in table.notes])
    if overruled:
        made.notes.append(
            f"{overruled} images have different splits in the table and in their folders; the table is used"
        )
    if relabelled:
        which = ", ".join(sorted({table.path.name for table in with_labels}))
        made.notes.append(f"{relabelled} images: the label in {which} overrides the folder")
    if not with_labels and tables and len(rows) < len(made.entries):
        made.notes.append(f"{len(made.entries) - len(rows)} images are in no table, so they have no group")
    if {entry.split for entry in made.entries} == {"train"}:
        made.entries = [replace(entry, split="") for entry in made.entries]
        made.notes.append("all images are in train, so validation and test are drawn from them")
    made.notes += _notes_on_names(made.entries, listing.images)
    made.notes += _notes_on_folders(made.entries, folders, known)
    return made


def _notes_on_names(entries: Sequence[Entry], files: Sequence[str]) -> list[str]:
    """Return notes on similar names of classes and groups, and on folders that are merged into one class."""
    notes = [
        f"{several} are separate classes. To merge them, use a mapping in `classes`."
        for several in _alike(entry.name for entry in entries)
    ]
    notes += [
        f"{several} are separate groups, although they differ only in case, spaces, punctuation or leading zeros"
        for several in _alike(entry.group for entry in entries if entry.group)[:3]
    ]
    raw: dict[str, set[str]] = defaultdict(set)
    for part in {part for file in files for part in file.split("/")[:-1]}:
        raw[nfc(part)].add(part)
    return notes + [
        f"the folders {', '.join(map(ascii, sorted(raw[name])))} are merged into the class {name!r}"
        for name in sorted({entry.name for entry in entries})
        if len(raw[name]) > 1
    ]


def _alike(names: Iterable[str]) -> list[str]:
    """Return each set of names that differ only in case, spaces, punctuation or leading zeros, as text."""
    alike = defaultdict(set)
    for name in dict.fromkeys(names):
        plain = re.sub(r"[ _-]*\b(copy|kopie|copie)?( ?\(\d+\))?$", "", unicodedata.normalize("NFKC", name).casefold())
        words = re.findall(r"[^\W\d_]+|[1-9]\d*|0(?!\d)", plain)
        alike[" ".join(words) or name].add(name)
    return [", ".join(map(repr, sorted(several))) for several in alike.values() if len(several) > 1]


def _notes_on_folders(entries: Sequence[Entry], folders: Mapping[str, Folders], known: Collection[str]) -> list[str]:
    """Return a note if at least 80% of the images are in folders below the classes; numbered ones are plants."""
    sizes = Counter((entry.name, folders[entry.file].folder) for entry in entries)
    below = {key: count for key, count in sizes.items() if key[1]}
    per_class = Counter(name for name, _ in below)
    images = sum(below.values())
    if images < 0.8 * len(entries) or images < 2 * len(below) or min(per_class.values(), default=0) < 2:
        return []
    numbered = sum(any(map(str.isdigit, folder.rpartition("/")[2])) for _, folder in below)
    if 2 * numbered < len(below):
        offer = "as in CROP/DISEASE. `leaf start` offers both levels."
        return [] if known else [f"the folders below the classes look like classes themselves, {offer}"]
    if any(entry.group for entry in entries):
        return []
    return ["each folder below the classes seems to show a single plant. -S group_by=folder keeps each in one split."]


def _check_label_column(
    labels: Path | None, tables: Sequence[tuple[str, Table]], known: Collection[str], chosen: bool
) -> None:
    """Reject a `labels` table that has only file names, or a label column with an unrecognized name."""
    table = next((table for _, table in tables if table.path == labels), None)
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
    """Add each row to `rows`, under its file. Add rows that match no file to `left_out`."""
    prefix = f"{base}/" if base else ""
    finder = Finder(root / base, [file.removeprefix(prefix) for file in images if file.startswith(prefix)])
    missing = []
    for row in table.rows:
        where, cell = f"{table.path}: line {row.line}", row.cells["file"]
        if not cell.strip():
            raise LeafError(f"{where}: no file name. Fill the cell or delete the row.")
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
        other = rows[file][1] if file in rows else row
        if {**other.cells, "file": ""} != {**row.cells, "file": ""}:
            raise LeafError(f"{where}: {cell!r} appears twice with different values. Compare line {other.line}.")
        rows[file] = (table, row)
    if images and missing and len(missing) == len(table.rows):
        raise LeafError(
            f"{table.path}: no row matches an image in {root / base}: {few(missing)}. Use paths such as {images[0]!r}."
        )


class Finder:
    """Find the files that table cells refer to, as paths relative to the folder `root`."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """Index the paths `files`."""
        self._root = root.resolve().name
        self._files = files
        self._known: dict[int, dict[str, list[str]]] = {}

    def find(self, cell: str) -> list[str]:
        """Return the files that match `cell` by the strictest rule that matches any file, or [].

        The rules, in order: the path or its end, which may start above the folder; the same, ignoring case; without
        the suffix; by number (7 matches 0007.jpg); without the prefix that Label Studio adds to uploads. URLs are
        matched by their path.
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


def _readable(path: Path) -> bool:
    with suppress(OSError):
        return kind(read_head(path)) != ""
    return False


def _given_split(table: Table | None, row: Row) -> str:
    given = row.cells.get("split", "")
    split = split_name(given) if given else ""
    if table and given and not split:
        raise LeafError(
            f"{table.path}: line {row.line}: unknown split {given!r}. Use train, validation, test or an empty cell, or "
            "set columns.split=none to ignore the column."
        )
    return split


def _no_classes(root: Path, listing: Listing, notes: Sequence[str]) -> LeafError:
    if not listing.images:
        remedies = [text for suffix, text in _REMEDIES.items() if any(map(re.compile(suffix).search, listing.others))]
        remedy = " ".join(remedies) or "Use a folder of images for each class, or a table of labels."
        return LeafError(f"{'; '.join([f'{root}: no image files', *listing.notes()])}. {remedy}")
    todo = (
        "Sort the images into a folder per class, set the key `labels` to a table of files and labels, or list the "
        "classes in `classes` and label the images with `leaf review --unlabelled`"
    )
    tables = [path for path in listing.others if path.lower().endswith((".csv", ".tsv"))][:3]
    return UnlabelledError(
        listing.images,
        "; ".join([f"{root}: no class for {few(listing.images)}", *notes, todo]),
        proposals=[{"labels": str(root / path)} for path in tables],
    )
