"""Measure the effect of swapped backgrounds (row `honest`) on a crop that is left out of training.

    python benchmarks/honest.py --dataset leaves_by_disease --weights WEIGHTS_OF_MOBILENET_V2.h5 --masks leaf_masks

The row is trained with and without swapped backgrounds: once on all crops, and once without each crop, which is then
scored. These results are not used to select anything. `python docs/generate.py` writes the table to docs/honest.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from runs import ROOT, keep_table, run_all, table_parser

from leaf.audit.audit import correctness, labels_without
from leaf.audit.domain_shift import compare_accuracy
from leaf.audit.shortcuts import difference
from leaf.errors import one_line_errors
from leaf.experiments import parse_settings, read_experiments
from leaf.finished_run import read_run
from leaf.store import sha256, write_table

CLASSES = {"healthy": ["*healthy"], "unhealthy": ["*"]}
WAYS = ("keep", "swap")


def arguments(doc: str | None, row: str) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the options of a script that runs `row` on a folder with a metadata table, and the resulting settings."""
    parser = table_parser(doc)
    parser.add_argument("--dataset", type=Path, required=True, help="a folder whose metadata.csv has the column --by")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2")
    parser.add_argument("--masks", type=Path, help="a folder of masks that are white on the leaf")
    parser.add_argument("--by", default="crop", help="column of the domain: site, crop, camera or date")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--work", type=Path, default=Path("build/honest"), help="folder of the runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the row")
    options = parser.parse_args()
    settings = {**read_experiments(ROOT / "experiments.yaml")[row].set, "dataset": str(options.dataset.resolve())}
    if options.weights:
        settings |= {"weights": str(options.weights.resolve()), "weights_sha256": sha256(options.weights)}
    if options.masks:
        settings["masks"] = str(options.masks.resolve())
    return options, settings | parse_settings(options.set)


def main() -> None:
    options, common = arguments(__doc__, "honest")
    common = {"classes": CLASSES, **common}
    ways = {way: {**common, "augmentation.background": way} for way in WAYS}
    seeded = [(way, seed) for way in WAYS for seed in options.seeds]
    whole = dict(
        zip(seeded, run_all([{**ways[way], "seed": seed} for way, seed in seeded], options.work, 1), strict=True)
    )

    run = read_run(whole[seeded[0]], {})
    chosen = run.index.merge(run.decisions[["image", "label", "kept", "group"]], on="image", suffixes=("_given", ""))
    chosen = chosen[chosen["kept"].eq(1)].reset_index(drop=True)
    parts = labels_without(run, chosen, chosen[options.by].tolist())
    jobs = {}
    for value, (_, table) in parts.items():
        path = options.work.resolve() / f"without-{value}.csv"
        write_table(table, path)
        for way, seed in seeded:
            jobs[value, way, seed] = {**ways[way], "seed": seed, "labels": str(path), "classes": list(CLASSES)}
    without = dict(zip(jobs, run_all(list(jobs.values()), options.work, 1), strict=True))

    right = {key: correctness(read_run(folder, {}).predictions, chosen) for key, folder in {**whole, **without}.items()}
    rows = []
    for value, (judged, _) in parts.items():
        means = {
            (way, left): np.mean([right[(value, way, seed) if left else (way, seed)] for seed in options.seeds], axis=0)
            for way in WAYS
            for left in (False, True)
        }
        there = judged & ~np.isnan(means["keep", True]) & ~np.isnan(means["swap", True])
        labels, groups = (chosen[key].to_numpy()[there] for key in ("label", "group"))
        cells = [value, str(there.sum())]
        for way in WAYS:
            found = compare_accuracy(means[way, False][there], means[way, True][there], labels, groups)
            cells += [str(found.inside), str(found.outside)]
        gain = difference(means["swap", True][there], means["keep", True][there], groups)
        points = "{:.1f} ({:.1f} to {:.1f})".format(*(100 * x for x in (gain.accuracy, gain.low, gain.high)))
        rows.append([*cells, points])
    cases = [
        f"{way} backgrounds, {options.by} {place}"
        for way in ("original", "swapped")
        for place in ("in training", "left out")
    ]
    columns = [options.by, "images", *cases, f"points gained by swapping, {options.by} left out"]
    keep_table("backgrounds", columns, rows, options.record)


if __name__ == "__main__":
    with one_line_errors():
        main()
