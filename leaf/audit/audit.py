"""Run `leaf audit`: test whether the model relies on anything besides the leaf and whether it generalizes."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from leaf import params, store
from leaf.audit import domain_shift, shortcuts
from leaf.audit.domain_shift import FEW, Transport
from leaf.audit.shortcuts import score
from leaf.clean.groups import components
from leaf.dvc_experiments import run_rows
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.baselines import cross_validated, held_out
from leaf.evaluate.label_issues import suspicious
from leaf.evaluate.leakage import features_of, measure_leak
from leaf.finished_run import Run, read_run
from leaf.ingest.folder_source import Finder
from leaf.ingest.label_tables import COLUMNS, KEPT
from leaf.ingest.masks import read_masks
from leaf.params import Params
from leaf.revisions import PREDICTIONS, reader, table

PAGE, METRICS = "reports/audit.html", "metrics/audit.json"
_NEEDED = (
    "params.yaml",
    *(f"data/ingested/{name}" for name in ("images.npy", "index.csv", "classes.csv", "masks.npy")),
    *("data/cleaned/decisions.csv", "data/cleaned/pairs.csv", "data/split/splits.csv"),
    *(f"data/scored/{name}" for name in ("predictions.csv", "scores.json", "decision.json", "ood.npz")),
    *("models/model.keras", "models/run.json", "models/history.csv"),
)
_NETWORK_IMAGES = 2000  # maximum number of test images that are altered and predicted
_HEATMAPS = 100

TrainWithout = Callable[[str, pd.DataFrame, list[str]], pd.DataFrame]
"""Retrain without a value, given the value, the label table without it and the classes; return the predictions."""


def audit(
    root: Path, by: str | None = None, masks: Path | None = None, trained: TrainWithout | None = None
) -> dict[str, Any]:
    """Audit the finished run in `root` and return the contents of metrics/audit.json; see docs/honest.md.

    Args:
        root: project folder.
        by: column whose values are left out in turn. Defaults to each of site, crop, camera and date that exists.
        masks: folder of leaf masks. Defaults to the run's masks.
        trained: function that retrains the network without a value. If None, a linear head is fitted instead.

    Raises:
        LeafError: if there is no finished run, no column `by`, or no mask in `masks`.
    """
    recipe = params.load(root / params.PARAMS_FILE)
    run = read_run(root, params.flatten(recipe.model_dump()))
    given = run.index["group"].fillna("").astype(str)
    chosen = run.index.drop(columns=["label", "group"]).merge(
        run.decisions[["image", "label", "kept", "group"]], on="image"
    )
    chosen = chosen[chosen["kept"].eq(1)].reset_index(drop=True)
    folder = Path(recipe.dataset) if Path(recipe.dataset).is_dir() else None
    sources = chosen["source"].astype(str).tolist()
    facts = shortcuts.file_facts(folder, sources, {str(key): chosen[key].tolist() for key in chosen})
    facts["date"], dates = shortcuts.iso_dates(facts["date"])
    for key in ("camera", "date"):  # from the label table or the EXIF data
        chosen = chosen.assign(**{key: facts[key]}) if any(facts[key]) else chosen.drop(columns=key, errors="ignore")
    columns = _columns(chosen) if by is None else {by: _column(by, chosen, recipe)}
    rows, labels, groups = (chosen[key].to_numpy() for key in ("image", "label", "group"))
    shapes = _masks(root, masks, sources, rows, recipe)
    tested = _tested(run)
    right = tested["predicted"].eq(tested["label"]).to_numpy()

    print(f"{len(chosen)} images in {len(np.unique(groups))} groups: testing for shortcuts", file=sys.stderr)
    pixels = shortcuts.pixel_features(run.images, rows, shapes)
    scored = shortcuts.find_shortcuts(pixels | shortcuts.file_features(facts, sources), labels, groups)
    found: dict[str, Any] = {
        "images": len(chosen),
        "groups": len(np.unique(groups)),
        "shortcuts": {"majority": asdict(score(labels == np.bincount(labels).argmax(), groups))},
        "model": asdict(score(right, pd.Series(groups, rows)[tested["image"]].to_numpy())),
        "guessed": not columns,
        "dates": dates,
        "not_said": [name for name in KEPT if name not in chosen],
        "trained": trained is not None,
        "groups_given": {"without": int(given.eq("").sum()), "of": len(given)},
        "conflicts": len(run.conflicting_copies()),
        "given_splits": _shared(run),
    }
    for name, one in scored.items():
        fields = asdict(one)
        found["shortcuts"][name] = {**fields.pop("score"), **fields, "alarm": one.alarm}
    print("running the model on altered test images", file=sys.stderr)
    found["network"] = _network(root, run, chosen, shapes)
    features, found["features"] = features_of(recipe, run.images, rows)
    print("testing on left-out values and classes", file=sys.stderr)
    found["transport"] = {}
    for name, values in (columns or {"background": domain_shift.cluster_backgrounds(pixels["frame"])}).items():
        if trained:
            results = _retrain_for_each(name, values, run, chosen, trained)
        else:
            results = domain_shift.transport(features, labels, groups, values)
        found["transport"][name] = {value: asdict(one) for value, one in results.items()}
    flags = domain_shift.new_classes(features, labels, groups, run.classes)
    found["new_class"] = {name: _detector_results(each) for name, each in flags.items()}
    if shapes is not None:
        found["without_leaf"] = _without_leaf(recipe, run.images, chosen, shapes, features)
    return found | _leaks_and_labels(features, labels, groups)


def _columns(chosen: pd.DataFrame) -> dict[str, list[str]]:
    """Return the metadata columns with at least two values. Dates become months, or days if all share a month."""
    found = {}
    for name in KEPT:
        if name in chosen:
            values = chosen[name].fillna("").astype(str)
            if name == "date":
                months = values.str[:7]
                values = months if months[months != ""].nunique() > 1 else values.str[:10]
            found[name] = values.tolist()
    return {name: values for name, values in found.items() if len(set(values) - {""}) > 1}


def _column(name: str, chosen: pd.DataFrame, recipe: Params) -> list[str]:
    """Return the column `name` from index.csv or, if it is not there, from a table that lists the image files."""
    if name in chosen:
        return _columns(chosen).get(name) or chosen[name].astype(str).tolist()
    seen = set(KEPT) & set(chosen)
    tables = [Path(recipe.labels), *sorted(Path(recipe.dataset).glob("*.[ct]sv"))]
    for path in filter(Path.is_file, tables):
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
        seen |= set(map(str, table))
        files = [column for column in table if str(column).strip().lower() in COLUMNS["file"].split()]
        if files and name in table:
            finder = Finder(Path(recipe.dataset), chosen["source"].tolist())
            cells = table[[files[0], name]].to_numpy().tolist()
            given = {file: value for cell, value in cells for file in finder.find(cell)}
            return [given.get(source, "") for source in chosen["source"]]
    missing = "no such column, and no image has it in its EXIF data" if name in ("camera", "date") else "no such column"
    remedy = f"Use one of {', '.join(sorted(seen))}." if seen else "Add a table that lists the image files."
    raise LeafError(f"--by {name}: {missing}. {remedy}")


def _masks(root: Path, folder: Path | None, sources: Sequence[str], rows: np.ndarray, recipe: Params) -> Any:
    """Return the leaf masks in `folder`, or the run's masks by default: bool (N, S, S), or None if there are none."""
    if folder:
        found = read_masks(folder, sources, recipe.image_size, recipe.fit)
        if not len(found):
            raise LeafError(f"--masks {folder}: no mask has the file name of an image. Name the masks like the images.")
        return found
    of_run = store.read_array(root / "data/ingested/masks.npy")
    return np.array(of_run[rows]) if len(of_run) else None


def _detector_results(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the full result of the pipeline's detector, and only the AUROC of the other detectors."""
    others = {key: asdict(one.auroc) for key, one in flags.items() if key != "mahalanobis"}
    return {**asdict(flags["mahalanobis"]), "others": others}


def _without_leaf(
    recipe: Params, images: np.ndarray, chosen: pd.DataFrame, masks: np.ndarray, features: np.ndarray
) -> dict[str, Any]:
    """Score the detectors on images whose leaf is removed by inpainting."""
    from leaf.train.augmentation import without_leaf
    from leaf.train.segmentation import FULL

    rows, labels, groups = (chosen[key].to_numpy() for key in ("image", "label", "group"))
    share = masks.mean(axis=(1, 2))
    usable = np.flatnonzero((share > 0) & (share < FULL))
    if len(usable) < FEW:
        return {}
    bare = np.stack([without_leaf(images[rows[place]], masks[place]) for place in usable])
    new, _ = features_of(recipe, bare, np.arange(len(bare)))
    return {
        **_detector_results(domain_shift.score_detectors(features, labels, groups, new, groups[usable])),
        "images": len(usable),
    }


def _shared(run: Run) -> dict[str, int]:
    """Count the photos, pairs of crops and groups that span several user-defined splits."""
    given = run.index["split"].fillna("").to_numpy(str)
    pairs, kind = run.pairs[["image", "other"]].to_numpy(int).reshape(-1, 2), run.pairs["kind"].to_numpy(str)
    splits = given[pairs]
    crops = (kind == "aligned") & (splits != "").all(axis=1) & (splits[:, 0] != splits[:, 1])

    def torn(parts: np.ndarray) -> int:
        return int((pd.Series(given[given != ""]).groupby(parts[given != ""]).nunique() > 1).sum())

    return {
        "images": int((given != "").sum()),
        "photographs": torn(components(len(given), pairs[kind != "aligned"])),
        "crops": int(crops.sum()),
        "groups": torn(run.decisions.sort_values("image")["group"].to_numpy()),
        "all_crops": int((kind == "aligned").sum()),
    }


def labels_without(run: Run, chosen: pd.DataFrame, values: Sequence[str]) -> dict[str, tuple[np.ndarray, pd.DataFrame]]:
    """Return the test mask, bool (N,), and the label table for retraining, for each of the `values` to leave out.

    The images with the value are the test split. The run's other validation images stay in validation.
    """
    split = chosen["image"].map(run.splits.set_index("image")["split"])
    found = {}
    for value, train, test in domain_shift.leave_out(chosen["label"].to_numpy(), chosen["group"].to_numpy(), values):
        given = pd.DataFrame(
            {
                "file": chosen["source"],
                "label": [run.classes[label] for label in chosen["label"]],
                "group": chosen["group"],
                "split": np.where(test, "test", np.where(split == "validation", "validation", "train")),
            }
        )
        found[value] = test, given[train | test]
    return found


def correctness(predictions: pd.DataFrame, chosen: pd.DataFrame) -> np.ndarray:
    """Return, as float (N,), 1 for each image of `chosen` predicted correctly, 0 if not, and nan if not in test."""
    tested = predictions[predictions["split"].eq("test")]
    right = tested["predicted"].eq(tested["label"]).set_axis(tested["source"].astype(str))
    return chosen["source"].astype(str).map(right).astype(float).to_numpy()


def _retrain_for_each(
    column: str, values: Sequence[str], run: Run, chosen: pd.DataFrame, trained: TrainWithout
) -> dict[str, Transport]:
    """Retrain without each value in turn, and compare with the finished run on the test images that have the value."""
    inside, groups, found = correctness(run.predictions, chosen), chosen["group"].to_numpy(), {}
    numbers = chosen["label"].to_numpy()
    for value, (test, labels) in labels_without(run, chosen, values).items():
        if (test & ~np.isnan(inside)).sum() >= FEW:
            classes = [name for name in run.classes if name in set(labels["label"])]
            outside = correctness(trained(f"{column}-{value}", labels, classes), chosen)
            known = test & ~np.isnan(outside)  # the retrained run's cleaning can remove copies
            found[value] = domain_shift.compare_accuracy(inside[known], outside[known], numbers[known], groups[known])
    return found


def _tested(run: Run) -> pd.DataFrame:
    """Return the test predictions, or the validation predictions if there is no test split."""
    name = "test" if run.predictions["split"].eq("test").any() else "validation"
    return run.predictions[run.predictions["split"].eq(name)]


def _network(root: Path, run: Run, chosen: pd.DataFrame, masks: np.ndarray | None) -> dict[str, Any]:
    """Return the accuracy on altered test images and the share of heatmap intensity in the center and on the leaf."""
    from leaf.evaluate.metrics import predict
    from leaf.models.prediction import compute_heatmaps, extract_features, predict_probabilities
    from leaf.models.saving import load_model

    model = load_model(root / "models/model.keras", sha256=run.training["model_sha256"])
    decision = store.read_json(root / "data/scored/decision.json")
    tested = chosen[chosen["image"].isin(_tested(run)["image"])].head(_NETWORK_IMAGES)
    rows, labels, groups = (tested[key].to_numpy() for key in ("image", "label", "group"))
    images = run.images[rows]
    leaf = masks[tested.index] if masks is not None else None
    if len(np.unique(labels)) < 2:
        return {}

    def predicted(shown: np.ndarray) -> np.ndarray:
        shares = predict_probabilities(model, shown, views=decision["views"], temperature=decision["temperature"])
        return predict(shares, decision["threshold"])

    everything = {"unchanged": (np.arange(len(images)), images), **shortcuts.alter_images(images, labels, leaf)}
    right = {name: predicted(changed) == labels[places] for name, (places, changed) in everything.items()}
    found: dict[str, Any] = {name: asdict(score(right[name], groups[everything[name][0]])) for name in right}
    found["frame_use"] = asdict(shortcuts.difference(right["frame_same"], right["frame"], groups))
    detector = ood.read(root / "data/scored/ood.npz", run.training["model_sha256"])
    corner = images[:, : images.shape[1] // 4, : images.shape[2] // 4]
    corners = np.array([cv2.resize(each, images.shape[2:0:-1], interpolation=cv2.INTER_CUBIC) for each in corner])
    for name, shown in (("flagged", images), ("corners_flagged", corners)):
        known = detector.in_distribution(extract_features(model, shown), shown)
        found[name] = asdict(score(~known, groups))
    maps = compute_heatmaps(model, images[:_HEATMAPS])
    edge = round(0.1 * maps.shape[1])
    total = np.maximum(maps.sum(axis=(1, 2)), 1e-9)
    found["evidence"] = {"centre": float((maps[:, edge:-edge, edge:-edge].sum(axis=(1, 2)) / total).mean())}
    found["evidence"]["centre_area"] = (1 - 2 * edge / maps.shape[1]) ** 2
    if leaf is not None and (masked := leaf[:_HEATMAPS].any(axis=(1, 2))).any():
        inside = leaf[:_HEATMAPS][masked]
        found["evidence"]["leaf"] = float(((maps[masked] * inside).sum(axis=(1, 2)) / total[masked]).mean())
        found["evidence"]["leaf_area"] = float(inside.mean())
    return found


def _leaks_and_labels(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Return a linear head's accuracy, how much splitting groups between folds inflates it, and label issue counts."""
    shares = held_out("held", features, labels, groups)
    torn = cross_validated("held", features, labels, np.arange(len(labels)))
    whole = shares.argmax(axis=1) == labels
    leak = measure_leak(torn[None].astype(float), whole[None].astype(float), groups)
    issues, _ = suspicious(labels, shares / shares.sum(axis=1, keepdims=True))
    return {
        "linear": asdict(score(whole, groups)),
        "leak": {"accuracy": leak.difference, "low": leak.low, "high": leak.high, "sentence": leak.sentence},
        "labels": {"suspicious": len(issues), "images": len(labels)},
    }


def _run(name: str, settings: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Run an experiment in a temporary folder and return a function that reads its files."""
    if status := run_rows({name: settings}, force=True, temp=True):
        raise LeafError(f"{name}: dvc exp run failed with exit status {status}. See its output above.")
    return reader(name)


def run_into_folder(name: str, settings: Mapping[str, Any], folder: Path) -> None:
    """Run an experiment and copy the files that the audit needs to `folder`."""
    read = _run(name, settings)
    for path in _NEEDED:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(read(path))


def retrain_without(name: str, settings: Mapping[str, Any], folder: Path) -> TrainWithout:
    """Return a function that retrains without a value and returns the predictions.

    The experiment is called NAME-COLUMN-VALUE. Its label table is written to `folder`.
    """

    def trained(value: str, labels: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
        if not Path(str(settings["dataset"])).is_dir():
            raise LeafError("--train: dataset is not a folder. Set dataset to a folder of images.")
        if len(read_edited_table("data/pinned.csv", ())):
            raise LeafError("--train: requires an empty data/pinned.csv. Remove its rows.")
        own = re.sub(r"[^A-Za-z0-9]+", "-", f"{name}-{value}").strip("-")
        path = (folder / f"{own}.csv").resolve()
        store.write_table(labels, path)
        chosen = {**settings, "labels": str(path), "classes": classes, "folds": 0, "fold": 0, "ignore": []}
        return table(_run(own, chosen), PREDICTIONS)

    return trained
