"""Compare all stages except `train` with the whole pipeline, and a run without changes with an empty pipeline.

Each full run uses a new clone with its own cache. The time of a stage is measured from its first line of output to the
first line of the next stage, so it includes DVC's work on the outputs.

In a run without changes, DVC reads its own files and compares every dependency. The empty pipeline has the same stages
and the same number of outputs, but all files are empty. A second empty pipeline also depends on leaf's modules and
parameters.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from measure import arguments, detail, in_turn, report, row

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "drawn": {"images": 208, "size": 32, "seed": 2023},
    "outlier_copies": 4,
    "image_size": 32,
    "epochs": 2,
    "batch_size": 64,
    "backbone": "cnn_small",
}
# (changes of params.yaml, full runs, runs without changes)
SIZES: dict[str, tuple[dict[str, Any], int, int]] = {"tiny": (TINY, 1, 1), "bench": ({}, 1, 7), "full": ({}, 5, 15)}


def environment(folder: Path) -> dict[str, str]:
    """Return the environment variables for the project `folder`, with a separate cache."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }


def clone(folder: Path, changes: dict[str, Any]) -> None:
    """Clone the project with the uncommitted changes, and change params.yaml."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump(params | changes, sort_keys=False), encoding="utf-8")


def empty(folder: Path, dependencies: bool) -> None:
    """Create a project with the same stages and empty files and, with `dependencies`, leaf's parameters and modules."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    kept = {}
    made: set[str] = set()
    folder.mkdir()
    for name, stage in stages.items():
        outs = [*stage.get("outs", []), *(next(iter(metric)) for metric in stage.get("metrics", []))]
        named = {"${dataset}": "data/raw/leaves.npz", "${labels}": "data/labels.csv", "${masks}": "data/masks"}
        named["${unlabelled}"] = "data/unlabelled"
        needed = [named.get(dep, dep) for dep in stage["deps"]]
        folders = sorted({str(Path(out).parent) for out in outs})
        kept[name] = {
            "cmd": f"mkdir -p {' '.join(folders)} && touch {' '.join(outs)}",
            "deps": [dep for dep in needed if dependencies or dep in made],
            "params": stage["params"] if dependencies else [],
            "outs": outs,
        }
        made |= set(outs)
        for dep in {*kept[name]["deps"]} - made:
            file = folder / dep if Path(dep).suffix else folder / dep / "empty"  # a package
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False), encoding="utf-8")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], ["dvc", "repro", "--quiet"]):
        subprocess.run(command, cwd=folder, env=environment(folder), check=True, stdout=subprocess.DEVNULL)


def repro(folder: Path, *more: str) -> dict[str, float]:
    """Run `dvc repro` and return the seconds of each stage that ran, and of DVC before the first stage."""
    seconds: dict[str, float] = {}
    stage, began = "dvc", time.perf_counter()
    lines = []
    with subprocess.Popen(
        ["dvc", "repro", *more],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Running stage '"):
                now = time.perf_counter()
                seconds[stage] = now - began
                stage, began = line.split("'")[1], now
    seconds[stage] = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"pipeline: dvc repro exited {process.returncode}\n{''.join(lines)[-3000:]}")
    return seconds


def main() -> None:
    options = arguments(__doc__)
    changes, runs, idle = SIZES[options.size]
    with tempfile.TemporaryDirectory() as name:
        project, bare, bones = (Path(name) / each for each in ("project", "empty", "bones"))
        clone(project, changes)
        beside, total = [], []
        for _ in range(runs):
            seconds = repro(project, "--force", "--no-run-cache")
            total.append(sum(seconds.values()))
            beside.append(total[-1] - seconds["train"])
            print("pipeline: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items()), flush=True)
        detail("pipeline", {"seconds": seconds}, options.record)
        report(row("pipeline", beside, total, "<= 0.25"), options.record)
        empty(bare, dependencies=True)
        empty(bones, dependencies=False)
        ours, other, least = in_turn([lambda each=each: repro(each) for each in (project, bare, bones)], idle)
        report(row("pipeline_idle", ours, least, "<= 1.3"), options.record)
        report(row("pipeline_idle_shape", ours, other, "<= 1.3"), options.record)


if __name__ == "__main__":
    main()
