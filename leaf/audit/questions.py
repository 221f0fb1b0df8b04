"""`leaf audit`: what else the model could be reading, and whether what it learned holds elsewhere."""

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
from leaf.audit.dates import iso_dates
from leaf.audit.domain_shift import FEW, Transport, backgrounds, compared, left_out, new_classes, noticed, transport
from leaf.audit.shortcuts import altered, difference, file_facts, find_shortcuts, in_files, in_pixels, score
from leaf.clean.groups import components
from leaf.dvc_experiments import run_rows
from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.baselines import cross_validated, held_out
from leaf.evaluate.label_issues import suspicious
from leaf.evaluate.leakage import features_of, measure_leak
from leaf.finished_run import Run, read_run
from leaf.ingest.label_tables import COLUMNS, KEPT, Finder
from leaf.ingest.masks import read_masks
from leaf.params import Params
from leaf.revisions import PREDICTIONS, reader, table

PAGE, METRICS = "reports/audit.html", "metrics/audit.json"
_NEEDED = (
    "params.yaml",
    "data/ingested/images.npy",
    "data/ingested/index.csv",
    "data/ingested/classes.csv",
    "data/ingested/masks.npy",
    "data/cleaned/decisions.csv",
    "data/cleaned/pairs.csv",
    "data/split/splits.csv",
    "data/scored/predictions.csv",
    "data/scored/scores.json",
    "data/scored/decision.json",
    "data/scored/ood.npz",
    "models/model.keras",
    "models/run.json",
    "models/history.csv",
)
_NETWORK_IMAGES = 2000  # of the test split, at most, are shown to the network changed
_HEATMAPS = 100


TrainWithout = Callable[[str, pd.DataFrame, list[str]], pd.DataFrame]
"""Trains without a value: from its name, the table of labels that says so and the classes; gives the predictions."""


def audit(
    root: Path, by: str | None = None, masks: Path | None = None, trained: TrainWithout | None = None
) -> dict[str, Any]:
    """Ask everything of the finished run under `root`; returns what metrics/audit.json holds, see docs/honest.md.

    `trained` trains anew without each value of a column, in place of the linear head. Raises LeafError where there is
    no finished run, no column `by`, or no mask in the folder `masks`.
    """
    recipe = params.load(root / params.PARAMS_FILE)
    run = read_run(root, params.flatten(recipe.model_dump()))
    chosen = run.index.merge(run.decisions[["image", "label", "kept", "group"]], on="image", suffixes=("_given", ""))
    given = chosen["group_given"].fillna("").astype(str)
    chosen = chosen[chosen["kept"].eq(1)].reset_index(drop=True)
    folder = Path(recipe.dataset) if Path(recipe.dataset).is_dir() else None
    sources = chosen["source"].astype(str).tolist()
    facts = file_facts(folder, sources, {str(key): chosen[key].tolist() for key in chosen})
    facts["date"], dates = iso_dates(facts["date"])
    for key in ("camera", "date"):  # of the table, or of the files
        chosen = chosen.assign(**{key: facts[key]}) if any(facts[key]) else chosen.drop(columns=key, errors="ignore")
    columns = _columns(chosen) if by is None else {by: _column(by, chosen, recipe)}
    rows, labels, groups = (chosen[key].to_numpy() for key in ("image", "label", "group"))
    shapes = _masks(root, masks, sources, rows, recipe)

    print(f"{len(chosen)} images in {len(np.unique(groups))} groups: what tells the label?", file=sys.stderr)
    pixels = in_pixels(run.images, rows, shapes)
    shortcuts = find_shortcuts(pixels | in_files(facts, sources), labels, groups)
    largest = labels == np.bincount(labels).argmax()
    found: dict[str, Any] = {
        "images": len(chosen),
        "groups": len(np.unique(groups)),
        "shortcuts": {"majority": asdict(score(largest, groups))}
        | {
            name: {
                **asdict(one.score),
                "majority": one.majority.accuracy,
                "images": one.images,
                "p": one.p,
                "alarm": one.alarm,
            }
            for name, one in shortcuts.items()
        },
        "model": _model(run, groups, rows),
    }
    print("does the network use it?", file=sys.stderr)
    found["network"] = _network(root, run, chosen, shapes)
    features, found["features"] = features_of(recipe, run.images, rows)
    print("does it hold elsewhere?", file=sys.stderr)
    found["guessed"] = not columns
    found["dates"] = dates
    found["not_said"] = [name for name in KEPT if name not in chosen]
    found["trained"] = trained is not None
    columns = columns or {"background": backgrounds(pixels["frame"])}
    found["transport"] = {
        name: {
            value: asdict(one)
            for value, one in (
                _trained_anew(name, values, run, chosen, trained)
                if trained
                else transport(features, labels, groups, values)
            ).items()
        }
        for name, values in columns.items()
    }
    found["new_class"] = {
        name: _by_flag(flags) for name, flags in new_classes(features, labels, groups, run.classes).items()
    }
    if shapes is not None:
        found["without_leaf"] = _without_leaf(recipe, run.images, chosen, shapes, features)
    found["given_splits"] = _shared(run)
    found |= _leaks_and_labels(features, labels, groups)
    found["groups_given"] = {"without": int(given.eq("").sum()), "of": len(given)}
    found["conflicts"] = int(run.decisions.groupby("group")["label"].nunique().gt(1).sum())
    return found


def _columns(chosen: pd.DataFrame) -> dict[str, list[str]]:
    """The columns `KEPT` that part the images; of dates the months, or the days where all are of one month."""
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
    """What the column `name` says of each image: one that ingest kept, or any of the tables that name the files."""
    if name in chosen:
        return _columns(chosen).get(name) or chosen[name].astype(str).tolist()
    seen = set(KEPT) & set(chosen)
    tables = [Path(recipe.labels), *sorted(Path(recipe.dataset).glob("*.[ct]sv"))]
    for path in filter(Path.is_file, tables):
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
        names = [str(column) for column in table.columns]
        seen |= set(names)
        files = [column for column in names if column.strip().lower() in COLUMNS["file"].split()]
        if files and name in names:
            finder = Finder(Path(recipe.dataset), chosen["source"].tolist())
            said = {
                file: value for cell, value in table[[files[0], name]].to_numpy().tolist() for file in finder.find(cell)
            }
            return [said.get(source, "") for source in chosen["source"]]
    missing = "no such column, and no photograph's EXIF says it" if name in ("camera", "date") else "no such column"
    raise LeafError(f"--by {name}: {missing}; valid: {', '.join(sorted(seen)) or 'none, no table names the files'}")


def _masks(root: Path, folder: Path | None, sources: Sequence[str], rows: np.ndarray, recipe: Params) -> Any:
    """Where the leaf is, bool (N, S, S), by the masks in `folder`, else those of the run; None where it has none."""
    if folder:
        found = read_masks(folder, sources, recipe.image_size, recipe.fit)
        if not len(found):
            raise LeafError(f"--masks {folder}: is empty; valid: a folder of masks")
        return found
    of_run = store.read_array(root / "data/ingested/masks.npy")
    return np.array(of_run[rows]) if len(of_run) else None


def _by_flag(flags: dict[str, Any]) -> dict[str, Any]:
    """What the product's flag says, and how well the others part the new from the known."""
    others = {key: asdict(one.auroc) for key, one in flags.items() if key != "mahalanobis"}
    return {**asdict(flags["mahalanobis"]), "others": others}


def _without_leaf(
    recipe: Params, images: np.ndarray, chosen: pd.DataFrame, masks: np.ndarray, features: np.ndarray
) -> dict[str, Any]:
    """What the flags say of the photographs with their leaf painted over: backgrounds alone."""
    from leaf.train.augmentation import without_leaf
    from leaf.train.dataset import FULL

    rows, labels, groups = (chosen[key].to_numpy() for key in ("image", "label", "group"))
    share = masks.mean(axis=(1, 2))
    asked = np.flatnonzero((share > 0) & (share < FULL))
    if len(asked) < FEW:
        return {}
    bare = np.stack([without_leaf(images[rows[place]], masks[place]) for place in asked])
    new, _ = features_of(recipe, bare, np.arange(len(bare)))
    return {**_by_flag(noticed(features, labels, groups, new, groups[asked])), "images": len(asked)}


def _shared(run: Run) -> dict[str, int]:
    """How many photographs (copies are one), crops of one and groups stand in more than one of the given splits."""
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
    """For each value of a column, what to judge of the images `chosen`, bool (N,), and the table of labels to train by.

    The table splits them: the value is test, the finished run's validation images stay that.
    """
    split = chosen["image"].map(run.splits.set_index("image")["split"])
    found = {}
    for value, learn, judged in left_out(chosen["label"].to_numpy(), chosen["group"].to_numpy(), values):
        given = pd.DataFrame(
            {
                "file": chosen["source"],
                "label": [run.classes[label] for label in chosen["label"]],
                "group": chosen["group"],
                "split": np.where(judged, "test", np.where(split == "validation", "validation", "train")),
            }
        )
        found[value] = judged, given[learn | judged]
    return found


def right_of(predictions: pd.DataFrame, chosen: pd.DataFrame) -> np.ndarray:
    """Which images a run that tested them was right in: 1, 0, or nan where it did not test one, float (N,)."""
    tested = predictions[predictions["split"].eq("test")]
    right = tested["predicted"].eq(tested["label"]).set_axis(tested["source"].astype(str))
    return chosen["source"].astype(str).map(right).astype(float).to_numpy()


def _trained_anew(
    column: str, values: Sequence[str], run: Run, chosen: pd.DataFrame, trained: TrainWithout
) -> dict[str, Transport]:
    """Train without each value and judge it; beside it the finished run, on those that it has not learned from."""
    inside, groups, found = right_of(run.predictions, chosen), chosen["group"].to_numpy(), {}
    for value, (judged, labels) in labels_without(run, chosen, values).items():
        if (judged & ~np.isnan(inside)).sum() >= FEW:
            classes = [name for name in run.classes if name in set(labels["label"])]
            outside = right_of(trained(f"{column}-{value}", labels, classes), chosen)
            known = judged & ~np.isnan(outside)  # all but what cleaning finds copied elsewhere
            found[value] = compared(inside[known], outside[known], groups[known])
    return found


def _model(run: Run, groups: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """The finished network on the images that it was judged by."""
    tested = _tested(run)
    of = pd.Series(groups, rows)[tested["image"]].to_numpy()
    return asdict(score(tested["predicted"].eq(tested["label"]).to_numpy(), of))


def _tested(run: Run) -> pd.DataFrame:
    name = "test" if run.predictions["split"].eq("test").any() else "validation"
    return run.predictions[run.predictions["split"].eq(name)]


def _network(root: Path, run: Run, chosen: pd.DataFrame, masks: np.ndarray | None) -> dict[str, Any]:
    """What the network says when a part of the picture is another's, and where its heat maps lie."""
    from leaf.evaluate.metrics import predict
    from leaf.models.prediction import compute_heatmaps, extract_features, predict_probabilities
    from leaf.models.saving import load_model

    model = load_model(root / "models/model.keras", sha256=run.training["model_sha256"])
    decision = store.read_json(root / "data/scored/decision.json")
    tested = chosen[chosen["image"].isin(_tested(run)["image"])].head(_NETWORK_IMAGES)
    images, labels, groups = (
        run.images[tested["image"].to_numpy()],
        *(tested[key].to_numpy() for key in ("label", "group")),
    )
    leaf = masks[tested.index] if masks is not None else None
    if len(np.unique(labels)) < 2:
        return {}

    def said(pictures: np.ndarray) -> np.ndarray:
        shares = predict_probabilities(model, pictures, views=decision["views"], temperature=decision["temperature"])
        return predict(shares, decision["threshold"])

    found: dict[str, Any] = {"unchanged": asdict(score(said(images) == labels, groups))}
    right = {}
    for name, (places, pictures) in altered(images, labels, leaf).items():
        right[name] = said(pictures) == labels[places]
        found[name] = asdict(score(right[name], groups[places]))
    found["frame_use"] = asdict(difference(right["frame_same"], right["frame"], groups))
    detector = ood.read(root / "data/scored/ood.npz", run.training["model_sha256"])
    corner = images[:, : images.shape[1] // 4, : images.shape[2] // 4]
    corners = np.array([cv2.resize(each, images.shape[2:0:-1], interpolation=cv2.INTER_CUBIC) for each in corner])
    for name, pictures in (("flagged", images), ("corners_flagged", corners)):
        known = detector.in_distribution(extract_features(model, pictures), pictures)
        found[name] = asdict(score(~known, groups))
    maps = compute_heatmaps(model, images[:_HEATMAPS])
    edge = round(0.1 * maps.shape[1])
    total = np.maximum(maps.sum(axis=(1, 2)), 1e-9)
    found["evidence"] = {"centre": float((maps[:, edge:-edge, edge:-edge].sum(axis=(1, 2)) / total).mean())}
    found["evidence"]["centre_area"] = (1 - 2 * edge / maps.shape[1]) ** 2
    if leaf is not None and (asked := leaf[:_HEATMAPS].any(axis=(1, 2))).any():
        inside = leaf[:_HEATMAPS][asked]
        found["evidence"]["leaf"] = float(((maps[asked] * inside).sum(axis=(1, 2)) / total[asked]).mean())
        found["evidence"]["leaf_area"] = float(inside.mean())
    return found


def _leaks_and_labels(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """What torn groups would be worth to a linear head, and labels that one doubts which did not learn from them."""
    shares = held_out("held", features, labels, groups)
    torn = cross_validated("held", features, labels, np.arange(len(labels)))
    whole = shares.argmax(axis=1) == labels
    leak = measure_leak(torn[None].astype(float), whole[None].astype(float), groups)
    doubtful, _ = suspicious(labels, shares / shares.sum(axis=1, keepdims=True))
    return {
        "linear": asdict(score(whole, groups)),
        "leak": {"accuracy": leak.difference, "low": leak.low, "high": leak.high, "sentence": leak.sentence},
        "labels": {"suspicious": len(doubtful), "images": len(labels)},
    }


def _run(name: str, settings: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Run an experiment in a temporary folder and return a reader of its files."""
    if status := run_rows({name: settings}, force=True, temp=True):
        raise LeafError(f"{name}: dvc exp run failed with exit status {status}; its output is above")
    return reader(name)


def run_into_folder(name: str, settings: Mapping[str, Any], folder: Path) -> None:
    """Run the experiment `name` with `settings` and write its files to `folder`."""
    read = _run(name, settings)
    for path in _NEEDED:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(read(path))


def retrain_without(name: str, settings: Mapping[str, Any], folder: Path) -> TrainWithout:
    """Return a function that trains `settings` as NAME-COLUMN-VALUE, with its label table in `folder`."""

    def trained(value: str, labels: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
        if not Path(str(settings["dataset"])).is_dir():
            raise LeafError("--train: a table of labels goes with a folder of photographs, an .npz holds its own")
        if len(store.read_table("data/pinned.csv")):
            raise LeafError("--train: data/pinned.csv pins a split; valid: the table without rows")
        own = re.sub(r"[^A-Za-z0-9]+", "-", f"{name}-{value}").strip("-")
        path = (folder / f"{own}.csv").resolve()
        store.write_table(labels, path)
        chosen = {**settings, "labels": str(path), "classes": classes, "folds": 0, "fold": 0, "ignore": []}
        return table(_run(own, chosen), PREDICTIONS)

    return trained
