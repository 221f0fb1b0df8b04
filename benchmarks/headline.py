"""Measure the accuracy in the README: the test score of a recipe that was fixed before the test images were used.

    python benchmarks/headline.py choose
    python benchmarks/headline.py report --dataset leaves_by_disease --weights WEIGHTS_OF_MOBILENET_V2.h5

`choose` selects, from the results of benchmarks/accuracy.py in folds grouped by leaf, the recipe with the lowest log
loss on the development images, and writes its name and all parameters to benchmarks/frozen.json. Commit that file.
`report` tests the recipe on images that were never used for selection, and rejects parameters that differ from the
committed file. docs/honest.md describes the protocol.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from accuracy import LOGISTIC, keep, measure, part, print_result
from runs import ROOT, provenance

from leaf.errors import LeafError, one_line_errors
from leaf.experiments import parse_settings, read_experiments, with_settings
from leaf.params import flatten, keys
from leaf.store import sha256

FROZEN = Path(__file__).with_name("frozen.json")
RESULTS = Path(__file__).with_name("headline.json")
DEVELOPMENT = ("leaves_by_plant-apple", "leaves_by_plant-strawberry")
# Keys that select the images, the classes or one of several training runs; they are not part of a recipe.
_DATA = ("dataset", "classes", "labels", "seed", "folds", "fold", "weights", "drawn.images", "drawn.size", "drawn.seed")


def parameters(row: Mapping[str, Any], weights: Path | None) -> dict[str, Any]:
    """Return every parameter of a recipe: params.yaml with the row's settings, except the keys that select data."""
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    own = {"weights": weights.name, "weights_sha256": sha256(weights)} if weights else {}
    values = flatten(with_settings(defaults, {**row, **own}).model_dump(mode="json"))
    return {key: value for key, value in values.items() if key not in _DATA}


def choose(measured: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the recipe with the lowest log loss on all development images, and the log loss of each recipe.

    `measured` is the content of accuracy.json, written by benchmarks/accuracy.py. Logistic regression is not a
    candidate.
    """
    parts = [each for each in measured if each["dataset"] in DEVELOPMENT and each["folds"] and not each["set"]]
    losses: dict[str, list[tuple[int, float]]] = {}
    for each in parts:
        for name, figures in each["recipes"].items():
            loss = sum(figures["log_loss"]) / len(figures["log_loss"])
            losses.setdefault(name, []).append((each["images"], loss))
    means = {
        name: sum(images * loss for images, loss in found) / sum(images for images, _ in found)
        for name, found in losses.items()
        if name != LOGISTIC and len(found) == len(DEVELOPMENT)
    }
    return {"recipe": min(means, key=means.__getitem__), "log_loss": {name: round(x, 4) for name, x in means.items()}}


def check(frozen: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise LeafError with a list of the keys whose values in `found` differ from the frozen parameters."""
    own = {key for key, value in found.items() if value != keys()[key]["default"]}  # ignore new keys at their default
    differing = [
        f"{key} {found.get(key)} instead of {frozen['parameters'].get(key)}"
        for key in sorted(frozen["parameters"].keys() | own)
        if found.get(key) != frozen["parameters"].get(key)
    ]
    if differing:
        raise LeafError(f"{frozen['recipe']}: {', '.join(differing)}. Use the parameters in benchmarks/frozen.json.")


def committed() -> dict[str, Any]:
    """Return the committed benchmarks/frozen.json."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{FROZEN.name}"], cwd=FROZEN.parent, capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise LeafError(
            "benchmarks/frozen.json: not committed. Run `headline.py choose` and commit the file before the test."
        )
    return json.loads(shown.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("choose", "report"))
    parser.add_argument("--dataset", help="test images: an .npz file, a folder, or FOLDER@NAME")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter, such as classes"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="parallel training runs, one core each")
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    rows = read_experiments(ROOT / "experiments.yaml")
    if options.step == "choose":
        chosen = choose(json.loads(FROZEN.with_name("accuracy.json").read_text(encoding="utf-8")))
        values = parameters(rows[chosen["recipe"]].set, options.weights)
        frozen = {**chosen, "parameters": values, **provenance()}
        FROZEN.write_text(json.dumps(frozen, indent=1) + "\n", encoding="utf-8")
        print(f"Selected {chosen['recipe']} by log loss: {chosen['log_loss']}. Commit benchmarks/frozen.json.")
        return
    frozen = committed()
    check(frozen, parameters({**rows[frozen["recipe"]].set, **parse_settings(options.set)}, options.weights))
    options.recipes = [frozen["recipe"]]
    options.work.mkdir(parents=True, exist_ok=True)
    result = measure(part(options.dataset, options.work), options)
    keep(result, options.results)
    print_result(result)


if __name__ == "__main__":
    with one_line_errors():
        main()
