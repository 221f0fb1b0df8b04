"""Run the data stages on real images, through DVC, in a new clone."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


@pytest.fixture(scope="module")
def project(clone):
    return clone("real")


def run_data_stages(project, dataset):
    project.run("dvc", "exp", "run", "-S", f"dataset={dataset}", "balance")
    names = ("ingest", "clean", "split", "balance")
    return {name: json.loads((project.folder / f"metrics/{name}.json").read_text()) for name in names}


def test_leaves_1041_has_the_expected_counts(project, shared):
    metrics = run_data_stages(project, shared / "leaves_1041.npz")
    assert metrics["ingest"] == {"images": 1041, "classes": {"healthy": 640, "unhealthy": 401}}
    clean = metrics["clean"]
    assert (clean["outliers"], clean["duplicates"], clean["near_duplicates"]) == (40, 31, 0)
    assert (clean["kept"], *clean["kept_classes"].values()) == (970, 612, 358)
    assert metrics["split"]["shared_groups"] == 0
    after = metrics["balance"]["after"]
    assert after["healthy"] == after["unhealthy"]


def test_groups_stay_in_one_split(project, shared):
    metrics = run_data_stages(project, shared / "leaves_by_plant")
    assert metrics["ingest"] == {"images": 1246, "classes": {"healthy": 677, "unhealthy": 569}}
    assert metrics["split"]["shared_groups"] == 0


def test_patterns_merge_nine_folders_into_two_classes(project, shared):
    patterns = 'classes={healthy:["*healthy"],unhealthy:["*"]}'
    dataset = f"dataset={shared / 'leaves_by_disease'}"
    project.run("dvc", "exp", "run", "-S", dataset, "-S", "classes=null", "-S", patterns, "ingest")
    ingest = json.loads((project.folder / "metrics/ingest.json").read_text())
    assert ingest == {"images": 680, "classes": {"healthy": 241, "unhealthy": 439}}
