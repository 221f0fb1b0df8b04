"""What swapped backgrounds buy where a crop was left out of training: the row `honest`, and the same that keeps them.

python benchmarks/honest.py --dataset leaves_by_disease --weights WEIGHTS_OF_MOBILENET_V2.h5 --masks leaf_masks

Each is trained once with every crop, and once without each, which is then judged. Nothing is chosen by these figures.
Writes benchmarks/honest.json; `python docs/generate.py` puts it into docs/honest.md.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from runs import ROOT, provenance, run_all

from leaf.audit.shortcuts import difference
from leaf.audit.transport import compared
from leaf.cli.audit import labels_without, right_of
from leaf.errors import one_line_errors
from leaf.experiments import parse_settings, read_experiments
from leaf.report.run import read_run
from leaf.store import sha256, write_json, write_table

RESULTS = Path(__file__).with_name("honest.json")
CLASSES = {"healthy": ["*healthy"], "unhealthy": ["*"]}
WAYS = ("keep", "swap")


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a folder whose table has the column `by`")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2")
    parser.add_argument("--masks", type=Path, help="a folder of masks; without it GrabCut guesses all")
    parser.add_argument("--by", default="crop", help="site, crop, camera or date")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--work", type=Path, default=Path("build/honest"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="laid over the row: smaller")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    row = read_experiments(ROOT / "experiments.yaml")["honest"].set
    common = {**row, "dataset": str(options.dataset.resolve()), "classes": CLASSES, **parse_settings(options.set)}
    if options.weights:
        common |= {"weights": str(options.weights.resolve()), "weights_sha256": sha256(options.weights)}
    if options.masks:
        common["masks"] = str(options.masks.resolve())
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

    right = {key: right_of(read_run(folder, {}).predictions, chosen) for key, folder in {**whole, **without}.items()}
    found = {}
    for value, (judged, _) in parts.items():
        groups = chosen["group"].to_numpy()[judged]
        mean = {way: np.mean([right[value, way, seed][judged] for seed in options.seeds], axis=0) for way in WAYS}
        inside = {way: np.mean([right[way, seed][judged] for seed in options.seeds], axis=0) for way in WAYS}
        there = ~np.isnan(mean["keep"]) & ~np.isnan(mean["swap"])
        found[value] = {way: asdict(compared(inside[way][there], mean[way][there], groups[there])) for way in WAYS}
        found[value]["gain"] = asdict(difference(mean["swap"][there], mean["keep"][there], groups[there]))
    masked = int(np.load(whole[seeded[0]] / "data/ingested/masks.npy").any(axis=(1, 2)).sum())
    told = {"dataset": options.dataset.name, "by": options.by, "seeds": options.seeds, "masks": masked}
    told |= {"images": len(chosen), "values": found, "set": parse_settings(options.set), **provenance()}
    write_json(told, options.results)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with one_line_errors():
        main()
