"""`leaf results`: what the last run of the pipeline gave, in a few lines a person can read."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from leaf.errors import LeafError
from leaf.store import read_json

Metrics = dict[str, Any]

_BASELINES = (
    ("tuned_color", "tuned color baseline"),
    ("joint_histogram", "joint color histogram"),
    ("histogram", "color histogram"),
    ("majority", "largest class"),
)
_SHOWN = 6  # classes


def summarize_metrics(root: str | Path = ".") -> str:
    """The summary of the metrics of the project in the folder `root`: of its last run, and of no earlier one.

    Left out, and named, is what a stage wrote before the stages that it reads from ran again (dvc.lock tells). Raises
    LeafError where there is nothing to show.
    """
    old = _old_stages(Path(root))
    lines, left_out = [], []
    for stages, tell in _LINES:
        if old.isdisjoint(stages):
            lines += tell(*(read_json(Path(root, f"metrics/{name}.json")) for name in stages))
        else:
            left_out += [name for name in stages if name in old]
    if not lines:
        raise LeafError("metrics: none is of the last run; valid: figures of a run that went through (`dvc repro`)")
    if left_out:
        lines.append(f"left out   {', '.join(left_out)}: from before the others; `dvc repro` makes them anew")
    # A linear probe has no dropout, so the usual example would be refused.
    run = Path(root, "models/run.json")
    probe = run.is_file() and "probe" in read_json(run)
    change = "leaf run transfer" if probe else "dvc exp run -S dropout=0.2"
    return "\n".join([*lines, "", f"Look at  reports/report.html   Change  {change}   Why  leaf why 58"])


def _old_stages(root: Path) -> set[str]:
    """The metrics files' names whose figures are not of the last run: what dvc.lock says that their stage read is not
    what it says that the stage before it wrote, or the file is not what it says that the stage wrote.

    Nothing is old where there is no dvc.lock.
    """
    try:
        text = (root / "dvc.lock").read_text(encoding="utf-8")
        stages = yaml.load(text, yaml.CBaseLoader)["stages"]  # noqa: S506 (it makes text alone; 15 times as fast)
    except FileNotFoundError:
        return set()
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise LeafError("dvc.lock: not what DVC writes; valid: the file of a run, such as git holds") from None
    written = {out["path"]: (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", ())}

    @cache
    def is_old(name: str) -> bool:
        read = ((each["md5"], *written[each["path"]]) for each in stages[name]["deps"] if each["path"] in written)
        return any(found != md5 or is_old(before) for found, before, md5 in read)

    old = set()
    for name in {name for names, _ in _LINES for name in names}:
        path = root / f"metrics/{name}.json"
        stage, md5 = written.get(f"metrics/{name}.json", ("", ""))
        if not stage or not path.exists() or is_old(stage) or _md5(path) != md5:
            old.add(name)
    return old


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _images(ingest: Metrics, clean: Metrics) -> list[str]:
    return [
        f"images     {ingest['images']} in ({_classes(ingest['classes'])}); "
        f"out: {clean['outliers']} outliers, {clean['duplicates']} duplicates, "
        f"{clean['near_duplicates']} near-duplicates; {clean['kept']} kept"
    ]


def _split(split: Metrics) -> list[str]:
    return [
        f"split      {split['train']} train, {split['validation']} validation, {split['test']} test; "
        f"{split['shared_groups']} groups shared between them"
    ]


def _balance(balance: Metrics) -> list[str]:
    return [f"balance    {balance['synthetic']} synthetic training images ({_classes(balance['after'])} now)"]


def _training(train: Metrics) -> list[str]:
    how = f"{train['epochs']} epochs, best {train['best_epoch']}" if train["epochs"] else "a linear probe"
    return [f"training   {how}: validation accuracy {_percent(train['best_validation_accuracy'])}"]


def _scores(evaluate: Metrics) -> list[str]:
    baselines = [(name, evaluate["baseline"].get(f"{key}_accuracy")) for key, name in _BASELINES]
    beside = ", ".join(f"{name} {_percent(value)}" for name, value in baselines if value is not None)
    test = evaluate["test"]
    if test["accuracy"] is None:
        return [
            f"validation accuracy {_percent(evaluate['validation']['accuracy'])}; {beside}",
            "           there is no test split: these figures chose the model and flatter it",
        ]
    interval = f"{_percent(test['accuracy_low'])} to {_percent(test['accuracy_high'])}"
    lines = [f"test       accuracy {_percent(test['accuracy'])} (95 % interval {interval}); {beside}"]
    if len(test["recall"]) > 2:
        worst = sorted(test["recall"].items(), key=lambda item: (item[1] is None, item[1]))[:_SHOWN]
        found = ", ".join(f"{name} {_percent(share)}" for name, share in worst)
        lines.append(f"           found of each class, the fewest first: {found}")
    return lines


# What is told, and the metrics files that it is told from.
_LINES: tuple[tuple[tuple[str, ...], Callable[..., list[str]]], ...] = (
    (("ingest", "clean"), _images),
    (("split",), _split),
    (("balance",), _balance),
    (("train",), _training),
    (("evaluate",), _scores),
)


def _classes(counts: dict[str, Any]) -> str:
    said = [f"{count} {name}" for name, count in counts.items()]
    return ", ".join(said[:_SHOWN]) + (f" and {len(said) - _SHOWN} classes more" if len(said) > _SHOWN else "")


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
