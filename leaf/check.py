"""`leaf check`: validate parameters and data set before DVC runs the first stage and deletes outputs."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf import params
from leaf.clean.decisions import COLUMNS, split_ranks
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError, plural
from leaf.experiments import with_commands, with_settings
from leaf.ingest.folder_source import UnlabelledError
from leaf.ingest.ingest import reading_options, refuse_folders_keys, survey
from leaf.ingest.masks import mask_files, read_mask
from leaf.ingest.sample import SAMPLE, Sizes, look_like_series, sizes
from leaf.ingest.source import Source
from leaf.ingest.unlabelled import find_unlabelled, read_given
from leaf.models import backbones
from leaf.models.weights import check_weights_file, describe_download
from leaf.params import Params
from leaf.project.pipeline import CODE_FILE, changed_code
from leaf.split.stratified_split import PIN_COLUMNS, PINNED, SPLITS, draw_keys, fold_images, split_images
from leaf.store import EPOCH, epoch_key, load_cached_value, read_yaml, sha256, span

FEW = 20  # images per class below which accuracy is uncertain
_CLASSES = 40  # maximum number of classes in the table


def check(
    settings: Mapping[str, Any], name: str = "-S", seen: dict[str, list[str]] | None = None
) -> tuple[dict[str, Any], str]:
    """Check the parameters, the data set and all files that the parameters refer to.

    Args:
        settings: values by dotted key that override params.yaml.
        name: where the settings come from, for error messages.
        seen: a cache of findings that the runs of a sweep share.

    Returns:
        The settings, with weights_sha256 added if necessary, and the findings as text.

    Raises:
        LeafError: for errors that a stage would report and that can be found without decoding all images.
    """
    settings, seen = dict(settings), {} if seen is None else seen
    choices = with_settings(read_yaml(params.PARAMS_FILE), settings, name if settings else params.PARAMS_FILE)
    if backbones.is_weights_file(choices.weights):
        settings["weights_sha256"] = _weights(choices, settings)
    for reference in choices.references if isinstance(choices.references, list) else []:
        if isinstance(reference, str) and not Path("data/references", reference).is_file():
            raise LeafError(
                f"references: {reference}: no such file in data/references. Add it, or remove it from references."
            )
    read_edited_table("data/overrides.csv", COLUMNS)
    pins = read_edited_table(PINNED, PIN_COLUMNS)
    backbones.check(choices, 2 if choices.classes == "auto" else len(choices.classes))
    lines = [f"{params.PARAMS_FILE}: valid; dataset: {choices.dataset}"]
    if Path(CODE_FILE).exists() and (changed := changed_code(Path())):
        lines.append(f"{CODE_FILE}: differs from the installed leaf in {', '.join(changed)}. Run `leaf upgrade`.")
    if len(pins):
        lines.append(f"pins       {plural(len(pins), 'image')} in {PINNED}; `leaf check` ignores pins")
    dataset = Path(choices.dataset)
    if not Path(choices.labels).is_file() and not Path(f"{choices.labels}.dvc").is_file():
        what = "a folder" if Path(choices.labels).is_dir() else "no such file"
        raise LeafError(f"labels: {choices.labels}: {what}. Use a CSV table of files and labels.")
    if not Path(choices.unlabelled).is_dir() and not Path(f"{choices.unlabelled}.dvc").is_file():
        raise LeafError(
            f"unlabelled: {choices.unlabelled}: no such folder. Use a folder of images, which may be empty."
        )
    if not Path(choices.masks).is_dir() and not Path(f"{choices.masks}.dvc").is_file():
        mask_files(Path(choices.masks), [])
    made = _made_by_a_stage(choices.dataset)
    if not dataset.exists() and not made and not Path(f"{dataset}.dvc").is_file():
        raise LeafError(f"dataset: {dataset}: no such file or folder. Use an .npz file or a folder of images.")
    if dataset.is_dir():
        _refuse_what_dvc_cannot_hash(dataset)
    elif dataset.suffix == ".npz":
        refuse_folders_keys(dataset, choices.labels, choices.group_by)
    if dataset.exists() and not made:
        try:
            key = choices.model_dump_json(exclude={"seed", "learning_rate", "augmentation"})
            if key not in seen:
                seen[key] = _overview(choices, dataset)
            lines += seen[key]
        except LeafError as error:
            raise with_commands(error, {"dataset": choices.dataset, **settings}) from None
    if "weights_sha256" in settings:
        lines.append(f"weights    {choices.weights}, SHA-256 {settings['weights_sha256']}")
    if where := describe_download(choices.backbone, choices.weights, choices.image_size):
        lines.append(f"weights    {where}")
    return settings, "\n".join(lines)


def _weights(choices: Params, settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the weights file. Raises LeafError if it differs from `weights_sha256`."""
    weights = Path(choices.weights)
    if not weights.is_file() and Path(f"{weights}.dvc").is_file():
        return choices.weights_sha256
    pinned = "weights_sha256" in settings or not settings or ("weights" not in settings and choices.weights_sha256)
    if pinned or not weights.is_file():
        check_weights_file(weights, choices.weights_sha256)
        return choices.weights_sha256
    return sha256(weights)


def _overview(choices: Params, dataset: Path) -> list[str]:
    try:
        skip = choices.unreadable == "skip"
        source, names = survey(dataset, choices.classes, skip, **reading_options(choices))
    except UnlabelledError as error:
        if choices.classes == "auto" or not (labels_given := len(read_given()[0])):
            raise
        return [f"unlabelled {plural(len(error.files), 'image')}; labels in data/labels.csv: {labels_given:,}"]
    params.check_threshold(choices.threshold, len(names))
    backbones.check(choices, len(names))
    images = source.rows.rename(columns={"split": "given"})
    images = images.assign(image=range(len(images))).query("label >= 0")
    shared = _in_a_better_split(images)
    images = images[~shared].reset_index(drop=True)
    images["split"] = _splits(choices, images, names)
    files = images["source"].tolist()
    found = sizes(dataset, files, images["label"].to_numpy(), names) if dataset.is_dir() else None
    lines = [*_table(images, names), *_sizes(found, choices.image_size)]
    if shared.any():
        lines.append(
            f"left out   {plural(int(shared.sum()), 'image')}: another given split contains an image of the same "
            "group; test takes precedence over validation, and validation over train"
        )
    lines += _left_out(source)
    waiting = len(find_unlabelled(source, dataset, Path(choices.unlabelled), choices.links))
    if waiting:
        labelled = len(read_given()[0])
        given = f" in the data set; up to {labelled:,} have one in data/labels.csv" if labelled else ""
        todo = "To label images, run `leaf review --unlabelled`."
        lines.append(f"unlabelled {plural(waiting, 'image')} without a label{given}. {todo}")
    lines += [f"note       {note}" for note in source.notes]
    lines += _masks(choices, files) if Path(choices.masks).is_dir() else []
    lines += [f"risk       {risk}" for risk in _risks(choices, images, names, found)]
    gpu = Path("/proc/driver/nvidia/version").exists()
    runs = " and ".join(f"`{run}`" for run in backbones.recommended_runs(len(images), gpu))
    lines.append(f"recipe     recommended for {plural(len(images), 'image')} on a {'GPU' if gpu else 'CPU'}: {runs}")
    return [*lines, _time(choices, int(images["split"].eq("train").sum()))]


def _in_a_better_split(images: pd.DataFrame) -> pd.Series:
    """Return a mask of the images that `clean` removes because their group is also in a higher-ranked split."""
    rank = pd.Series(split_ranks(images["given"]), images.index)
    best = rank.groupby(images["group"]).transform("min")
    return images["group"].ne("") & (best < rank) & (rank < 3)


def _splits(choices: Params, images: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Split the images as in the `split` stage, but ignore pins and copies. Return the split of each image."""
    alone = "\0" + images["image"].astype(str)
    groups = images.groupby(images["group"].mask(images["group"].eq(""), alone), sort=False)
    group = groups["image"].transform("first")
    # No file is read, so names replace file hashes. The counts are correct, but different images are selected.
    key = draw_keys(group, images["source"], choices.split_seed)
    table = images.assign(group=group, key=key, split=images["given"])
    if choices.folds:
        found = fold_images(table, choices.folds, choices.fold, choices.validation_size, choices.split_seed, names)
    else:
        found = split_images(table, choices.validation_size, choices.test_size, names)
    return found.set_index("image")["split"].loc[images["image"]].to_numpy()


def _table(images: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return a table of images, groups and split sizes for each class, before copies are removed."""
    width = min(max(map(len, [*names, "class"])), 60)
    columns = ("images", "groups", *SPLITS)
    lines = [f"{'class':<{width}}" + "".join(f"{column:>12}" for column in columns)]

    def row(name: str, chosen: pd.DataFrame) -> str:
        groups = chosen.loc[chosen["group"] != "", "group"].nunique()
        counts = [len(chosen), groups, *(chosen["split"].eq(split).sum() for split in SPLITS)]
        return f"{name[:60]:<{width}}" + "".join(f"{count:>12,}" for count in counts)

    lines += [row(name, images[images["label"] == label]) for label, name in enumerate(names[:_CLASSES])]
    if len(names) > _CLASSES:
        lines.append(f"… and {len(names) - _CLASSES} more")
    return [*lines, row("all", images)]


def _sizes(found: Sizes | None, image_size: int) -> Iterator[str]:
    if not found:
        return
    yield (
        f"sizes      mostly {found.usual[0]}×{found.usual[1]}, sides from {found.smallest} to {found.largest} pixels "
        f"({plural(found.opened, 'image')} opened); resized to {image_size}×{image_size}"
    )
    if size := backbones.recommended_size(min(found.usual), image_size):
        yield f"sizes      a larger size can preserve small symptoms: -S image_size={size}"
    if found.others:
        opened = len(found.others) + found.opened
        yield f"left out   {len(found.others)} of {opened} opened files: not an image (first: {found.others[0]})"


def _left_out(source: Source) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for file, why in source.left_out.items():
        reasons.setdefault(why, []).append(file)
    often = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for why, several in often[:6]:
        yield f"left out   {plural(len(several), 'file')}: {why} (first: {several[0]!r})"
    if rare := [several for _, several in often[6:]]:
        yield f"left out   {plural(sum(map(len, rare)), 'file')}: other reasons (first: {rare[0][0]!r})"


def _masks(choices: Params, files: Sequence[str]) -> Iterator[str]:
    masks = [path for path in mask_files(Path(choices.masks), files) if path]
    guessed = "; GrabCut estimates the other masks" if choices.augmentation.background == "swap" else ""
    if masks or guessed:
        yield f"masks      for {len(masks):,} of {len(files):,} images{guessed}"
    opened = masks[:: 1 + len(masks) // SAMPLE]
    empty = [path for path in opened if not read_mask(path, choices.image_size, choices.fit).any()]
    if empty:
        yield f"masks      no leaf in {len(empty)} of {plural(len(opened), 'opened mask')} (first: {str(empty[0])!r})"


def _risks(choices: Params, images: pd.DataFrame, names: Sequence[str], found: Sizes | None) -> Iterator[str]:
    counts = np.bincount(images["label"], minlength=len(names))
    train = np.bincount(images.loc[images["split"] == "train", "label"], minlength=len(names))
    small = [f"{names[label]} ({counts[label]})" for label in np.argsort(counts, kind="stable") if counts[label] < FEW]
    if small:
        more = " …" if small[8:] else ""
        yield f"the accuracy of classes with fewer than {FEW} images is uncertain: {', '.join(small[:8])}{more}"
    synthetic = int((train.max() - train).sum()) if choices.balance in ("smote", "oversample") else 0
    size = synthetic * 3 * choices.image_size**2 / 1e9
    if size >= 0.5:
        limit = choices.balance_limit_gb
        more = f", more than balance_limit_gb ({limit:g}), so `balance` will stop with an error" if size > limit else ""
        yield f"{synthetic:,} synthetic images require {size:.1f} GB{more}; balance=class_weight creates none"
    few = int(train.min())
    if choices.balance == "smote" and few < train.max() and few <= choices.smote_neighbors:
        raise LeafError(
            f"balance: SMOTE with smote_neighbors {choices.smote_neighbors} requires {choices.smote_neighbors + 1} "
            f"training images in each class except the largest; {names[int(train.argmin())]} has {few}",
            proposals=[{"balance": "class_weight"}],
        )
    without = int(images["group"].eq("").sum())
    if 0 < without < len(images):
        yield f"images without a group: {without:,} of {len(images):,}"
    if without == len(images) and (series := look_like_series(images["name"].tolist(), images["source"].tolist())):
        yield (
            f"no groups are specified, but names such as {' and '.join(map(repr, series))} suggest "
            "images of the same plant. List the groups in a table (key `labels`); otherwise a plant can be in both "
            "train and test"
        )
    if found and found.wide >= 20:
        yield (
            f"{found.wide}% of the images have an aspect ratio above 4:3; the crop removes {found.lost}% of each on "
            "average"
        )


def _time(choices: Params, train: int) -> str:
    if choices.optimizer == "lbfgs":
        return f"time       linear probe: {choices.backbone} features of {train:,} images are computed once and cached"
    known = load_cached_value("epochs", epoch_key(choices), EPOCH)
    if known is None:
        return (
            f"time       {train:,} images per epoch, at most {plural(choices.epochs, 'epoch')}; duration unknown until "
            f"{choices.backbone} has been trained at {choices.image_size} pixels on this machine"
        )
    epoch = train * known["seconds"] / known["images"]
    return (
        f"time       {span(epoch)} per epoch, at most {span(choices.epochs * epoch)} for "
        f"{plural(choices.epochs, 'epoch')}, "
        f"based on the last training run of {choices.backbone} on this machine"
    )


def _refuse_what_dvc_cannot_hash(folder: Path) -> None:
    """Raise LeafError if a name is not UTF-8, which makes DVC fail, or a file is a pipe, which makes DVC hang."""
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(parent, name)  # noqa: PTH118 (bytes)
            shown = path.decode("utf-8", "backslashreplace")
            if shown.encode() != path:
                raise LeafError(f"dataset: {shown}: the name is not UTF-8. Rename the file.")
            if stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK):
                raise LeafError(f"dataset: {shown}: not a regular file. Remove it.")


def _made_by_a_stage(path: str) -> bool:
    stages = read_yaml(params.PIPELINE_FILE)["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return path in [out if isinstance(out, str) else next(iter(out)) for out in outs]
