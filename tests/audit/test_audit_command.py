"""Test `leaf audit` on a finished run: metrics/audit.json and the page."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audited(project):
    """Return a finished run and the output of `leaf audit`."""
    leaf = np.hypot(*(np.mgrid[:32, :32] - 16)) < 10
    (project.folder / "masks").mkdir()
    for number in range(0, 208, 2):
        Image.fromarray(leaf).save(project.folder / f"masks/{number}.png")
    return project, project.run("leaf", "audit", "--masks", "masks").stdout


def test_audit_json_has_its_fixed_keys(audited):
    found = json.loads((audited[0].folder / "metrics/audit.json").read_text())
    assert {"majority", "border_pixels", "frame", "colour"} <= found["shortcuts"].keys()
    scores = [*found["shortcuts"].values(), *found["transport"]["background"].values(), *found["new_class"].values()]
    for score in scores:
        for each in [score] if "accuracy" in score else [score[key] for key in score.keys() & {"inside", "outside"}]:
            assert 0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1
    assert found["guessed"] is True
    assert found["network"]["unchanged"]["accuracy"] == pytest.approx(found["model"]["accuracy"], abs=0.02)


def test_images_with_a_mask_are_scored_without_their_leaf(audited):
    found = json.loads((audited[0].folder / "metrics/audit.json").read_text())
    assert found["without_leaf"]["images"] == found["shortcuts"]["background"]["images"] > 80
    assert 0 <= found["without_leaf"]["caught"]["low"] <= found["without_leaf"]["auroc"]["accuracy"] <= 1
    assert f"of {found['without_leaf']['images']} images with the leaf removed" in audited[1]


def test_shortcuts_and_left_out_values_have_majority_and_balanced_accuracy(audited):
    found = json.loads((audited[0].folder / "metrics/audit.json").read_text())
    for name, each in found["shortcuts"].items():
        assert name == "majority" or (0 <= each["balanced"] <= 1 and 0 < each["majority"] < 1)
    for each in found["transport"]["background"].values():
        assert 0 < each["majority"] < 1
        assert all(0 <= each[f"balanced_{way}"] <= 1 for way in ("inside", "outside"))


def test_each_question_has_one_line(audited):
    lines = audited[1].splitlines()
    assert [line[:2] for line in lines[:-1]] == [f"{number}." for number in range(1, 8)]


def test_the_page_has_every_question_and_loads_nothing(audited):
    page = (audited[0].folder / "reports/audit.html").read_text()
    for line in audited[1].splitlines()[:-1]:
        assert re.escape(line[3 : line.index("?") + 1])[:20] in re.escape(page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_an_unknown_column_lists_the_known_ones(audited):
    done = audited[0].run("leaf", "audit", "--by", "farm", status=2)
    assert done.stderr.splitlines()[-1].startswith("error: --by farm: no such column. ")


def test_unknown_camera_is_reported(audited):
    assert (
        "Not found in tables or EXIF data: site, crop, camera, date."
        in (audited[0].folder / "reports/audit.html").read_text()
    )
    done = audited[0].run("leaf", "audit", "--by", "camera", status=2)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: --by camera: no such column, and no image has it in its EXIF data. ")


@pytest.mark.full
def test_dates_have_a_single_day_month_order_and_unused_ones_are_reported(audited):
    path = audited[0].folder / "data/ingested/index.csv"
    index = pd.read_csv(path, keep_default_na=False)
    index["date"] = [f"{1 + row % 28:02}.{3 + row % 2:02}.2024" for row in range(len(index))]
    index.loc[0, "date"] = "in spring"
    index.to_csv(path, index=False)
    audited[0].run("leaf", "audit", "--by", "date")
    assert json.loads((audited[0].folder / "metrics/audit.json").read_text())["transport"]["date"].keys() == {
        "2024-03",
        "2024-04",
    }
    page = (audited[0].folder / "reports/audit.html").read_text()
    assert "Dates such as 02.04.2024 are interpreted as day, month, year." in page
    assert "in spring" in page


@pytest.mark.full
def test_train_retrains_without_each_exif_camera(audited):
    random, leaves = np.random.default_rng(0), audited[0].folder / "leaves"
    for number in range(120):
        path = leaves / ("healthy", "unhealthy")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0110] = ("phone", "reflex")[number // 2 % 2]
        pixels = random.integers(0, 90, (32, 32, 3))
        pixels[..., 1] += 60 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif, quality=95)
    done = audited[0].run("leaf", "audit", "-S", f"dataset={leaves}", "-S", "test_size=40", "--by", "camera", "--train")
    found = json.loads((audited[0].folder / "metrics/audit.json").read_text())
    assert found["transport"]["camera"].keys() == {"phone", "reflex"}
    assert all(one["images"] == 60 and one["outside"]["accuracy"] >= 0 for one in found["transport"]["camera"].values())
    assert "accuracy of the retrained network" in done.stdout


@pytest.mark.full
def test_settings_run_in_a_separate_folder(audited):
    folder = audited[0].folder
    before = (folder / "models/run.json").read_bytes()
    done = audited[0].run("leaf", "audit", "-S", "epochs=1")
    assert "reports/audit.html" in done.stdout
    assert (folder / "models/run.json").read_bytes() == before
    assert "audit-default" in audited[0].run("dvc", "exp", "list", "--name-only").stdout
