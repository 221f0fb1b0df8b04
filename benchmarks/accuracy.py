"""Compare recipes on the same splits of real images, over seeds or folds.

    python benchmarks/accuracy.py --dataset LEAVES.npz --weights WEIGHTS_OF_MOBILENET_V2.h5

By default, two recipes start from random weights: the default parameters and the row `plain`. Three use MobileNetV2's
ImageNet weights: `report_mobilenet_v2`, `transfer`, and logistic regression on the features of the frozen network.
Pairs of recipes are compared as in `leaf compare`. `--folds N` tests every image once, with N training runs per recipe
and seed.

`--recipes` accepts any rows of experiments.yaml. Each is compared with the first one of the same kind (random or
pretrained weights). ROW+KEY=VALUE changes a setting of a row. As a data set, FOLDER@NAME selects the images in FOLDER
whose names start with NAME. The predictions for every image are written to benchmarks/predictions.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from runs import ROOT, figures, keep_predictions, provenance, read_split_images, run_all, scored

from leaf.evaluate import BASELINES
from leaf.evaluate.calibration import log_loss
from leaf.evaluate.linear_head import linear_head
from leaf.evaluate.metrics import predict
from leaf.evaluate.model_comparison import Comparison, adjust, compare
from leaf.evaluate.statistics import proportion_interval
from leaf.experiments import parse_settings, read_experiments
from leaf.store import sha256

RESULTS = Path(__file__).parent / "accuracy.json"
RECIPES = ("plain", "default", "report_mobilenet_v2", "transfer")
LOGISTIC = "logistic"


def part(text: str, work: Path) -> Path:
    """Return the path of the data set `text`. For FOLDER@NAME, create a folder with links to the selected images."""
    folder, at, start = text.partition("@")
    if not at:
        return Path(folder).resolve()
    out = work.resolve() / f"{Path(folder).name}-{start}"
    shutil.rmtree(out, ignore_errors=True)
    table = pd.read_csv(Path(folder) / "metadata.csv", dtype=str, keep_default_na=False)
    table = table[[Path(file).name.startswith(start) for file in table["file"]]]
    for file in table["file"]:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(Path(folder, file).resolve(), out / file)
    table.to_csv(out / "metadata.csv", index=False)
    return out


def logistic(folder: Path, weights: Path, views: int) -> pd.DataFrame:
    """Return a table like `scored`, with the predictions of logistic regression on the frozen network's features.

    C is selected in grouped folds of the training images. Probabilities are averaged over `views` views, as for the
    network.
    """
    from leaf.models.build import build_model
    from leaf.models.prediction import extract_features
    from leaf.models.tta import tta_view

    images, decisions, splits = read_split_images(folder)
    train = splits["train"]
    labels, groups = (decisions.loc[train, name].to_numpy() for name in ("label", "group"))
    test = scored(folder)
    model = build_model("mobilenet_v2", images.shape[1], weights=str(weights), weights_sha256=sha256(weights))
    head = linear_head(extract_features(model, images[train], 64), labels, groups)
    judged = images[test["image"].to_numpy()].astype(np.float32)
    seen = (tta_view(judged, number) for number in range(views))
    found = [head.predict_proba(extract_features(model, view, 64)) for view in seen]
    probabilities = np.mean(found, axis=0)
    return test.assign(predicted=predict(probabilities, 0.5), probabilities=list(probabilities))


def recipes_of(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the settings of each recipe. Pretrained recipes use the weights file."""
    rows = read_experiments(ROOT / "experiments.yaml")
    changes = parse_settings(options.set)
    recipes = {}
    for name in options.recipes:
        row, *own = name.split("+")
        recipes[name] = {**rows[row].set, **changes, **parse_settings(own)}
    for recipe in recipes.values():
        if pretrained(recipe):
            recipe |= {"weights": str(options.weights.resolve()), "weights_sha256": sha256(options.weights)}
    return recipes


def pretrained(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe starts from ImageNet weights."""
    return "weights" in recipe


def run_recipes(
    dataset: Path, recipes: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> dict[str, list[list[Path]]]:
    """Run every recipe with every seed in every fold; return the runs of each recipe by seed and fold."""
    parts: list[dict[str, Any]] = [{"folds": options.folds, "fold": fold} for fold in range(options.folds)] or [{}]
    jobs = [
        {**recipe, **each, "dataset": str(dataset), "seed": seed}
        for recipe in recipes.values()
        for seed in options.seeds
        for each in parts
    ]
    finished = iter(run_all(jobs, options.work, options.jobs))
    return {name: [[next(finished) for _ in parts] for _ in options.seeds] for name in recipes}


def tested(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join the predictions of all folds of one recipe and seed, sorted by image."""
    return pd.concat(tables).sort_values("image", ignore_index=True)


def right(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """Return which predictions are correct, bool (seeds, images)."""
    return np.stack([table["predicted"].eq(table["label"]).to_numpy() for table in tables])


def verdicts(tables: Mapping[str, Sequence[pd.DataFrame]], kinds: Sequence[Sequence[str]]) -> list[Comparison]:
    """Compare each recipe with the first of its kind, and the recipe from `peer_of` with logistic regression.

    The comparisons are adjusted by Holm's method.
    """
    pairs = [(names[0], name) for names in kinds for name in names[1:]]
    if LOGISTIC in tables:
        pairs.append((LOGISTIC, str(peer_of(tables))))
    groups = next(iter(tables.values()))[0]["group"].to_numpy()
    return adjust([compare((one, other), right(tables[one]), right(tables[other]), groups) for one, other in pairs])


def peer_of(names: Iterable[str]) -> str | None:
    """Return the recipe to compare with logistic regression: the last whose name starts with `transfer`, or None."""
    return next((name for name in reversed(list(names)) if name.startswith("transfer")), None)


def two_seeds(name: str, tables: Sequence[pd.DataFrame], seeds: Sequence[int]) -> str | None:
    """Return the comparison of a recipe's first and last seed, or None for a single seed."""
    if len(seeds) == 1:
        return None
    names = (f"{name} with seed {seeds[0]}", f"{name} with seed {seeds[-1]}")
    return compare(names, right(tables[:1]), right(tables[-1:]), tables[0]["group"].to_numpy()).sentence


def measure(dataset: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run every recipe on one data set and return accuracies, log losses and comparisons."""
    recipes = recipes_of(options)
    folders = run_recipes(dataset, recipes, options)
    tables = {name: [tested(scored(one) for one in seed) for seed in each] for name, each in folders.items()}
    if peer := peer_of(recipes):
        views = recipes[peer].get("views", 1)
        tables[LOGISTIC] = [tested(logistic(one, options.weights, views) for one in folders[peer][0])]
    kinds = [[name for name in recipes if pretrained(recipes[name]) is kind] for kind in (False, True)]
    first = options.recipes[0]
    groups = tables[first][0]["group"].to_numpy()
    seeds = {
        f"{name}, seed {seed}": table
        for name, each in tables.items()
        for seed, table in zip(options.seeds, each, strict=False)  # logistic regression has no seed
    }
    kept = f"{dataset.stem} {options.folds} folds {' '.join(options.set)} {' '.join(recipes)}"
    return {
        "dataset": dataset.name,
        "set": parse_settings(options.set),
        "folds": options.folds,
        "seeds": options.seeds,
        "images": len(tables[first][0]),
        "groups": len(np.unique(groups)),
        "baselines": {
            name: _mean(figures(one)["baseline"][f"{name}_accuracy"] for one in folders[first][0]) for name in BASELINES
        },
        "recipes": {
            name: {
                "accuracy": [_mean(row) for row in right(each)],
                "interval": [round(limit, 4) for limit in proportion_interval(right(each), groups)],
                "log_loss": [
                    _mean([log_loss(table["label"].to_numpy(), np.stack(table["probabilities"]))]) for table in each
                ],
                "validation": [
                    _mean(figures(one)["validation"]["accuracy"] for one in seed) for seed in folders.get(name, [])
                ],
            }
            for name, each in tables.items()
        },
        "predictions": keep_predictions(kept, seeds) if options.results.parent == RESULTS.parent else "",
        "kinds": [names for names in kinds if names],
        "verdicts": [one.sentence for one in verdicts(tables, kinds)],
        "two_seeds": two_seeds(first, tables[first], options.seeds),
        **provenance(),
    }


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def keep(result: dict[str, Any], path: Path) -> None:
    """Write a result to the file, replacing any result with the same data set, settings, folds and recipes."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def what(each: dict[str, Any]) -> list[Any]:
        return [each["dataset"], each["set"], each["folds"], list(each["recipes"])]

    places = [number for number, each in enumerate(results) if what(each) == what(result)]
    if places:
        results[places[0]] = result
    else:
        results.append(result)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def print_result(result: Mapping[str, Any]) -> None:
    """Print the comparisons, and the accuracies with their intervals."""
    print(f"{result['dataset']}: {result['images']} test images, seeds {result['seeds']}, folds {result['folds']}")
    for name, each in result["recipes"].items():
        accuracies = ", ".join(f"{value:.3f}" for value in each["accuracy"])
        low, high = each["interval"]
        mean, loss = np.mean(each["accuracy"]), np.mean(each["log_loss"])
        print(f"  {name:22} {mean:.3f} ({low:.3f} to {high:.3f}) of {accuracies}, loss {loss:.3f}")
    print(*(f"  {sentence}" for sentence in [*result["verdicts"], result["two_seeds"]] if sentence), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", action="append", required=True, help="an .npz file, a folder, or FOLDER@NAME")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2, for pretrained rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--folds", type=int, default=0, help="number of folds; every image is tested once")
    parser.add_argument(
        "--recipes", nargs="+", default=list(RECIPES), metavar="ROW", help="rows of experiments.yaml, or ROW+KEY=VALUE"
    )
    parser.add_argument("--jobs", type=int, default=2, help="parallel training runs, one core each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of every recipe")
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    rows = read_experiments(ROOT / "experiments.yaml")
    known = {name: rows.get(name.partition("+")[0]) for name in options.recipes}
    if unknown := [name for name, row in known.items() if not row]:
        parser.error(f"--recipes: {', '.join(unknown)}: unknown. Valid: {', '.join(rows)}")
    if not options.weights and (wanting := [name for name, row in known.items() if row and pretrained(row.set)]):
        parser.error(f"--weights: required by {', '.join(wanting)}. Pass the file of MobileNetV2's ImageNet weights")
    options.work.mkdir(parents=True, exist_ok=True)
    for text in options.dataset:
        result = measure(part(text, options.work), options)
        keep(result, options.results)
        print_result(result)


if __name__ == "__main__":
    main()
