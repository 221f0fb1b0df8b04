"""`leaf verify`: rerun a revision from scratch, and compare it with the committed dvc.lock and metrics."""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaf.errors import LeafError, output_of
from leaf.params import flatten
from leaf.store import read_json, read_yaml

PAGES = {"reports/report.html", "reports/summary.html", "reports/model_card.md"}  # pages that contain the date
TOLERANCE = 0.02  # maximum score difference between machines; on one machine, reruns are byte-identical
UNSTABLE = ("epochs", "best_epoch")  # metrics that are not compared; rounding can change them


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage and the reason for it.

    Outcomes:
        identical: the outputs are byte-identical, except for the date in the report.
        within tolerance: the outputs differ, and metrics differ by at most the tolerance.
        inputs differ: inputs and outputs differ, but no metrics file.
        different: a metric differs by more than the tolerance, or outputs differ although inputs and metrics do not.
    """

    stage: str
    outcome: str
    why: str = ""


def verify(revision: str = "HEAD", tolerance: float = TOLERANCE) -> list[StageResult]:
    """Rerun `revision` in a clone with an empty cache, and compare dvc.lock and metrics with the committed versions."""
    root = Path.cwd()
    name = f"{revision}^{{commit}}"
    commit = output_of("git", "rev-parse", "--verify", "--quiet", "--end-of-options", name, accepted=(0, 1, 128))
    if not commit:
        raise LeafError(f"{revision}: no such revision. Use a commit, branch or tag of this repository.")
    with tempfile.TemporaryDirectory(prefix="leaf-verify-") as folder:
        clone = Path(folder, "clone")
        output_of("git", "clone", "--quiet", str(root), str(clone))
        output_of("git", "checkout", "--quiet", "--detach", commit, cwd=clone)
        if not (clone / "dvc.lock").is_file():
            raise LeafError(f"dvc.lock: not in {revision}. Run `dvc repro` and commit the results.")
        before, metrics_before = _lock_and_metrics(clone)
        for tracked in sorted(clone.glob("data/raw/*.dvc")):  # raw data comes from the user's cache
            output_of("dvc", "remote", "add", "--local", "--force", "here", str(root / ".dvc/cache"), cwd=clone)
            output_of("dvc", "pull", "--quiet", "--remote", "here", str(tracked), cwd=clone)
        status = subprocess.run(["dvc", "repro", "--force"], cwd=clone, check=False).returncode
        if status:
            raise LeafError(
                f"{revision}: `dvc repro` failed in a fresh clone with exit status {status}. Its output is above."
            )
        after, metrics_after = _lock_and_metrics(clone)
    return compare_reruns(before, after, metrics_before, metrics_after, tolerance)


def compare_reruns(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    metrics_before: Mapping[str, Any],
    metrics_after: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> list[StageResult]:
    """Compare the `stages` of two dvc.lock files, and two sets of metrics by file name."""
    results = []
    for stage, old in before.items():
        new = after.get(stage)
        if new is None:
            results.append(StageResult(stage, "different", "the stage is missing from the rerun"))
            continue
        changed = _changed(old, new, "outs")
        causes = [f"{kind} {name}" for kind in ("deps", "params") for name in _changed(old, new, kind)]
        if not changed or (PAGES.issuperset(changed) and not causes):
            results.append(StageResult(stage, "identical"))
            continue
        scores = [name for name in changed if name in metrics_before]
        distance, where = _largest_difference(
            {name: metrics_before.get(name) for name in scores}, {name: metrics_after.get(name) for name in scores}
        )
        reason = f"{', '.join(changed)} differ" + (f"; inputs that differ: {', '.join(causes)}" if causes else "")
        if where:
            reason += f"; largest difference {distance:.4g} in {where}"
        unscored = "inputs differ" if causes else "different"
        agree = "within tolerance" if scores else unscored
        results.append(StageResult(stage, agree if distance <= tolerance else "different", reason))
    return results


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], kind: str) -> list[str]:
    if kind == "params":
        a, b = ({k: v for group in lock.get("params", {}).values() for k, v in group.items()} for lock in (old, new))
    else:
        a, b = ({item["path"]: item.get("md5") for item in lock.get(kind, [])} for lock in (old, new))
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _largest_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, str]:
    a, b = flatten(before), flatten(after)
    worst, where = 0.0, ""
    for name in sorted(a.keys() | b.keys()):
        x, y = a.get(name), b.get(name)
        if x == y or name.rpartition(".")[2] in UNSTABLE:
            continue
        numeric = isinstance(x, (int, float)) and isinstance(y, (int, float))
        distance = abs(x - y) if numeric else float("inf")  # type: ignore[operator]
        if distance > worst:
            worst, where = distance, name
    return worst, where


def _lock_and_metrics(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics = {f"metrics/{path.name}": read_json(path) for path in sorted((folder / "metrics").glob("*.json"))}
    return read_yaml(folder / "dvc.lock")["stages"], metrics
