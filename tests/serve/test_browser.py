"""Test the prediction page in a real browser."""

import base64
import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def page(chromium, address):
    """Open the page; afterwards, check that it had no error and contacted no other server."""
    opened = chromium.new_page()
    opened.set_default_timeout(60_000)
    opened.problems, opened.requested = [], []
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("console", lambda line: opened.problems.append(line.text) if "Content Security" in line.text else None)
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.goto(address)
    yield opened
    assert opened.problems == []
    assert all(url.startswith((address, "blob:")) for url in opened.requested)
    opened.close()


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """Return the paths of two leaves, a red square and a text file named broken.jpg."""
    folder = tmp_path_factory.mktemp("files")
    leaves = np.load(trained / "images.npz")["test"]
    for name, pixels in (("leaf.png", leaves[0]), ("other.png", leaves[1]), ("red.png", np.full_like(leaves[0], 9))):
        Image.fromarray(pixels).resize((300, 200)).save(folder / name)
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")
    (folder / "broken.jpg").write_text("not an image")
    return {path.stem: str(path) for path in folder.iterdir()}


def cards(page, count):
    """Wait until `count` cards show a result, and return the cards."""
    page.wait_for_function(
        "count => document.querySelectorAll('.card:not([data-state=waiting])').length === count", arg=count
    )
    return page.locator(".card")


def test_dropped_file_is_predicted(page, files):
    with open(files["leaf"], "rb") as file:  # noqa: PTH123
        content = base64.b64encode(file.read()).decode()
    page.evaluate(
        """content => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const moved = new DataTransfer();
            moved.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            const how = { dataTransfer: moved, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent("drop", how));
        }""",
        content,
    )
    card = cards(page, 1)
    assert card.locator(".name").inner_text() == "dropped.png"
    assert card.get_attribute("data-state") in ("first", "second", "unknown")


def test_page_agrees_with_the_python_api(page, files, trained):
    import leaf

    page.set_input_files("#files", files["leaf"])
    card = cards(page, 1)
    row = leaf.load(trained / "models" / "model.onnx").predict(files["leaf"])[0]
    state = {"healthy": "first", "unhealthy": "second"}.get(row.answer, "unknown")
    assert card.get_attribute("data-state") == state
    assert card.locator(".label").inner_text().lower() == row.answer
    if row.answer == row.label:
        assert f"{100 * row.probability:.1f}%" in card.locator(".figures").inner_text()


def test_out_of_distribution_image_is_labeled_as_such(page, files):
    page.set_input_files("#files", files["red"])
    card = cards(page, 1)
    assert card.locator(".label").inner_text().lower() == "not like the training images"
    assert re.search("Most likely class: (un)?healthy", card.locator(".figures").inner_text())


def test_undecided_image_shows_its_most_likely_class(page, files):
    answer = {"label": "healthy", "answer": "undecided", "probability": 0.45, "threshold": 0.5, "known": True}
    answer["probabilities"] = {"healthy": 0.55, "unhealthy": 0.45}
    page.route("**/api/predict", lambda route: route.fulfill(json=answer))
    page.set_input_files("#files", files["leaf"])
    card = cards(page, 1)
    assert card.get_attribute("data-state") == "unknown"
    assert card.locator(".label").inner_text().lower() == "undecided"
    assert card.locator(".figures").inner_text().startswith("Most likely class: healthy\nunhealthy: 45.0%")
    assert page.locator("#summary").inner_text() == "1 image predicted: 1 undecided"


def test_predictions_are_counted_sorted_and_saved(page, files, tmp_path):
    page.set_input_files("#files", [files["leaf"], files["broken"], files["other"]])
    cards(page, 3)
    summary = page.locator("#summary").inner_text()
    assert summary.startswith("2 images predicted: ")
    assert "1 failed" in summary
    page.select_option("#sort", "label")
    assert page.locator(".card").last.get_attribute("data-state") == "broken"
    with page.expect_download() as download:
        page.locator("#csv").click()
    saved = download.value.path().read_text(encoding="utf-8").splitlines()
    assert saved[0].startswith('"image","label","answer","probability"')
    assert len(saved) == 3


def test_page_describes_the_model(page):
    page.locator("#model", has_text="2 classes").wait_for()


@pytest.mark.parametrize(
    ("names", "state"), [(["rust", "Bean_Healthy", "scab"], "first"), (["oak", "beech", "lime"], "other")]
)
def test_several_classes_are_listed_by_probability_and_only_diseases_are_red(page, files, address, names, state):
    model = {"backbone": "mobilenet_v2", "classes": names, "test_accuracy": 0.927}
    answer = {"label": names[1], "answer": names[1], "probability": 0.7, "threshold": None, "known": True}
    answer["probabilities"] = dict(zip(names, (0.2, 0.7, 0.1), strict=True))
    page.route("**/health", lambda route: route.fulfill(json=model))
    page.route("**/api/predict", lambda route: route.fulfill(json=answer))
    page.goto(address)
    page.locator("#model", has_text="mobilenet_v2 for 3 classes, test accuracy 92.7%").wait_for()
    assert page.title() == "What does this leaf show?"
    page.set_input_files("#files", files["leaf"])
    card = cards(page, 1)
    assert card.get_attribute("data-state") == state
    assert card.locator(".figures").inner_text().splitlines() == [
        f"70.0% {names[1]}",
        f"20.0% {names[0]}",
        f"10.0% {names[2]}",
    ]


def test_file_and_class_names_are_shown_as_text(page, files, address):
    """The names contain markup, a formula, right-to-left text, and more characters than fit on a card."""
    names = ["<img src=x onerror=alert(1)>", "=1+1", "\u202eevil\u202c", "a" * 300, "\u05e2\u05dc\u05d4 \U0001f342"]
    answer = {
        "image": "=cmd.png",
        "label": names[1],
        "answer": names[1],
        "probability": 0.7,
        "threshold": None,
        "known": True,
    }
    answer["probabilities"] = dict(zip(names, (0.1, 0.7, 0.1, 0.05, 0.05), strict=True))
    page.route("**/health", lambda route: route.fulfill(json={"backbone": "b", "classes": names, "test_accuracy": 1}))
    page.route("**/api/predict", lambda route: route.fulfill(json=answer))
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    page.on("dialog", lambda dialog: page.problems.append(dialog.message))
    content = Path(files["leaf"]).read_bytes()
    odd = [f"{name}.png" for name in ("<b>bold<b>", "=cmd", "\u202egnp.\u05e2", "a" * 200)]
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": content} for name in odd])
    shown = cards(page, len(odd))
    assert [name.replace("\u200b", "") for name in shown.locator(".name").all_inner_texts()] == odd
    assert names[0] in shown.first.locator(".figures").inner_text()
    assert page.locator("main b, main img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_download() as download:
        page.locator("#csv").click()
    with download.value.path().open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:2] for row in rows[1:]] == [["'=cmd.png", "'=1+1"]] * len(odd)


def test_broken_file_is_named_and_the_next_one_is_predicted(page, files):
    page.set_input_files("#files", [files["broken"], files["leaf"]])
    broken = cards(page, 2).filter(has_text="broken.jpg")
    assert broken.get_attribute("data-state") == "broken"
    assert "not a JPEG, PNG" in broken.inner_text() or "Not a JPEG, PNG" in broken.inner_text()
    assert page.locator(".card[data-state=broken]").count() == 1


def test_two_files_at_once_are_both_predicted(page, files):
    page.set_input_files("#files", [files["leaf"], files["other"]])
    assert sorted(cards(page, 2).locator(".name").all_inner_texts()) == ["leaf.png", "other.png"]
    assert page.locator("#summary").inner_text().startswith("2 images predicted: ")


def test_heatmap_is_shown_and_hidden(page, files):
    page.set_input_files("#files", files["leaf"])
    card = cards(page, 1)
    card.locator(".toggle").click()
    card.locator(".heat").wait_for(state="visible")
    assert card.locator(".heat").evaluate("image => image.decode().then(() => image.naturalWidth)") == 288
    card.locator(".toggle").click()
    card.locator(".heat").wait_for(state="hidden")


def test_at_390_pixels_nothing_overflows_and_buttons_are_large_enough(page, files):
    page.set_viewport_size({"width": 390, "height": 844})
    page.set_input_files("#files", [files["leaf"], files["broken"], files["red"]])
    cards(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(
        page.locator(button).first.bounding_box()["height"] >= 40 for button in (".button", ".toggle:not([hidden])")
    )


def test_file_chooser_is_reached_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"


def test_api_documentation_needs_no_other_server(page, address):
    page.goto(f"{address}/docs")
    page.get_by_role("heading", name="POST /api/predict").wait_for()
    assert "probability: number" in page.locator("main").inner_text()
