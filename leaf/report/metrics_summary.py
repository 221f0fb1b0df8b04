"""Summarize the metrics of the last run in a few lines, for `leaf results`."""

import contextlib
import csv
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from leaf.errors import LeafError, plural
from leaf.evaluate import BASELINES
from leaf.store import read_json

Metrics = dict[str, Any]

_SHOWN = 6  # maximum number of classes shown


def summarize_metrics(root: str | Path = ".") -> str:
    """Summarize the last run of the project in the folder `root`.

    Metrics that are missing or, according to dvc.lock, outdated are skipped and listed.

    Raises:
        LeafError: if no metrics are current, or a file is damaged.
    """
    root = Path(root)
    old = _old_stages(root)
    lines, skipped = [], []
    for stages, describe in _LINES:
        if old.isdisjoint(stages):
            values = [read_json(root / f"metrics/{name}.json", {}) for name in stages]
            try:
                lines += describe(*values)
            except (KeyError, TypeError, AttributeError, ValueError):
                files = ", ".join(f"metrics/{name}.json" for name in stages)
                raise LeafError(f"{files}: damaged. Run `dvc repro`, or restore with `git checkout`.") from None
        skipped += [name for name in stages if name in old]
    if not lines:
        raise LeafError("metrics: all files are missing or outdated. Run `dvc repro`.")
    if skipped:
        lines.append(f"skipped    {', '.join(skipped)}: missing or outdated. Run `dvc repro`.")
    # A linear probe has no dropout, so the default example would fail.
    run = root / "models/run.json"
    change = "leaf run transfer" if run.is_file() and "probe" in read_json(run, {}) else "dvc exp run -S dropout=0.2"
    hint = f"Report  reports/report.html   Experiment  {change}   Explain  leaf why {_example(root)}"
    return "\n".join([*lines, "", hint])


def _example(root: Path) -> int:
    """Return the number of the first removed image, or 0 if none was removed."""
    with (
        contextlib.suppress(OSError, KeyError, ValueError, csv.Error),
        (root / "data/cleaned/decisions.csv").open(encoding="utf-8", newline="") as file,
    ):
        return next((int(row["image"]) for row in csv.DictReader(file) if row["kept"] == "0"), 0)
    return 0


def _old_stages(root: Path) -> set[str]:
    """Return the stages whose metrics are missing or outdated, or an empty set without dvc.lock.

    Metrics are outdated if an output that their stage, or an earlier one, depends on has changed since, or if the file
    differs from dvc.lock.
    """
    try:
        text = (root / "dvc.lock").read_text(encoding="utf-8")
        stages = yaml.load(text, yaml.CBaseLoader)["stages"]  # noqa: S506 (returns only strings)
        written = {out["path"]: (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", ())}
        inputs = {
            name: [(*written[each["path"]], each["md5"]) for each in stage.get("deps", ()) if each["path"] in written]
            for name, stage in stages.items()
        }
    except FileNotFoundError:
        return set()
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise LeafError("dvc.lock: not a DVC lock file. Restore it with `git checkout dvc.lock`.") from None

    @cache
    def is_old(stage: str) -> bool:
        return any(md5 != used or is_old(earlier) for earlier, md5, used in inputs[stage])

    def is_current(name: str) -> bool:
        path = root / f"metrics/{name}.json"
        stage, md5 = written.get(f"metrics/{name}.json", ("", ""))
        if not stage or not path.exists() or is_old(stage):
            return False
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5

    return {name for names, _ in _LINES for name in names if not is_current(name)}


def _images(ingest: Metrics, clean: Metrics) -> list[str]:
    kinds = ("outlier", "duplicate", "near_duplicate")
    removed = ", ".join(plural(clean[f"{kind}s"], kind.replace("_", " ")) for kind in kinds)
    images = f"{ingest['images']:,} ({_classes(ingest['classes'])})"
    return [f"images     {images}; removed: {removed}; {clean['kept']:,} kept"]


def _split(split: Metrics) -> list[str]:
    sizes = ", ".join(f"{split[name]:,} {name}" for name in ("train", "validation", "test"))
    return [f"split      {sizes}; {plural(split['shared_groups'], 'group')} shared"]


def _balance(balance: Metrics) -> list[str]:
    return [f"balance    {plural(balance['synthetic'], 'synthetic image')}; training set: {_classes(balance['after'])}"]


def _training(train: Metrics) -> list[str]:
    how = f"{plural(train['epochs'], 'epoch')}, best epoch {train['best_epoch']}" if train["epochs"] else "linear probe"
    return [f"training   {how}, validation accuracy {_percent(train['best_validation_accuracy'])}"]


def _scores(evaluate: Metrics) -> list[str]:
    baselines = [(name, evaluate["baseline"].get(f"{key}_accuracy")) for key, name in BASELINES.items()]
    beside = ", ".join(f"{name} {_percent(value)}" for name, value in baselines if value is not None)
    test = evaluate["test"]
    if test["accuracy"] is None:
        return [
            f"validation accuracy {_percent(evaluate['validation']['accuracy'])}",
            "           no test split: the model was selected on the validation images, so its accuracy is optimistic",
            f"baselines  {beside}",
        ]
    span = f"95% CI {100 * test['accuracy_low']:.1f}–{_percent(test['accuracy_high'])}"
    recall = sorted(test["recall"].items(), key=lambda item: (item[1] is None, item[1]))[:_SHOWN]
    return [
        f"test       accuracy {_percent(test['accuracy'])} ({span}), balanced accuracy "
        f"{_percent(test['balanced_accuracy'])}",
        f"           recall, lowest first: {', '.join(f'{name} {_percent(share)}' for name, share in recall)}",
        f"baselines  {beside}",
    ]


# The metrics files that each function summarizes.
_LINES: tuple[tuple[tuple[str, ...], Callable[..., list[str]]], ...] = (
    (("ingest", "clean"), _images),
    (("split",), _split),
    (("balance",), _balance),
    (("train",), _training),
    (("evaluate",), _scores),
)


def _classes(counts: dict[str, Any]) -> str:
    shown = [f"{count:,} {name}" for name, count in counts.items()]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
