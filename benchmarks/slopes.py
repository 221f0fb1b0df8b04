"""Measure the cost of each additional image in each stage: time, peak memory and disk space.

Each stage runs as under DVC, on data sets of two sizes. The slope is the difference per image; the intercept is the
fixed cost. Memory is the peak private memory of the process (RssAnon, sampled every 20 ms), without pages of mapped
files, which the system can reclaim. The images are a folder of JPEG files: crops and tints of 200 synthetic leaves.
Training runs one epoch; `same_photo` is off. The results are in docs/performance.md; there is no target.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from measure import arguments, detail

from leaf.params import Params
from leaf.python_api import new_project
from leaf.synthesize import draw_leaf

ROOT = Path(__file__).resolve().parents[1]
LEARNING = ("train", "evaluate")
STAGES = ("ingest", "clean", "split", "balance", *LEARNING, "report")
# (images at the two sizes, side, stages)
SIZES = {
    "tiny": ((120, 240), 32, STAGES[:4]),
    "bench": ((1000, 4000), 96, STAGES),
    "full": ((4000, 16_000), 96, STAGES),
}
CLASSES = ("healthy", "unhealthy")


def write_images(folder: Path, count: int, side: int) -> None:
    """Write `count` different JPEG files, 3 of 5 healthy, in one subfolder per class."""
    random = np.random.default_rng(5)
    leaves = [draw_leaf(np.random.default_rng([5, k]), side * 2, k % 5 < 3) for k in range(min(200, count))]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(count):
        leaf = leaves[number % len(leaves)]
        part = int(random.integers(side, 2 * side))
        top, left = random.integers(0, 2 * side - part + 1, 2)
        tinted = np.clip(leaf[top : top + part, left : left + part] * random.uniform(0.7, 1.2, 3), 0, 255)
        path = folder / CLASSES[number % 5 >= 3] / f"{number:07}.jpg"
        cv2.imwrite(str(path), tinted[..., ::-1].astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Run Python with `command` and return its seconds and peak memory in MiB."""
    start, most = time.perf_counter(), 0
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:60]} failed")
    return time.perf_counter() - start, most / 1024


def disk(folder: Path) -> int:
    """Return the number of bytes that the stages have written."""
    files = (path for name in ("data", "models", "reports") for path in (folder / name).rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def main() -> None:
    options = arguments(__doc__)
    counts, side, stages = SIZES[options.size]
    measured: dict[str, list[tuple[float, float, float]]] = {stage: [] for stage in stages}
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            new_project(folder, Params(dataset="images", image_size=side, epochs=1, same_photo=False))
            write_images(folder / "images", count, side)
            for stage in stages:
                before = disk(folder)
                seconds, memory = run(["-m", f"stages.{stage}"], folder)
                measured[stage].append((seconds, memory, disk(folder) - before))
    slopes = {}
    for stage, (small, large) in measured.items():
        each = [(high - low) / (counts[1] - counts[0]) for low, high in zip(small, large, strict=True)]
        fixed = [low - slope * counts[0] for low, slope in zip(small, each, strict=True)]
        slopes[stage] = {
            "seconds": fixed[0],
            "seconds_per_image": each[0],
            "memory": fixed[1],
            "memory_per_image": each[1],
            "disk_per_image": each[2],
        }
        print(f"{stage}: {1000 * each[0]:.2f} ms, {1024 * each[1]:.1f} KiB of memory, {each[2]:.0f} bytes per image")
    detail("slopes", {"images": counts, "side": side, "stages": slopes}, options.record)


if __name__ == "__main__":
    main()
