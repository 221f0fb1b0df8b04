"""Run each script that writes a documentation table, at its smallest size and without recording the result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from leaf.synthesize import draw_dataset, scaled

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 200 synthetic leaves to folders CROP___healthy and CROP___spots, with a table of their crops."""
    folder = tmp_path_factory.mktemp("crops")
    images, labels = draw_dataset(scaled(200), 48, 1)
    lines = ["file,crop"]
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        crop = ("apple", "bean")[place % 2]
        file = f"{crop}___{('healthy', 'spots')[label]}/{place}.png"
        (folder / file).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / file)
        lines.append(f"{file},{crop}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def rows(script: str, *options: object, cwd: Path = ROOT, **variables: str) -> list[list[str]]:
    """Return the cells of the table that `python benchmarks/SCRIPT.py --no-record` prints, without the header."""
    kept = (ROOT / "benchmarks/tables.json").read_bytes()
    command = [sys.executable, ROOT / f"benchmarks/{script}.py", *map(str, options), "--no-record"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert (ROOT / "benchmarks/tables.json").read_bytes() == kept
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][1:]


def test_review_finds_planted_errors_sooner_than_random_order() -> None:
    everything = rows("review", "--leaves", 120)[0]
    assert int(everything[3].rstrip("%")) > 2 * int(everything[5].rstrip("%"))


@pytest.mark.realdata
def test_clean_finds_altered_copies_of_real_images(shared: Path) -> None:
    found = rows("copies", shared, "--sets", "leaves_by_plant", "--images", 70)[0]
    assert found[0] == "leaves_by_plant, leaf"
    assert float(found[-3]) > 0.8


@pytest.mark.realdata
def test_synthetic_leaves_match_no_real_leaf(project, shared: Path) -> None:
    [row] = rows("shared_leaves", "--run", project.folder, "--leaves", shared / "leaves_by_plant")
    assert int(row[0]) > 20
    assert row[1:3] == ["0", "0"]


@pytest.mark.full
@pytest.mark.realdata
def test_leak_raises_the_accuracy(shared: Path) -> None:
    [row] = rows("leak", shared, "--sets", "leaves_by_disease", "--sizes", 96, "--learners", "neighbour")
    assert float(row[3]) > float(row[4])


@pytest.mark.full
def test_calibration_is_measured_before_and_after(synthetic: Path, tmp_path: Path) -> None:
    small = ("--set", "image_size=32", "--set", "epochs=1", "--set", "backbone=cnn_small", "--seeds", 1, 2)
    [row] = rows("calibration", "--dataset", synthetic, *small, "--work", tmp_path)
    assert [len(row[place].split(", ")) for place in (2, 3, 4, 5)] == [2, 2, 2, 2]


@pytest.mark.full
def test_micro_batches_need_less_memory_and_change_gradients_only_through_normalization(synthetic: Path) -> None:
    pytest.importorskip("jax")
    table = rows("micro_batch", "--tiny", "--photographs", synthetic, KERAS_BACKEND="jax")
    memory = [float(row[3].split()[0]) for row in table[:5]]
    assert memory[0] > memory[1] >= memory[2]
    distances = {(row[0], row[1]): float(row[2]) for row in table[6:]}
    assert max(distance for (_, mode), distance in distances.items() if mode == "inference") < 1e-4
    assert min(distance for (_, mode), distance in distances.items() if mode == "training") > 1e-3


@pytest.mark.full
def test_exports_and_out_of_distribution_images_are_measured_in_a_finished_run(project) -> None:
    exported = rows("export", "--repeats", 2, cwd=project.folder)
    assert [row[0] for row in exported] == ["keras", "savedmodel", "onnx", "litert", "codalab"]
    assert max(float(row[2]) for row in exported[:4]) < 1e-4
    flagged = {row[0]: row[5] for row in rows("known", cwd=project.folder)}
    assert re.fullmatch(r"\d+\.\d%", flagged["noise"])


@pytest.mark.full
def test_swapped_backgrounds_are_measured_on_each_crop(crops: Path, tmp_path: Path) -> None:
    small = ("image_size=32", "epochs=2", "frozen_epochs=1", "backbone=cnn_small", "weights=random", "freeze_depth=2")
    options = [word for text in small for word in ("--set", text)]
    found = rows("honest", "--dataset", crops, "--work", tmp_path, *options)
    assert {row[0] for row in found} == {"apple", "bean"}
    assert all(0 <= float(cell.split()[0]) <= 1 for row in found for cell in row[2:6])


@pytest.mark.full
def test_audit_prints_four_tables(crops: Path, tmp_path: Path) -> None:
    """Each leaf has a circular mask. The network has random weights."""
    disc = Image.new("1", (48, 48))
    ImageDraw.Draw(disc).ellipse((12, 12, 36, 36), fill=1)
    for file in crops.glob("*/*.png"):
        mask = tmp_path / "masks" / file.relative_to(crops)
        mask.parent.mkdir(parents=True, exist_ok=True)
        disc.save(mask)
    small = ("--set", "image_size=32", "--set", "backbone=cnn_small", "--set", "weights=random")
    table = rows("audit", "--dataset", crops, "--masks", tmp_path / "masks", "--work", tmp_path, *small)
    found = {row[0]: row[1:] for row in table}
    assert 0 <= float(found["background colors"][0].split()[0]) <= 1
    assert float(found["largest class"][0]) < float(found["largest class"][1])
    assert found["share of the area covered by the leaf"][0] == "0.21"
    left_out, new = (
        [row for row in table if row[0] in ("crop apple", "crop bean")][part] for part in (slice(2), slice(2, 4))
    )
    assert all(80 < int(row[1]) <= 100 for row in left_out)
    assert [row[1] for row in new] == ["2", "2"]
    assert all(0 <= float(cell) <= 1 for row in new for cell in row[2:])
