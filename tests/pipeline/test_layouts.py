"""Test common data set layouts, each with its command from docs/your-data.md."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from leaf.check import check
from leaf.experiments import parse_settings

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="session")
def commands(pytestconfig):
    """Return the command of each layout in the table of docs/your-data.md, by name."""
    text = (pytestconfig.rootpath / "docs/your-data.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| `(dvc exp run [^`]+)` \|$", text, re.MULTILINE))


class ImageWriter:
    """Write small, distinct images to a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.random = np.random.default_rng(0)

    def __call__(self, *names):
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(self.random.integers(0, 256, (5, 5, 3), np.uint8))
            coarse.resize((48, 40)).save(path)

    def text(self, name, *rows):
        (self.folder / name).write_text("\n".join(rows) + "\n")


def plant_village(write):
    for name in ("Apple___healthy", "Apple___scab", "Corn___healthy", "Corn___rust"):
        write(*(f"{name}/{number:04}.JPG" for number in range(12)))


def plant_doc(write):
    for name in ("Apple leaf", "Apple rust leaf", "Corn leaf blight"):
        write(
            *(f"train/{name}/{number}.jpg" for number in range(15)),
            *(f"test/{name}/t{number}.jpg" for number in range(4)),
        )


def cassava(write):
    write(*(f"train_images/{number}.jpg" for number in range(1000, 1036)), "test_images/7.jpg")
    write.text("train.csv", "image_id,label", *(f"{number}.jpg,{number % 3}" for number in range(1000, 1036)))


def plant_pathology(write):
    write(
        *(f"images/Train_{number}.jpg" for number in range(36)), *(f"images/Test_{number}.jpg" for number in range(3))
    )
    rows = [f"Train_{number},{number % 3 == 0:d},{number % 3 == 1:d},{number % 3 == 2:d}" for number in range(36)]
    write.text("train.csv", "image_id,healthy,rust,scab", *rows)


def hugging_face(write):
    for split, count in (("train", 30), ("test", 10)):
        write(*(f"{split}/{number}.jpg" for number in range(count)))
        rows = [f"{number}.jpg,{('rust', 'healthy')[number % 2]}" for number in range(count)]
        write.text(f"{split}/metadata.csv", "file_name,label", *rows)


def keras_directory(write):
    for name in ("healthy", "unhealthy"):
        write(*(f"{name}/{number}.png" for number in range(20)))


def tfds(write):
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        for name in ("healthy", "unhealthy"):
            write(*(f"{split}/{name}/{number}.jpg" for number in range(count)))


def roboflow(write):
    for split, count in zip(SPLITS, (12, 4, 4), strict=True):
        for name in ("healthy", "mildew", "rust"):
            write(*(f"{split}/{name}/{number}_jpg.rf.{split}{name}.jpg" for number in range(count)))
    write.text("README.roboflow.txt", "x")
    write.text("README.dataset.txt", "x")


def camera(write):
    names = [f"IMG_{number:04}" for number in range(40)]
    write(*(f"DCIM/Camera/{name}.jpg" for name in names))
    (write.folder / "DCIM/Camera/.thumbnails").mkdir()
    rows = [f"{name};{('healthy', 'unhealthy')[place % 2]};plant {place // 4}" for place, name in enumerate(names)]
    write.text("labels.csv", "Filename;Class;Plant", *rows)


def folder_per_plant(write):
    for plant in range(20):
        write(*(f"{('healthy', 'unhealthy')[plant % 2]}/plant_{plant:02}/{shot}.jpg" for shot in range(3)))


LAYOUTS = {
    "PlantVillage": (plant_village, 4, 48),
    "PlantDoc": (plant_doc, 3, 57),
    "Cassava (Kaggle)": (cassava, 3, 36),
    "Plant Pathology (Kaggle)": (plant_pathology, 3, 36),
    "Hugging Face imagefolder": (hugging_face, 2, 40),
    "Keras directory": (keras_directory, 2, 40),
    "TFDS folder": (tfds, 2, 40),
    "Roboflow folder export": (roboflow, 3, 60),
    "A phone's camera folder": (camera, 2, 40),
    "One folder per plant": (folder_per_plant, 2, 60),
}


@pytest.fixture
def settings(commands, tmp_path):
    """Return a function that writes a layout and returns the settings of its command."""

    def run(name):
        LAYOUTS[name][0](ImageWriter(tmp_path / "data of mine"))
        words = shlex.split(commands[name])[3:]
        return [word.replace("DATA", str(tmp_path / "data of mine")) for word in words if word != "-S"]

    return run


def test_each_documented_layout_is_tested(commands):
    assert set(commands) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_check_accepts_the_documented_command(name, settings, monkeypatch, pytestconfig):
    _, classes, images = LAYOUTS[name]
    values = parse_settings(settings(name))
    monkeypatch.chdir(pytestconfig.rootpath)
    table = [line.split() for line in check(values)[1].splitlines()]
    head = next(place for place, line in enumerate(table) if line[:1] == ["class"])
    total = next(place for place, line in enumerate(table) if line[:1] == ["all"])
    assert total - head - 1 == classes
    assert int(table[total][1]) == images


@pytest.fixture(scope="module")
def small_clone(clone, small):
    project = clone("layouts")
    project.set(**{**small, "balance": "none", "patience": 0, "epochs": 1, "batch_size": 16})
    project.commit("small")
    return project


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", LAYOUTS)
def test_dvc_trains_with_the_documented_command(name, settings, small_clone):
    _, classes, images = LAYOUTS[name]
    values = [f"{key}='{value}'" for key, _, value in (word.partition("=") for word in settings(name))]
    small_clone.run("dvc", "exp", "run", *(word for setting in values for word in ("-S", setting)), "train")
    metrics, models = small_clone.folder / "metrics", small_clone.folder / "models"
    ingested, run = (json.loads(path.read_text()) for path in (metrics / "ingest.json", models / "run.json"))
    assert (ingested["images"], len(ingested["classes"])) == (images, classes)
    assert (run["epochs"], len(run["classes"])) == (1, classes)
    small_clone.run("git", "checkout", "--quiet", ".")
