"""Derive the class, group and split of each image in a folder from its subfolders and from label tables."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import unquote

import pandas as pd

from leaf.errors import LeafError
from leaf.ingest.classes import few, nfc
from leaf.ingest.files import Links, Listing, list_folder, starts_like_image
from leaf.ingest.folders import by_folders, reject_containers, split_name
from leaf.ingest.label_tables import KEPT, ROBOFLOW, Table, read_labels
from leaf.ingest.source import FileSource

METADATA = ("metadata.csv", ROBOFLOW)
_REMEDIES = {  # advice for a folder without images, by the type of the files in it
    r"(?i)\.(zip|tar|tgz|gz|7z|rar)$": "Unpack the archives in the folder.",
    r"\.dvc$": "Run `dvc pull`.",
    r"(?i)\.(parquet|arrow|tfrecord|h5|hdf5|npz|npy)$": "Export the images as files, or set `dataset` to an .npz file.",
}


class UnlabelledError(LeafError):
    """Raised if no image in the folder has a label."""

    def __init__(self, files: Sequence[str], text: str, proposals: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(text, proposals)
        self.files = files


class Reading(TypedDict, total=False):
    """The parameters in params.yaml that define how a data set is read.

    With `group_by: folder`, a group is a folder below the class folder or, if there is none, above the class folder.
    """

    ignore: Sequence[str]  # shell patterns of classes to exclude
    labels: str | Path | None  # a label table, used instead of a metadata.csv in the folder
    group_by: Literal["none", "folder"]
    columns: Mapping[str, str] | None  # see `leaf.ingest.label_tables.read_labels`
    encoding: str  # encoding of the label tables, or `auto`
    links: Links  # see `leaf.ingest.files.list_folder`


class FolderSource(FileSource):
    """The images of one folder, sorted by path.

    Class, group and split of each image are derived from its folders and from tables; tables take precedence. If any
    table has labels, images without a label in a table are excluded.
    """

    def __init__(
        self, root: Path, skip_unreadable: bool = True, known: Collection[str] = (), **reading: Unpack[Reading]
    ) -> None:
        """List and label the files. Class names in `known` are recognized at any folder level.

        Raises:
            LeafError: if there are no classes, if several folders contain the same class folders, if a row matches
                several files, or if a file appears twice with different values.
        """
        listing = list_folder(root, reading.get("links", "refuse"))
        table_path = reading.get("labels")
        labels = Path(table_path) if table_path else None
        columns = reading.get("columns") or {}
        notes: list[str] = []
        tables = _tables(root, listing, labels, notes, columns, reading.get("encoding", "auto"))
        with_labels = [table for _, table in tables if "label" in table.roles]
        folders = by_folders(root, listing.images, known, bool(with_labels))
        if labels is None and len({each.name for each in folders.values() if each.name}) > 1:
            notes += [
                f"{table.path}: 0/1 columns do not override the class folders. To use them, set `labels` to the table."
                for table in with_labels
                if table.one_hot
            ]
            with_labels = [table for table in with_labels if not table.one_hot]
        if not with_labels:
            _check_label_column(labels, tables, known, bool(columns.get("label")))
            notes += reject_containers(root, folders, known, reading.get("ignore", ()))
        matched: dict[str, tuple[Table, int]] = {}  # the table and line of each file
        left_out: dict[str, str] = {}
        for base, each in tables:
            notes += each.notes
            _join(root, base, each, listing.images, matched, left_out)
        described: list[tuple[str | None, ...]] = []
        unlabelled = []
        overruled = relabelled = 0
        for file in listing.images:
            folder = folders[file]
            table, line = matched.get(file, (None, 0))
            cells = table.rows[line] if table else {}
            name = cells.get("label", "") if with_labels else folder.name
            if not name:
                paths = [table.path.name] if table else dict.fromkeys(table.path.name for _, table in tables)
                absent = f"{'no label' if table else 'not'} in {' nor in '.join(paths)}"
                left_out[file] = absent if with_labels else "in no class folder"
                if table or folder.name not in known:
                    unlabelled.append(file)
                continue
            relabelled += bool(with_labels and labels is None and folder.name and nfc(name) != folder.name)
            split = _given_split(table, line) if table else ""
            overruled += bool(split and folder.split and split != folder.split)
            group = cells.get("group") or (folder.folder if reading.get("group_by") == "folder" else "")
            more = {"crop": folder.crop} | cells if folder.crop and not with_labels else cells
            described.append((file, name, group, split or folder.split, *map(more.get, KEPT)))
        if not described:
            raise _no_classes(root, listing, [note for _, table in tables for note in table.notes])
        if overruled:
            notes.append(f"images with different splits in the table and the folders: {overruled}; the table is used")
        if relabelled:
            which = ", ".join(sorted({table.path.name for table in with_labels}))
            notes.append(f"images whose label in {which} overrides the folder: {relabelled}")
        if not with_labels and tables and len(matched) < len(described):
            notes.append(f"images without a group, because no table lists them: {len(described) - len(matched)}")
        rows = pd.DataFrame(described, columns=["source", "name", "group", "split", *KEPT])
        rows = rows.dropna(axis="columns", how="all").fillna("")
        if rows["split"].eq("train").all():
            rows["split"] = ""
            notes.append("all images are in train, so validation and test images are selected from them")
        names, groups = rows["name"].tolist(), rows["group"].tolist()
        notes += _notes_on_names(names, groups, listing.images)
        notes += _notes_on_folders(names, [folders[file].folder for file in rows["source"]], any(groups), known)
        super().__init__(rows, root.joinpath, skip_unreadable)
        self.left_out, self.unlabelled = left_out, unlabelled
        if left_out and not skip_unreadable:
            file, why = next(iter(left_out.items()))
            raise LeafError(f"{root}: {file!r}: {why}. Correct the data set, or set `unreadable: skip`.")
        self.notes = [*notes, *listing.notes()]


def _notes_on_names(names: Sequence[str], groups: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return notes on similar names of classes and groups, and on folders that are merged into one class."""
    notes = [f"{several} are separate classes. To merge them, use a mapping in `classes`." for several in _alike(names)]
    notes += [
        f"{several} are separate groups, although they differ only in case, spaces, punctuation or leading zeros"
        for several in _alike(filter(None, groups))[:3]
    ]
    raw: dict[str, set[str]] = defaultdict(set)
    for part in {part for file in files for part in file.split("/")[:-1]}:
        raw[nfc(part)].add(part)
    return notes + [
        f"the folders {', '.join(map(ascii, sorted(raw[name])))} are merged into the class {name!r}"
        for name in sorted(set(names))
        if len(raw[name]) > 1
    ]


def _alike(names: Iterable[str]) -> list[str]:
    """Return each set of names that differ only in case, spaces, punctuation or leading zeros, joined by commas."""
    alike = defaultdict(set)
    for name in dict.fromkeys(names):
        plain = re.sub(r"[ _-]*\b(copy|kopie|copie)?( ?\(\d+\))?$", "", unicodedata.normalize("NFKC", name).casefold())
        words = re.findall(r"[^\W\d_]+|[1-9]\d*|0(?!\d)", plain)
        alike[" ".join(words) or name].add(name)
    return [", ".join(map(repr, sorted(several))) for several in alike.values() if len(several) > 1]


def _notes_on_folders(names: Sequence[str], folders: Sequence[str], grouped: bool, known: Collection[str]) -> list[str]:
    """Return a note if at least 80% of the images are in subfolders of classes, which may be plants or classes."""
    below = Counter((name, folder) for name, folder in zip(names, folders, strict=True) if folder)
    per_class = Counter(name for name, _ in below)
    images = below.total()
    if images < 0.8 * len(names) or images < 2 * len(below) or min(per_class.values(), default=0) < 2:
        return []
    numbered = sum(any(map(str.isdigit, folder.rpartition("/")[2])) for _, folder in below)
    if 2 * numbered < len(below):
        offer = "as in CROP/DISEASE. `leaf start` offers both levels."
        return [] if known else [f"the folders below the classes look like classes themselves, {offer}"]
    if grouped:
        return []
    return [
        "each folder below the classes seems to show a single plant. To keep each in one split, add -S group_by=folder."
    ]


def _check_label_column(
    labels: Path | None, tables: Sequence[tuple[str, Table]], known: Collection[str], chosen: bool
) -> None:
    """Raise LeafError if the `labels` table has only file names, or may have an unrecognized label column."""
    table = next((table for _, table in tables if table.path == labels), None)
    if table is None or (table.roles - {"file"} and (known or chosen or not any(table.unused.values()))):
        return
    missing = "label" if table.roles - {"file"} else "label, group or split"
    likely = sorted(table.unused, key=table.unused.__getitem__, reverse=True)
    raise LeafError(
        "; ".join([f"labels: {table.path}: no {missing} column was recognized", *table.notes])
        + ". Set columns.label to the name of the label column, or to none if the folders are the classes.",
        proposals=[{"columns.label": name} for name in likely[:3]],
    )


def _tables(
    root: Path,
    listing: Listing,
    labels: Path | None,
    notes: list[str],
    columns: Mapping[str, str],
    encoding: str,
) -> list[tuple[str, Table]]:
    """Return (folder, table) for each table to use. The file names in the table are relative to the folder."""
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
    rows: dict[str, tuple[Table, int]],
    left_out: dict[str, str],
) -> None:
    """Add the rows of the table to `rows`, with the file as key. Add rows that match no file to `left_out`."""
    prefix = f"{base}/" if base else ""
    finder = Finder(root / base, [file.removeprefix(prefix) for file in images if file.startswith(prefix)])
    missing = []
    for line, cells in table.rows.items():
        where, cell = f"{table.path}: line {line}", cells["file"]
        if not cell.strip():
            raise LeafError(f"{where}: no file name. Fill the cell or delete the row.")
        found = finder.find(cell)
        if len(found) > 1:  # for example, a raw file and its JPEG
            found = [file for file in found if starts_like_image(root / base / file)] or found
        if len(found) > 1:
            raise LeafError(
                f"{where}: {cell!r} matches {len(found)} files: {few(found)}. Use the path relative to the folder."
            )
        if not found:
            missing.append(cell)
            left_out[cell] = f"listed in {table.path.name}, but not found in {root / base}"
            continue
        file = prefix + found[0]
        other, place = rows.get(file, (table, line))
        if {**other.rows[place], "file": ""} != {**cells, "file": ""}:
            raise LeafError(
                f"{where}: {cell!r} appears twice with different values (see line {place}). Delete one row."
            )
        rows[file] = (table, line)
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

        The rules, in order: match the path or its last parts, with or without the folder's own name; ignore case;
        ignore the suffix; match numbers by value (7 matches 0007.jpg); ignore the prefix that Label Studio adds to
        uploads. URLs are matched by their path.
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
    """Map the key of each path, and of its last parts (`a/b/c`, `b/c`, `c`), to the files."""
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


def _given_split(table: Table, line: int) -> str:
    given = table.rows[line].get("split", "")
    split = split_name(given)
    if given and not split:
        raise LeafError(
            f"{table.path}: line {line}: unknown split {given!r}. Use train, validation, test or an empty cell, or "
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
        f"{'; '.join([f'{root}: no class for {few(listing.images)}', *notes])}. {todo}",
        proposals=[{"labels": str(root / path)} for path in tables],
    )
