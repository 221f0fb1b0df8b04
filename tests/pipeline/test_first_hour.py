"""Follow the steps of docs/getting-started.md on real images."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leaf.finished_run import display_names

pytestmark = [pytest.mark.slow, pytest.mark.realdata, pytest.mark.timeout(1800)]

CROPS = ("Apple___Apple_scab", "Apple___healthy", "Bean___healthy", "Bean___rust")
DISEASES = ["Apple healthy", "Bean healthy", "Apple Apple_scab", "Bean rust"]


def copy_images(shared: Path, folder: Path, source: str, target: str, first: int, last: int) -> None:
    """Copy images `first` to `last` of a leaves_by_disease class, without the label table."""
    (folder / target).mkdir(parents=True, exist_ok=True)
    for path in sorted((shared / "leaves_by_disease" / source).iterdir())[first:last]:
        shutil.copy(path, folder / target)


def predict(project: Any) -> str:
    """Return the output of `leaf predict` for one image."""
    image = next((project.folder.parent / "crops").rglob("*.jpg"))
    return project.run("leaf", "predict", str(image)).stdout


def splits(project: Any) -> dict[str, str]:
    """Return the split of each image by its file hash."""
    index = pd.read_csv(project.folder / "data/ingested/index.csv", dtype={"file_hash": str})
    table = pd.read_csv(project.folder / "data/split/splits.csv").merge(index, on="image")
    return dict(zip(table["file_hash"], table["split_x"], strict=True))


def test_first_hour(clone: Any, shared: Path) -> None:
    project = clone("hour")
    folder = project.folder.parent
    params = project.folder / "params.yaml"

    def values() -> dict[str, Any]:
        return yaml.safe_load(params.read_text(encoding="utf-8"))

    def metrics(name: str) -> dict[str, Any]:
        return json.loads((project.folder / f"metrics/{name}.json").read_text(encoding="utf-8"))

    committed = values()
    weights = ("-S", f"weights={shared / 'mobilenet_v2_imagenet_no_top.h5'}", "-S", "image_size=96")

    # a folder for each class
    for name in CROPS[:2]:
        copy_images(shared, folder / "apples", name, name.replace("___", " "), 0, 24)
    started = project.run("leaf", "start", str(folder / "apples"), "--yes", *weights).stdout
    assert "What are the classes?" not in started
    assert values()["classes"] == ["Apple healthy", "Apple Apple_scab"]
    assert metrics("ingest")["images"] == 48

    # a folder for each crop, with a subfolder for each class
    for name in CROPS:
        copy_images(shared, folder / "crops", name, name.replace("___", "/"), 0, 24)
    started = project.run("leaf", "start", str(folder / "crops"), "--yes", *weights).stdout
    assert "merges 'healthy' from several crops" in started
    assert values()["classes"] == DISEASES
    assert set(pd.read_csv(project.folder / "data/ingested/index.csv")["crop"]) == {"Apple", "Bean"}
    assert metrics("evaluate")["test"]["accuracy"] > 0.5  # chance is 0.25
    assert predict(project)

    # other experiments on the same data; none inherits the settings of the previous one
    short = ("-S", "frozen_epochs=1", "-S", "epochs=2", "-S", "views=1")
    project.run("leaf", "run", "transfer", *short, *weights)
    assert (values()["optimizer"], values()["balance"]) == ("adamw", committed["balance"])
    project.run("leaf", "run", "default", "-S", "epochs=1", "-S", "image_size=32")
    data = {"dataset": str(folder / "crops"), "classes": DISEASES}
    assert values() == {**committed, **data, "epochs": 1, "image_size": 32}
    shown = project.run("dvc", "exp", "show", "--drop", ".*", "--keep", "Experiment|test.accuracy$").stdout
    assert all(name in shown for name in ("probe", "transfer", "default"))

    assert "transfer" in project.run("leaf", "compare", "probe", "transfer").stdout

    # apply an experiment, then run with an invalid setting
    project.run("dvc", "exp", "apply", "transfer")
    project.commit("Train with transfer")
    failed = project.run("dvc", "exp", "run", "-S", "optimizer=lbfgs", status=None)
    assert failed.returncode
    assert "git checkout params.yaml" in failed.stderr
    assert predict(project)
    project.run("git", "checkout", "params.yaml")

    # pin the splits, then add images and a class, then rename a folder
    project.run("leaf", "start", str(folder / "crops"), "--yes", *weights)
    project.run("leaf", "pin")
    pinned = splits(project)
    copy_images(shared, folder / "crops", "Bean___rust", "Bean/rust", 24, 34)
    copy_images(shared, folder / "crops", "Bean___angular_leaf_spot", "Bean/leaf spot", 0, 24)
    refused = project.run("leaf", "check", status=2).stderr
    assert "leaf spot" in refused
    started = project.run("leaf", "start", str(folder / "crops"), "--yes", *weights).stdout
    assert "Bean leaf spot" in values()["classes"]
    assert {name: split for name, split in splits(project).items() if name in pinned} == pinned
    (folder / "crops/Apple/Apple_scab").rename(folder / "crops/Apple/scab")
    project.run("leaf", "start", str(folder / "crops"), "--yes", *weights)
    assert "Apple scab" in values()["classes"]
    assert {name: split for name, split in splits(project).items() if name in pinned} == pinned

    # add a manual decision, then check the report
    source = pd.read_csv(project.folder / "data/ingested/index.csv")["source"].iloc[0]
    overrides = project.folder / "data/overrides.csv"
    header = overrides.read_text(encoding="utf-8").splitlines()[0]
    overrides.write_text(f"{header}\n{source},drop,,A Person,not a leaf\n", encoding="utf-8")
    project.run("dvc", "repro")
    assert metrics("clean")["kept"] < metrics("ingest")["images"]
    report = (project.folder / "reports/report.html").read_text(encoding="utf-8")
    assert all(name in report for name in display_names(values()["classes"]))
    assert re.search(r"accuracy [\d.]+%", project.run("leaf", "results").stdout)
