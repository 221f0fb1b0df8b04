"""Train the network of params.yaml and write models/model.keras, history.csv, run.json and metrics/train.json."""

import hashlib
import math
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leaf import store
from leaf.errors import plural
from leaf.models.backbones import is_detector
from leaf.models.feature_cache import NotCachedError
from leaf.models.probe_files import KEYS, find_probe_files, probe_key
from leaf.models.trained_model import cache_probe
from leaf.params import Params
from leaf.train.callbacks import Result, dvclive_callback, write_curves
from leaf.train.dataset import FILES, read_datasets
from leaf.train.linear_probe import features_of, fit_probe, train_probe

CODE = [Path(__file__).parent, Path(__file__).parents[1] / "models"]
NETWORK, CURVES = "models/model.keras", "models/live"
METRICS = ("epochs", "best_epoch", "best_validation_accuracy", "parameters", "trainable_parameters")


def train_cached_probe(params: Params, classes: list[str]) -> None:
    """Train a linear probe from cached features and the files of an earlier probe, without importing Keras.

    Raises:
        NotCachedError: if features or files are missing from the cache.
    """
    key = probe_key(params)
    files = find_probe_files(key)
    if files is None:
        raise NotCachedError
    datasets = read_datasets(len(classes))
    features = [features_of(files.features, dataset) for dataset in datasets]
    result, head = train_probe(features, datasets, params)
    write_curves(CURVES, result.best)
    files.write_model(head, NETWORK)
    trainable, parameters = head.parameters
    counts = {"parameters": files.facts["backbone_parameters"] + parameters, "trainable_parameters": trainable}
    run = write_run(result, params, classes, counts, files.facts["weights"], files.facts["versions"])
    store.save_cached_value(KEYS, run["model_sha256"], key)
    print_result(result, params.backbone, len(datasets[0]))


def train_network(params: Params, classes: list[str]) -> None:
    """Train a classifier, a probe or a detector, or resume its training."""
    from leaf.models.build import build_model_from_params
    from leaf.models.freezing import freeze_backbone
    from leaf.models.prediction import cached_features
    from leaf.models.saving import save_model
    from leaf.models.weights import weights_record
    from leaf.train.checkpoint import locked_checkpoint, training_key
    from leaf.train.detectors import DetectorTraining
    from leaf.train.distribution import is_first_process, run_on_all_nodes, set_up_distribution
    from leaf.train.reproducibility import fix_seeds, peak_memory, versions
    from leaf.train.trainer import ClassifierTraining, Training, run_training

    status = run_on_all_nodes("stages.train", params.distribution)
    if status is not None:
        sys.exit(status)
    dataset, validation = read_datasets(len(classes), params.augmentation.background == "swap")
    fix_seeds(params.seed, params.deterministic)
    devices = set_up_distribution(params)
    model = build_model_from_params(params, len(classes))
    determined_by = {
        "params": params.model_dump(),
        "network": model.to_json(),
        "data": {name: store.sha256(name) for name in FILES},
        "masks": None if dataset.masks is None else hashlib.sha256(dataset.masks.data).hexdigest(),
        "versions": versions(),
        "devices": devices,
    }
    ends = [time.perf_counter()]
    with locked_checkpoint(training_key(determined_by, model.get_weights(), CODE)) as checkpoint_file:
        is_probe = params.optimizer == "lbfgs"
        with dvclive_callback(CURVES) if is_first_process() and not is_probe else nullcontext() as log_curves:

            def on_epoch_end(row: dict[str, Any]) -> None:
                ends.append(time.perf_counter())
                if log_curves:
                    log_curves(row)

            if is_probe:
                scored = store.read_table("data/split/splits.csv", ["image"])["image"].to_numpy()
                cached_features(model, dataset.images, scored)  # including those that only `evaluate` uses
                result = fit_probe(model, (dataset, validation), params)
                write_curves(CURVES, result.best)
            else:
                if is_detector(params.backbone):
                    training: Training = DetectorTraining(model, dataset, validation, params)
                else:
                    freeze = partial(freeze_backbone, model, normalization=params.freeze_normalization)
                    training = ClassifierTraining(model, dataset, validation, params, freeze)
                result = run_training(training, checkpoint_file, on_epoch_end, quiet=not is_first_process())
        if not is_first_process():
            return
        save_model(model, NETWORK)
        trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        counts = {"parameters": model.count_params(), "trainable_parameters": trainable}
        weights = weights_record(params.backbone, params.weights)
        run = write_run(result, params, classes, counts, weights, versions())
        if result.probe and (key := probe_key(params)):
            facts = {"weights": weights, "versions": versions()}
            cache_probe(key, model, Path(NETWORK), facts, dataset.images)
            store.save_cached_value(KEYS, run["model_sha256"], key)
    if len(ends) > 2 and ends[2] - ends[1] > 0.01:  # otherwise, the epochs were restored from a checkpoint
        took = {"seconds": ends[-1] - ends[-2], "images": len(dataset), "memory": peak_memory()}
        store.save_cached_value("epochs", store.epoch_key(params), took)  # read by `leaf check` and `leaf submit`
        store.save_cached_value("trained", run["model_sha256"], round(ends[-1] - ends[0], 1))  # read by the report
    print_result(result, params.backbone, len(dataset), devices)


def print_result(result: Result, backbone: str, images: int, devices: int = 1) -> None:
    """Print a summary of the training run."""
    shared = f" on {devices} devices" if devices > 1 else ""
    how = f"{plural(len(result.history), 'epoch')}{shared}{', stopped early' if result.stopped == 'early' else ''}"
    if result.probe:
        end = "converged" if result.stopped == "converged" else "not converged"
        iterations = plural(int(result.probe["iterations"]), "iteration")
        how = f"linear probe with C = {result.probe['strength']:g}, {end} after {iterations}"
    print(f"{backbone}: {plural(images, 'image')}, {how}")
    print(f"best epoch {result.best['epoch']}: validation accuracy {result.best['validation_accuracy']:.4f}")


def write_run(
    result: Result,
    params: Params,
    classes: list[str],
    counts: dict[str, int],
    weights: dict[str, str] | None,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Write models/history.csv, models/run.json and metrics/train.json; return the contents of run.json.

    The files contain no times or paths, so identical runs write byte-identical files.
    """
    store.write_table(pd.DataFrame(result.history), "models/history.csv")
    optional = {"probe": result.probe, "weights": weights}
    run = {key: value for key, value in optional.items() if value} | {
        "backbone": params.backbone,
        **counts,
        "epochs": 0 if result.probe else len(result.history),
        "best_epoch": result.best["epoch"],
        "best_validation_accuracy": result.best["validation_accuracy"],
        "best": result.best,
        "stopped": result.stopped,
        "model_sha256": store.sha256(NETWORK),
        **{key: getattr(params, key) for key in ("seed", "precision", "deterministic", "image_size", "fit")},
        "classes": classes,
        "steps_per_epoch": result.steps_per_epoch,
        "versions": versions,
    }
    store.write_json(run, "models/run.json")
    # DVC's run cache restores this file too, although git tracks it: `dvc repro` commits it to the local cache.
    store.write_json({key: run[key] for key in METRICS}, "metrics/train.json")
    return run
