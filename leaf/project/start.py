"""`leaf start`: recognize the layout of a folder of images and propose classes, groups, image size and a recipe."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leaf import params
from leaf.errors import LeafError, plural
from leaf.experiments import DATA_KEYS, committed_params, experiment, with_settings
from leaf.ingest.classes import means_healthy, nfc, sort_names
from leaf.ingest.files import list_folder
from leaf.ingest.folders import by_folders
from leaf.ingest.ingest import survey
from leaf.ingest.sample import look_like_series, sizes
from leaf.ingest.sandbox import cores
from leaf.models.backbones import recommended_size
from leaf.project.pipeline import load_yaml, write_yaml
from leaf.store import span

RECIPES = ("probe", "transfer", "default")
_LABELS = "data/labels.csv"
_TABLES = (".csv", ".tsv", ".json", ".xml")
# CPU milliseconds per image of 96×96 pixels for a forward pass and for a training step, on one x86-64 core. Both are
# proportional to the image area.
_COST = {"mobilenet_v2": (4.4, 16.0), "convnext_atto": (6.0, 19.0)}
_STARTUP = 40.0  # seconds for all stages except training


@dataclass(frozen=True)
class Option:
    """A possible answer: its text and the settings that it selects."""

    text: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A question and its options. The first option is recommended."""

    key: str
    text: str
    options: Sequence[Option]


@dataclass
class Proposal:
    """Findings and recommendations for a data set.

    Attributes:
        lines: findings to print.
        settings: recommended settings that require no question.
        questions: questions to ask. The question about the recipe has the key `recipe`; its options set `recipe`.
    """

    lines: list[str]
    settings: dict[str, Any]
    questions: list[Question] = field(default_factory=list)


def propose(dataset: Path, settings: Mapping[str, Any]) -> Proposal:
    """Examine the data set and return a proposal; `settings` (dotted keys of params.yaml) override it.

    Raises:
        LeafError: if the data set does not exist or has no classes.
    """
    if not dataset.exists():
        raise LeafError(f"{dataset}: no such file or folder. Use an .npz file or a folder of images.")
    fixed = {"dataset": _relative(dataset), "group_by": "none", **settings}
    classes = [] if "classes" in fixed else _class_options(dataset, fixed)
    chosen = {**fixed, **(classes[0].settings if classes else {})}
    dataset = Path(chosen["dataset"])
    source, names = _survey(dataset, chosen)
    labels = source.rows["label"].to_numpy()
    files, groups = source.rows["source"].tolist(), set(source.rows["group"])
    fixed |= {key: chosen[key] for key in ("labels", "columns.label") if key in chosen}
    found = Proposal([f"{dataset}: {(labels >= 0).sum():,} images, {len(names)} classes"], fixed)
    for number, name in enumerate(names[:20]):
        if len(rows := np.flatnonzero(labels == number)):
            found.lines.append(f"  {name}: {plural(len(rows), 'image')}, such as {files[rows[0]]}")
    if len(names) > 20:
        found.lines.append(f"  and {len(names) - 20} more")
    if splits := sorted(set(source.rows["split"]) - {""}):
        found.lines.append(f"splits: {', '.join(splits)}, defined by the data set")
    if len(classes) > 1:
        found.questions.append(Question("classes", "What are the classes?", classes))
    else:
        fixed |= chosen
    if len(groups) > 1:
        found.lines.append(f"groups: {len(groups - {''}):,}, each kept in one split")
    elif series := look_like_series(source.rows["name"].tolist(), files):
        same = " and ".join(series)
        found.lines.append(
            f"groups: none. If {same} show the same plant, list the groups in data/labels.csv (file,group)"
        )
    if chosen["group_by"] == "folder" and "group_by" not in settings:
        options = [Option("yes", {"group_by": "folder"}), Option("no", {"group_by": "none"})]
        found.questions.append(Question("groups", "Does each innermost folder show a single plant?", options))
    found.lines += [f"note: {note}" for note in source.notes]
    opened = sizes(dataset, files, labels, names) if dataset.is_dir() else None
    side = min(opened.usual) if opened else 96
    if opened:
        found.lines.append(f"sizes: mostly {opened.usual[0]}×{opened.usual[1]} pixels")
    found.questions.append(_recipe_question((labels >= 0).sum(), side, chosen))
    return found


def start(proposal: Proposal, answer: Callable[[Question], Option]) -> tuple[str, dict[str, Any]]:
    """Ask the questions, write the answers about the data to params.yaml, and return the recipe with its settings."""
    chosen = {"labels": _LABELS, "columns.label": ""}  # resets the settings for an earlier data set
    chosen |= proposal.settings
    for question in proposal.questions:
        chosen |= answer(question).settings
    recipe = chosen.pop("recipe")
    run = {key: chosen.pop(key) for key in [*chosen] if key.partition(".")[0] not in DATA_KEYS}
    with_settings(committed_params(), {**chosen, **experiment(recipe).set, **run}, "start")
    path = Path(params.PARAMS_FILE)
    values = load_yaml(path)
    for key, value in chosen.items():
        group, _, inner = key.rpartition(".")
        (values[group] if group else values)[inner] = value
    write_yaml(values, path)
    return recipe, run


def _relative(dataset: Path) -> str:
    """Return the path relative to the project if it is inside the project, otherwise the absolute path."""
    path = dataset.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _survey(dataset: Path, settings: dict[str, Any]) -> Any:
    """Return the source and the class names. If there are no class folders, add a label table to `settings`."""
    options = {
        "ignore": settings.get("ignore", ()),
        "labels": settings.get("labels", _LABELS),
        "group_by": settings["group_by"],
        "columns": {"label": settings["columns.label"]} if "columns.label" in settings else None,
    }
    try:
        return survey(dataset, settings.get("classes", "auto"), **options)
    except LeafError as error:
        guesses = [each for each in error.proposals if each.keys() == {"columns.label"} - settings.keys()]
        if dataset.is_dir() and not settings.keys() & {"labels", "classes"}:
            tables = [path for path in list_folder(dataset).others if path.lower().endswith(_TABLES)]
            guesses = [{"labels": str(dataset / path)} for path in tables]
        elif len(guesses) > 1:  # the user must choose the column
            raise
        for guess in guesses:
            with suppress(LeafError):
                found = _survey(dataset, chosen := {**settings, **guess})
                settings |= chosen
                return found
        raise


def _class_options(dataset: Path, settings: dict[str, Any]) -> list[Option]:
    """Return options for the classes, the recommended one first."""
    if dataset.is_dir() and "labels" not in settings:
        listing = list_folder(dataset)
        folders = by_folders(dataset, listing.images, (), labelled=False)
        deep = {file: each.parts for file, each in folders.items() if len(each.parts) > 1}
        if len(deep) > 0.8 * len(folders) and not any(path.endswith("metadata.csv") for path in listing.others):
            return _copies_options(dataset, deep) or _nested_options([*deep.values()])
    _, names = _survey(dataset, settings)
    options = [_classes_option(names)]
    diseases: dict[str, list[str]] = defaultdict(list)
    for name in names:
        diseases[name.rpartition("___")[2]].append(name)
    if (
        all("___" in name for name in names)
        and len(diseases) > 1
        and len({each.partition("___")[0] for each in names}) > 1
    ):
        patterns = {name: [f"*___{name}"] for name in sort_names(diseases)}
        options.append(_classes_option(patterns, _merge_warning(diseases)))
    healthy = sum(map(means_healthy, names))
    if 0 < healthy < len(names) > 2 and "unhealthy" not in map(str.casefold, names):
        options.append(Option("healthy, unhealthy", {"classes": {"healthy": ["*healthy"], "unhealthy": ["*"]}}))
    return options


def _copies_options(dataset: Path, folders: Mapping[str, Sequence[str]]) -> list[Option]:
    """Return an option per top folder if all contain the same files, such as `color` and `grayscale`; otherwise []."""
    stems: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for file, parts in folders.items():
        stems[parts[0]].add((*parts[1:], Path(file).stem))
    first, *others = stems.values()
    if not others or any(2 * len(each & first) <= len(each) for each in others):
        return []
    options = []
    for top in stems:
        path = next(file for file, parts in folders.items() if parts[0] == top).split("/")
        folder = dataset.joinpath(*path[: [*map(nfc, path)].index(top) + 1])
        names = sort_names({parts[1] for parts in folders.values() if parts[0] == top})
        options.append(_classes_option(names, f", from the folder {top}", dataset=_relative(folder)))
    return options


def _nested_options(folders: Sequence[Sequence[str]]) -> list[Option]:
    """Return options for the classes of CLASS/PLANT, CROP/CLASS, CROP/CLASS/PLANT or YEAR/CROP/CLASS folders."""
    inner: dict[str, list[str]] = defaultdict(list)
    above = min((place for parts in folders for place, name in enumerate(parts[1:]) if means_healthy(name)), default=0)
    folders = [parts[above:] for parts in folders if len(parts) > above + 1]
    for top, name, *_ in dict.fromkeys(tuple(parts[:2]) for parts in folders):
        inner[name].append(top)
    tops = sort_names({parts[0] for parts in folders})
    if 2 * sum(any(map(str.isdigit, name)) for name in inner) >= len(inner) or any(map(means_healthy, tops)):
        return [_classes_option(tops, group_by="folder")]
    plants = {"group_by": "folder"} if sum(len(parts) > 2 for parts in folders) > len(folders) / 2 else {}
    joined = sort_names(f"{top} {name}" for name, above in inner.items() for top in above)
    warning = _merge_warning(inner)
    merged = _classes_option(sort_names(inner), warning, **plants)
    crops = _classes_option(tops)
    pairs = _classes_option(joined, **plants)
    if not warning:
        return [merged, crops]
    everywhere = all(len(above) == len(tops) for above in inner.values())
    return [merged, pairs, crops] if everywhere else [pairs, merged, crops]


def _merge_warning(crops: Mapping[str, Collection[str]]) -> str:
    """Return a warning if a class name is in several crops, otherwise an empty string. `crops` maps names to crops."""
    shared = [name for name, above in crops.items() if len(above) > 1]
    return f" (merges {', '.join(map(repr, shared[:3]))} from several crops)" if shared else ""


def _classes_option(classes: Sequence[str] | Mapping[str, Any], note: str = "", **settings: str) -> Option:
    names = [*classes]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return Option(f"{len(names)}: {', '.join(names[:4])}{more}{note}", {"classes": classes, **settings})


def _recipe_question(images: int, side: int, settings: Mapping[str, Any]) -> Question:
    options = []
    for name in RECIPES:
        row = dict(experiment(name).set)
        size = settings.get("image_size")
        if not size and name != "default":
            size = recommended_size(min(side, row.get("image_size", side)), 96) or 96
        chosen = {**row, **({"image_size": size} if size else {})}
        values = with_settings(committed_params(), chosen | {"classes": "auto"}, name)
        why = experiment(name).why.replace(f" at {row.get('image_size')} pixels", "")
        text = f"{name}, {values.image_size} pixels, at most {span(estimate(values, images))}: {why}"
        options.append(Option(text, {"recipe": name, "image_size": values.image_size}))
    return Question("recipe", "Which recipe?", options)


def estimate(values: params.Params, images: int) -> float:
    """Estimate the seconds that a run without early stopping takes on this machine's CPU cores."""
    forward, step = _COST.get(values.backbone, (20.0, 70.0))
    train = images * (1 - float(values.validation_size < 1 and values.validation_size) - float(values.test_size))
    passes = forward * images
    if values.optimizer != "lbfgs":
        passes += train * (values.frozen_epochs * forward + (values.epochs - values.frozen_epochs) * step)
    passes += values.views * forward * (images - train)
    return _STARTUP + passes / 1000 * (values.image_size / 96) ** 2 / min(cores(), os.cpu_count() or 1)
