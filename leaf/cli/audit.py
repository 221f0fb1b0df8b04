"""`leaf audit`: what else the model could be reading, and whether what it learned holds elsewhere."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pandas as pd
import typer

from leaf import params, store
from leaf.audit.shortcuts import altered, difference, find_shortcuts, in_files, in_pixels, score
from leaf.audit.transport import backgrounds, new_classes, transport
from leaf.cli.labels import suspicious
from leaf.cli.leak import features_of, measure_leak
from leaf.cli.run import run_rows
from leaf.errors import LeafError
from leaf.experiments import experiment, parse_settings
from leaf.params import Params
from leaf.reading.tables import COLUMNS, KEPT, Finder
from leaf.report.audit import certificate
from leaf.report.run import Run, read_run
from leaf.revisions import reader
from leaf.scoring.baselines import cross_validated, held_out
from leaf.serving import ood

app = typer.Typer()

PAGE, METRICS = "reports/audit.html", "metrics/audit.json"
_NEEDED = (
    "params.yaml",
    "data/ingested/images.npy",
    "data/ingested/index.csv",
    "data/ingested/classes.csv",
    "data/cleaned/decisions.csv",
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


def audit(root: Path, by: str | None = None, masks: Path | None = None) -> dict[str, Any]:
    """Ask everything of the finished run under `root`; returns what metrics/audit.json holds, see docs/honest.md.

    Raises LeafError where there is no finished run, no column `by`, or no mask in the folder `masks`.
    """
    recipe = params.load(root / params.PARAMS_FILE)
    run = read_run(root, params.flatten(recipe.model_dump()))
    chosen = run.index.merge(run.decisions[["image", "label", "kept", "group"]], on="image", suffixes=("_given", ""))
    given = chosen["group_given"].fillna("").astype(str)
    chosen = chosen[chosen["kept"].eq(1)].reset_index(drop=True)
    columns = _columns(chosen) if by is None else {by: _column(by, chosen, recipe)}
    rows, labels, groups = (chosen[key].to_numpy() for key in ("image", "label", "group"))
    shapes = _masks(masks, chosen["source"].tolist(), run.images.shape[1]) if masks else None

    typer.echo(f"{len(chosen)} images in {len(np.unique(groups))} groups: what tells the label?", err=True)
    pixels = in_pixels(run.images, rows, shapes)
    folder = Path(recipe.dataset) if Path(recipe.dataset).is_dir() else None
    described = pixels | in_files(folder, chosen["source"].tolist(), {str(key): chosen[key].tolist() for key in chosen})
    shortcuts = find_shortcuts(described, labels, groups)
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
    typer.echo("does the network use it?", err=True)
    found["network"] = _network(root, run, chosen, shapes)
    features, found["features"] = features_of(recipe, run.images, rows)
    typer.echo("does it hold elsewhere?", err=True)
    found["guessed"] = not columns
    columns = columns or {"background": backgrounds(pixels["frame"])}
    found["transport"] = {
        name: {value: asdict(one) for value, one in transport(features, labels, groups, values).items()}
        for name, values in columns.items()
    }
    found["new_class"] = {
        name: asdict(flags["mahalanobis"])
        | {"others": {key: asdict(one.auroc) for key, one in flags.items() if key != "mahalanobis"}}
        for name, flags in new_classes(features, labels, groups, run.classes).items()
    }
    found |= _leaks_and_labels(features, labels, groups)
    found["groups_given"] = {"without": int(given.eq("").sum()), "of": len(given)}
    found["conflicts"] = int(run.decisions.groupby("group")["label"].nunique().gt(1).sum())
    return found


def _columns(chosen: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of the data set's own table that part the images; of a date the month."""
    found = {}
    for name in KEPT:
        if name in chosen:
            values = chosen[name].fillna("").astype(str)
            found[name] = (values.str[:7] if name == "date" else values).tolist()
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
    raise LeafError(
        f"--by {name}: no such column; valid: {', '.join(sorted(seen)) or 'none, no table names the files'}"
    )


def _masks(folder: Path, sources: Sequence[str], size: int) -> np.ndarray:
    """Which pixels are leaf, bool (N, S, S), by the PNGs in `folder` with the names of the photographs."""
    from leaf.reading.decode import decode

    found = np.zeros((len(sources), size, size), bool)
    for place, source in enumerate(sources):
        path = (folder / source).with_suffix(".png")
        if path.is_file():
            found[place] = decode(path.read_bytes(), size).pixels[..., 0] > 127
    if not found.any():
        raise LeafError(f"--masks {folder}: no mask such as {Path(sources[0]).with_suffix('.png')}")
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
    from leaf import networks
    from leaf.scoring.metrics import predict

    model = networks.load(root / "models/model.keras", sha256=run.training["model_sha256"])
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
        shares = networks.probabilities(model, pictures, views=decision["views"], temperature=decision["temperature"])
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
        known = detector.in_distribution(networks.features(model, pictures), pictures)
        found[name] = asdict(score(~known, groups))
    maps = networks.heatmaps(model, images[:_HEATMAPS])
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


def _finished(row: str | None, settings: Sequence[str], folder: Path) -> None:
    """Run `row` with `settings` as the experiment audit-ROW, in a folder of its own; put its files into `folder`."""
    name = f"audit-{row or 'default'}"
    chosen = {**(experiment(row).set if row else {}), **parse_settings(settings)}
    if status := run_rows({name: chosen}, force=True, temp=True):
        raise typer.Exit(status)
    read = reader(name)
    for path in _NEEDED:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(read(path))


@app.command(epilog="Examples: `leaf audit`   `leaf audit --by site`   `leaf audit probe -S dataset=/home/me/leaves`")
def command(
    row: Annotated[
        str | None, typer.Argument(help="run this row of experiments.yaml first  [the finished run]")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value, over the row's")] = None,
    by: Annotated[
        str | None, typer.Option(help="leave out each value of this column  [site, crop, camera, date]")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="folder with a PNG for each photograph, white on the leaf")] = None,
) -> None:
    """Ask what else the model could be reading: border, file, camera, background; another site, crop, or new kind."""
    with tempfile.TemporaryDirectory(prefix="leaf-audit-") as folder:
        root = Path(folder) if row or settings else Path()
        if row or settings:
            _finished(row, settings or [], root)
        found = audit(root, by, masks)
    store.write_json(found, METRICS)
    html, lines = certificate(found)
    with store.replacing(PAGE) as partial:
        partial.write_text(html, encoding="utf-8")
    typer.echo("\n".join([*lines, f"{PAGE}: one page; {METRICS}: the same as numbers"]))
