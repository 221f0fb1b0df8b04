"""Measure the effect of `calibrate: temperature` on the test probabilities of two recipes over several seeds.

python benchmarks/calibration.py --dataset LEAVES.npz --weights WEIGHTS_OF_MOBILENET_V2.h5
"""

from pathlib import Path

from runs import ROOT, keep_table, run_all, table_parser

from leaf.experiments import parse_settings, read_experiments
from leaf.store import read_json, sha256


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2, for the row `transfer`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of every recipe")
    parser.add_argument("--work", type=Path, default=Path("build/rows"), help="folder of the runs")
    options = parser.parse_args()
    given: dict[str, dict[str, str]] = {"default": {}}
    if options.weights:
        given["transfer"] = {"weights": str(options.weights.resolve()), "weights_sha256": sha256(options.weights)}
    recipes, rows = read_experiments(ROOT / "experiments.yaml"), []
    over = {"dataset": str(options.dataset.resolve()), "calibrate": "temperature", **parse_settings(options.set)}
    settings = [
        {**recipes[name].set, **own, **over, "seed": seed} for name, own in given.items() for seed in options.seeds
    ]
    found = [read_json(folder / "data/scored/scores.json") for folder in run_all(settings, options.work)]
    for name in given:
        mine, found = found[: len(options.seeds)], found[len(options.seeds) :]
        tests = [scores["splits"]["test"] for scores in mine]
        pairs = [
            ", ".join(f"{test['before_calibration'][key]:.3f} → {test[key]:.3f}" for test in tests)
            for key in ("calibration_error", "log_loss")
        ]
        temperatures = ", ".join(f"{scores['temperature']:.2f}" for scores in mine)
        rows.append([name, str(tests[0]["images"]), ", ".join(map(str, options.seeds)), temperatures, *pairs])
    columns = ["recipe", "test images", "seeds", "temperature", "expected calibration error, before → after"]
    keep_table("calibration", [*columns, "log loss, before → after"], rows, options.record)


if __name__ == "__main__":
    main()
