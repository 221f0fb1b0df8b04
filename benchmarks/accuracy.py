"""The recommended recipes beside the plain one and the report's, over seeds, on the same splits of real photographs.

python benchmarks/accuracy.py --dataset LEAVES.npz --weights WEIGHTS_OF_MOBILENET_V2.h5

From random weights: the default parameters against the row `plain`. With MobileNetV2's ImageNet weights: the row
`transfer` against logistic regression on the frozen network's features, and against the report's recipe on the same
backbone. Of each pair it says what `leaf compare` says: the difference over all seeds, its interval, and whether it is
real. With several data sets it repeats this on each: a recipe that was chosen on one has to hold on the others.
FOLDER@NAME is the part of a folder's images whose files' names begin with NAME.
"""

import argparse
import csv
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from runs import ROOT, figures, run_all, scored

from leaf.experiments import read_experiments
from leaf.scoring.compare import compare, holm
from leaf.store import read_array, read_table, sha256

RESULTS = Path(__file__).parent / "accuracy.json"
PAIRS = [
    ("plain", "default"),
    ("report_mobilenet_v2", "transfer"),
    ("logistic", "transfer"),
]
RECIPES = ("default", "plain", "transfer", "report_mobilenet_v2")


def part(text: str, work: Path) -> Path:
    """The data set of that name; of FOLDER@NAME the images of that name alone, linked into a folder of their own."""
    folder, at, start = text.partition("@")
    if not at:
        return Path(folder).resolve()
    out = work.resolve() / f"{Path(folder).name}-{start}"
    shutil.rmtree(out, ignore_errors=True)
    with (Path(folder) / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if Path(row["file"]).name.startswith(start)]
    for row in rows:
        (out / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        os.link(Path(folder, row["file"]).resolve(), out / row["file"])
    with (out / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return out


def logistic(folder: Path, weights: Path) -> np.ndarray:
    """Which test images of a run's split (in order of `scored`) logistic regression on frozen features gets right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from leaf import networks

    images = read_array(folder / "data/ingested/images.npy")
    labels = read_table(folder / "data/cleaned/decisions.csv", ["image", "label"]).set_index("image")["label"]
    splits = read_table(folder / "data/split/splits.csv", ["image", "split"], text=["split"]).set_index("image")
    train = splits.index[splits["split"] == "train"].to_numpy()
    test = scored(folder)["image"].to_numpy()
    learnt, judged = (
        networks.frozen_features(images, rows, "mobilenet_v2", str(weights), sha256(weights)) for rows in (train, test)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(learnt, labels.loc[train])
    return np.asarray(model.predict(judged) == labels.loc[test].to_numpy())


def right(folder: Path) -> np.ndarray:
    """Which test images a finished run gets right."""
    table = scored(folder)
    return table["predicted"].eq(table["label"]).to_numpy()


def measure(dataset: Path, weights: Path | None, seeds: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Run every recipe with every seed on one data set; the accuracies and the comparisons."""
    rows = {name: row.set for name, row in read_experiments(ROOT / "experiments.yaml").items()}
    given = {"weights": str(weights.resolve()), "weights_sha256": sha256(weights)} if weights else {}
    recipes: dict[str, Mapping[str, Any]] = {}
    for name in options.recipes:
        pretrained = "weights" in rows[name]
        if weights or not pretrained:
            recipes[name] = {**rows[name], **(given if pretrained else {}), **options.changes}
    jobs = [(name, {**each, "dataset": str(dataset), "seed": seed}) for name, each in recipes.items() for seed in seeds]
    folders: dict[str, list[Path]] = {name: [] for name in recipes}
    for (name, _), folder in zip(jobs, run_all([values for _, values in jobs], options.work), strict=True):
        folders[name].append(folder)
    correct = {name: np.stack([right(folder) for folder in each]) for name, each in folders.items()}
    groups = {name: scored(each[0])["group"].to_numpy() for name, each in folders.items()}
    if "transfer" in folders and weights:
        correct["logistic"] = logistic(folders["transfer"][0], weights)[None]
        groups["logistic"] = groups["transfer"]
    pairs = [pair for pair in PAIRS if pair[0] in correct and pair[1] in correct]
    verdicts = holm([compare(pair, correct[pair[0]], correct[pair[1]], groups[pair[1]]) for pair in pairs])
    first = next(iter(recipes))
    two = [correct[first][[0]], correct[first][[-1]]]
    same = compare((f"seed {seeds[0]}", f"seed {seeds[-1]}"), *two, groups[first])
    return {
        "dataset": " ".join([dataset.name, *(f"{key}={value}" for key, value in options.changes.items())]),
        "seeds": list(seeds),
        "images": len(groups[first]),
        "accuracy": {name: [round(float(x), 4) for x in each.mean(axis=1)] for name, each in correct.items()},
        "validation": {
            name: [round(figures(folder)["validation"]["accuracy"], 4) for folder in each]
            for name, each in folders.items()
        },
        "histogram": round(figures(folders[first][0])["baseline"]["histogram_accuracy"], 4),
        "verdicts": [one.sentence for one in verdicts],
        "two_seeds": same.sentence,
    }


def main() -> None:
    """Measure on each data set, print it, and keep it in benchmarks/accuracy.json, in place of its last one there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", action="append", required=True, help="an .npz, a folder, or FOLDER@NAME")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2 without its top")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, help="default: all")
    parser.add_argument("--image-size", type=int, help="pixels, in place of each recipe's own")
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="where the runs are kept")
    options = parser.parse_args()
    options.changes = {"image_size": options.image_size} if options.image_size else {}
    options.work.mkdir(parents=True, exist_ok=True)
    results = {each["dataset"]: each for each in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for text in options.dataset:
        result = measure(part(text, options.work), options.weights, options.seeds, options)
        results[result["dataset"]] = result
        RESULTS.write_text(json.dumps(list(results.values()), indent=1) + "\n", encoding="utf-8")
        print(f"{result['dataset']}: {result['images']} test images, seeds {result['seeds']}")
        for name, values in result["accuracy"].items():
            print(f"  {name:20} {np.mean(values):.3f}  ({', '.join(f'{value:.3f}' for value in values)})")
        print(*(f"  {sentence}" for sentence in [*result["verdicts"], result["two_seeds"]]), sep="\n")


if __name__ == "__main__":
    main()
