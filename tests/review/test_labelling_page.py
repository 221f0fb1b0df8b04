"""Test the labeling page in a real browser, operated by keyboard, followed by `dvc repro`."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import uvicorn

from leaf.review.labelling import create_labelling_app
from leaf.review.session import load_labelling
from leaf.serve.server import LOOPBACK, open_port
from leaf.synthesize import ImageCounts, draw_dataset

from .test_labelling import make_labelling, rows

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """Open the page with 300 new images; page errors and requests to other servers fail the test."""
    listening = open_port("127.0.0.1", 0)
    app = create_labelling_app(make_labelling(tmp_path), "token", LOOPBACK)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(30_000)
    problems: list[str] = []
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
    context.on("request", lambda each: problems.append(each.url) if "//127.0.0.1" not in each.url else None)
    made = context.new_page()
    made.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/token/")
    made.locator("#images img").wait_for()
    made.locator("#actions button").first.wait_for()
    yield made
    assert problems == []
    context.close()
    server.should_exit = True


def press(page: Any, key: str, status: str) -> None:
    """Press a key and wait for the status message."""
    page.keyboard.press(key)
    page.locator("#status", has_text=re.compile(status)).wait_for()


def saved(page: Any) -> None:
    """Wait until all labels are saved."""
    for _ in range(1500):
        if page.evaluate("pending === 0"):
            return
        time.sleep(0.02)
    pytest.fail("labels are not saved after 30 s")


def current(page: Any) -> dict[str, Any]:
    return page.evaluate("waiting[0]")


def test_enter_confirms_the_prediction_and_a_random_sample_requires_a_class(page: Any, tmp_path: Path) -> None:
    for _ in range(4):
        press(page, "Enter", f"{current(page)['image']}.jpg: ")
    assert current(page)["chosen"] == "random"
    press(page, "Enter", "No prediction for this image")
    press(page, "2", "unhealthy")
    saved(page)
    assert rows(tmp_path)["chosen"].value_counts().to_dict() == {"model": 4, "random": 1}


def test_undo_returns_to_the_image(page: Any, tmp_path: Path) -> None:
    first = current(page)["image"]
    press(page, "1", "healthy")
    assert current(page)["image"] != first
    press(page, "z", "Undone")
    assert current(page)["image"] == first
    assert rows(tmp_path).empty
    assert page.locator("#progress").inner_text() == "0 labeled, 300 to go"


def test_cluster_is_labeled_at_once_without_the_deselected_image(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("g")
    page.locator("#tiles [role=option]").nth(3).wait_for()
    members = page.evaluate("members")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    press(page, "Enter", f"{len(members) - 1} images: ")
    saved(page)
    hashes = set(rows(tmp_path)["file_hash"])
    assert hashes == {f"{image:032x}" for image in members} - {f"{members[1]:032x}"}
    assert set(rows(tmp_path)["chosen"]) == {"cluster"}


# returns the milliseconds until the next image is on the page
PRESS = """key => {
    const start = performance.now();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    return performance.now() - start;
}"""


def test_two_hundred_images_take_less_than_five_minutes(page: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    times = []
    for _ in range(200):
        key = str(current(page)["image"] % 2 + 1)
        times.append(page.evaluate(PRESS, key))
    saved(page)
    page.locator("#question", has_text="?").wait_for()  # the next batch of images has been ranked
    assert time.monotonic() - start < 300
    assert np.median(times) < 50
    assert len(rows(tmp_path)) == 200


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_fits_the_screen(page: Any, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    for key in ("", "g"):
        if key:
            page.keyboard.press(key)
            page.locator("#tiles [role=option]").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    low = page.evaluate(
        "[...document.querySelectorAll('button')].filter(e => e.checkVisibility() && e.offsetHeight < 40).length"
    )
    assert low == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", dark))) < 60) == (scheme == "dark")


@pytest.fixture(scope="module")
def labelled(clone: Any, chromium: Any) -> Any:
    """Label 50 of 300 new images, retrain once, commit data/labels.csv, rename all files, and run the pipeline."""
    made = clone("labelling")
    images, labels = draw_dataset(ImageCounts(190, 170, 0, 0, 0), 48, 7)
    names = ["healthy", "unhealthy"]
    random = np.random.default_rng(0).permutation(len(images))
    truth = {}
    for number, image in enumerate(random.tolist()):
        name = names[int(labels[image])]
        path = Path("leaves", name, f"{number}.png") if number < 60 else Path("data/unlabelled", f"{number}.png")
        (made.folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(made.folder / path), images[image][..., ::-1])
        truth[str(path)] = name
    made.set(dataset="leaves", image_size=48, backbone="cnn_small", epochs=1)
    made.run("dvc", "repro", "split")
    made.commit("labeled images")
    command = [sys.executable, "-c", "from leaf.cli import main; main()", "review", "--unlabelled", "--quiet"]
    process = subprocess.Popen(command, cwd=made.folder, env=made.environment(), stdout=subprocess.PIPE, text=True)
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(process.stdout.readline().strip())
    page.locator("#actions button").first.wait_for()
    for number in range(50):
        item = current(page)
        page.keyboard.press(str(names.index(truth[item["file"]]) + 1))
        page.locator("#progress", has_text=f"{number + 1} labeled").wait_for()
    saved(page)
    press(page, "t", "Retrained")
    assert page.evaluate("run.curve.at(-1)[0]") == 40
    page.close()
    process.terminate()
    assert process.wait(60) == 0
    made.commit("labels of 50 new images")
    for file in (made.folder / "data/unlabelled").glob("*.png"):
        file.rename(file.with_name(f"renamed-{file.name}"))
    made.run("dvc", "repro")
    made.truth = truth
    return made


def test_labels_are_in_git(labelled: Any) -> None:
    committed = labelled.run("git", "show", "HEAD:data/labels.csv").stdout.splitlines()
    assert len(committed) == 51
    assert committed[0] == "file,label,group,split,file_hash,who,date,run,chosen"


def test_repro_uses_the_labels_of_renamed_files(labelled: Any) -> None:
    index = pd.read_csv(labelled.folder / "data/ingested/index.csv", keep_default_na=False)
    new = index[index["chosen"] != ""]
    assert (len(index), len(new)) == (110, 50)
    names = ["healthy", "unhealthy"]
    for source, label in zip(new["source"], new["label"], strict=True):
        assert names[label] == labelled.truth[source.replace("renamed-", "")]
    assert len(pd.read_csv(labelled.folder / "data/ingested/unlabelled.csv")) == 250


def test_images_selected_by_the_model_are_only_in_train(labelled: Any) -> None:
    index = pd.read_csv(labelled.folder / "data/ingested/index.csv", keep_default_na=False)
    split = pd.read_csv(labelled.folder / "data/split/splits.csv").merge(index, on="image", suffixes=("", "_given"))
    assert set(split.loc[~split["chosen"].isin(["", "random"]), "split"]) == {"train"}
    assert set(split["split"]) == {"train", "validation", "test"}


def test_training_and_evaluation_use_the_labels(labelled: Any) -> None:
    counts = json.loads((labelled.folder / "metrics/split.json").read_text())
    kept = pd.read_csv(labelled.folder / "data/cleaned/decisions.csv").query("kept == 1")
    assert sum(counts[name] for name in ("train", "validation", "test")) == len(kept) > 60
    assert json.loads((labelled.folder / "metrics/train.json").read_text())["epochs"] == 1
    scored = pd.read_csv(labelled.folder / "data/scored/predictions.csv")
    assert scored["source"].str.contains("renamed-").any()
    assert (labelled.folder / "reports/report.html").is_file()


def test_check_counts_the_unlabeled_images(labelled: Any) -> None:
    assert re.search(r"^unlabelled 300 images .*\b50\b", labelled.run("leaf", "check").stdout, re.M)


def test_data_set_without_any_label_is_labeled_from_the_start(clone: Any) -> None:
    made = clone("unlabelled")
    images, labels = draw_dataset(ImageCounts(30, 30, 0, 0, 0), 48, 8)
    (made.folder / "photos").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(made.folder / f"photos/{number}.png"), image[..., ::-1])
    made.set(dataset="photos", image_size=48)
    assert "leaf review --unlabelled" in made.run("dvc", "repro", "split", status=None).stderr
    labelling = load_labelling(made.folder)
    assert labelling.state()["items"][0]["chosen"] == "diverse"
    for number, label in enumerate(labels.astype(int).tolist()):
        image = labelling.index["source"].tolist().index(f"{number}.png")
        labelling.label([image], labelling.classes[label], "random")
    made.run("dvc", "repro", "split")
    index = pd.read_csv(made.folder / "data/ingested/index.csv")
    assert len(index) == 60
    assert (index["label"] == labels[index["source"].str.removesuffix(".png").astype(int)]).all()
    assert "labels in data/labels.csv: 60" in made.run("leaf", "check").stdout
