"""Test that the web app works offline, makes the same predictions as `leaf predict`, and keeps saved data."""

import csv
import functools
import http.server
import io
import json
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import leaf
from leaf.errors import LeafError
from leaf.export import web
from leaf.ingest.folder_source import FolderSource
from leaf.serve.classifier import prepare
from leaf.store import sha256
from leaf.synthesize import draw_leaf

pytestmark = [pytest.mark.slow, pytest.mark.browser]
CLASSES = ["healthy", "unhealthy"]


@pytest.fixture(scope="session")
def runtime():
    """Return the path of the onnxruntime-web package; skip the test if it is neither cached nor available from npm."""
    try:
        web.read_runtime(None)
    except LeafError as error:
        pytest.skip(f"onnxruntime-web is not available: {error}")
    return web.cache_folder("onnxruntime-web") / web.URL.rpartition("/")[2]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Return paths of synthetic leaves in JPEG, PNG, WebP and rotated JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    forms = [("jpg", {"quality": 90}), ("png", {}), ("webp", {"quality": 90}), ("jpg", {"exif": _orientation(6)})]
    files = []
    for number, (suffix, options) in enumerate(forms * 2):
        image = Image.fromarray(draw_leaf(np.random.default_rng(number), 160, number % 2 == 0))
        files.append(folder / f"{number}.{suffix}")
        image.crop((0, 0, 160, 150)).save(files[-1], **options)
    return files


def _orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.fixture(scope="session")
def exported(trained, runtime, tmp_path_factory):
    """Export the app as a folder, `app`, and as a single file, `leaf.html`; return the folder that contains both."""
    folder = tmp_path_factory.mktemp("exported")
    model = trained / "models" / "model.keras"
    about = "Leaves on soil."
    assert "app: " in web.export_web(model, folder / "app", single_file=False, runtime=runtime, about=about)
    web.export_web(model, folder / "leaf.html", single_file=True, runtime=runtime, about=about)
    return folder


@pytest.fixture(scope="session")
def address(exported):
    """Serve the app and yield its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(exported / "app"))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(params=["folder", "single file"])
def app(request, chromium, exported):
    """Yield the offline app, once for each form. Page errors and requests to other servers fail the test."""
    single = request.param == "single file"
    url = f"file://{exported}/leaf.html" if single else request.getfixturevalue("address")
    context = chromium.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems, requested = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: requested.append(request.url))
    page.goto(url)
    if not single:
        page.evaluate("navigator.serviceWorker.ready.then(() => 0)")
    context.set_offline(True)
    if not single:
        page.reload()
    page.locator("#status", has_text="Photos stay on this device").wait_for()  # the model is loaded
    yield page
    assert problems == []
    assert [each for each in requested if not each.startswith((url, "blob:", "data:"))] == []
    context.close()


def take(page, *files):
    """Add photos with the camera button and wait for their predictions."""
    for file in files:
        before = page.locator("#photos li, #warnings li").count()
        page.set_input_files("#camera", file)
        page.locator("#photos li, #warnings li").nth(before).wait_for()
        page.locator("#status", has_text="Photos stay on this device").wait_for()


def rows(page):
    """Return the rows of the downloaded table, newest plant first."""
    page.evaluate("document.getElementById('history').open = true")
    with page.expect_download() as started:
        page.locator("#csv").click()
    return list(csv.DictReader(io.StringIO(started.value.path().read_text(encoding="utf-8"))))


def test_predictions_match_leaf_predict(app, photos, trained):
    for file in photos:
        take(app, file)
        app.locator("#next").click()
    given = {row["photos"]: row for row in rows(app)}
    expected = leaf.load(trained / "models" / "model.onnx").predict(photos)
    assert np.ptp([row.probability for row in expected]) > 0.01
    for row in expected:
        found = given[Path(row.image).name]
        for name, probability in row.probabilities.items():
            assert float(found[f"probability of {name}"]) == pytest.approx(probability, abs=0.02)
        assert (found["predicted"], found["answer"]) == (row.label, row.answer)


def test_several_photos_of_a_plant_give_their_mean_and_range(app, photos, trained):
    take(app, *photos[:3])
    (row,) = rows(app)
    predicted = leaf.load(trained / "models" / "model.onnx").predict(photos[:3])
    used = [each.probability for each in predicted if each.known] or [each.probability for each in predicted]
    assert float(row["probability of unhealthy"]) == pytest.approx(np.mean(used), abs=0.02)
    assert row["photos"] == "0.jpg; 1.png; 2.webp"
    assert re.match(
        rf"Probability of \w+ by photo: [\d.]+% to [\d.]+% \(photos used: {len(used)}\)\.",
        app.locator("#spread").inner_text(),
    )


def test_photos_are_displayed_as_thumbnails(app, photos, tmp_path):
    Image.open(photos[1]).resize((1200, 900)).save(tmp_path / "large.png")
    take(app, tmp_path / "large.png")
    app.locator("#history summary").click()
    for place in ("#photos img", "#entries img"):
        app.locator(place).wait_for()
        size = app.locator(place).evaluate("img => img.decode().then(() => [img.naturalWidth, img.naturalHeight])")
        assert size == [341, 256]


def test_heatmap_is_drawn_over_the_photo(app, photos):
    take(app, photos[0])
    app.locator("#heatmap").click()
    app.locator("#heat").wait_for()
    colors = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert app.locator("#heat").evaluate(colors) > 50
    app.locator("#heatmap").click()
    app.locator("#heat").wait_for(state="hidden")


def test_dark_blurred_and_overexposed_photos_trigger_a_warning_and_are_predicted(app, photos, tmp_path):
    image = Image.open(photos[1])
    image.point(lambda value: value // 8).save(tmp_path / "dark.png")
    image.resize((8, 8)).resize(image.size, Image.Resampling.BICUBIC).save(tmp_path / "blurred.png")
    image.point(lambda value: min(255, value * 6)).save(tmp_path / "glare.png")
    take(app, tmp_path / "dark.png", tmp_path / "blurred.png", tmp_path / "glare.png")
    warnings = app.locator("#warnings").inner_text()
    for number, words in enumerate(("too dark", "blurred", "overexposed"), 1):
        assert re.search(rf"Photo {number} is {words}", warnings)
    assert app.locator("#photos li").count() == 3
    assert app.locator("#answer").inner_text()


def test_damaged_file_is_reported_and_the_next_photo_is_predicted(app, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    take(app, tmp_path / "broken.jpg", tmp_path / "phone.heic", photos[0])
    warnings = app.locator("#warnings").inner_text()
    assert "broken.jpg: this browser cannot read the file" in warnings
    assert "phone.heic: this browser cannot read HEIC" in warnings
    assert app.locator("#photos li").count() == 1


def test_the_history_survives_a_reload_and_is_deleted_on_demand(app, photos):
    take(app, photos[0])
    app.locator("#note").fill("row 7")
    app.locator("#truth").select_option("unhealthy")
    app.reload()
    app.locator("#history summary").click()
    app.locator("#entries li", has_text="row 7").wait_for()
    assert "unhealthy" in app.locator("#entries li").inner_text()
    app.on("dialog", lambda dialog: dialog.accept())
    app.locator("#clear").click()
    app.locator("#empty").wait_for()


def test_photo_taken_while_the_app_loads_is_predicted(chromium, address, photos):
    page = chromium.new_page()
    page.route("**/model.json", lambda route: page.locator("#camera").set_input_files(photos[0]) or route.continue_())
    page.goto(address)
    page.locator("#photos li").wait_for(timeout=60_000)
    page.close()


def test_zip_file_is_a_data_set_with_the_users_labels(app, photos, tmp_path):
    take(app, *photos[:2])
    app.locator("#truth").select_option("unhealthy")
    app.locator("#note").fill('=odd, "note"')
    app.locator("#next").click()
    take(app, photos[2])
    app.locator("#history summary").click()
    app.locator("#count", has_text="(2)").wait_for()
    with app.expect_download() as started:
        app.locator("#zip").click()
    with zipfile.ZipFile(started.value.path()) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    made = FolderSource(tmp_path, known=CLASSES, labels=tmp_path / "labels.csv")
    assert made.rows["name"].tolist() == ["unhealthy", "unhealthy"]
    assert len(set(made.rows["group"])) == 1
    (unlabelled,) = made.left_out
    assert (tmp_path / unlabelled).read_bytes() == photos[2].read_bytes()
    assert '\'=odd, ""note""' in (tmp_path / "labels.csv").read_text(encoding="utf-8")


def test_about_describes_the_model_and_its_limits(app):
    app.locator("#about summary").click()
    said = app.locator("#facts").inner_text()
    for line in ("cnn_small. Classes: healthy, unhealthy.", "Leaves on soil.", "Test accuracy 90%."):
        assert line in said
    assert "does not recognize a new disease" in said


def test_axe_finds_no_serious_violation(app, photos):
    axe = pytest.importorskip("axe_playwright_python.base").AXE_FILE_PATH.read_text(encoding="utf-8")
    take(app, photos[0], photos[1])
    app.locator("#heatmap").click()
    app.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    app.locator("#entries li").first.wait_for()
    app.evaluate(axe)
    for scheme in ("light", "dark"):
        app.emulate_media(color_scheme=scheme)
        found = app.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] != "minor"] == []


def test_at_360_pixels_nothing_overflows_and_buttons_are_easy_to_tap(app, photos):
    take(app, photos[0])
    assert app.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [each.bounding_box() for each in app.locator("button:visible, .button, select:visible").all()]
    assert min(box["height"] for box in boxes) >= 44


def test_main_controls_are_reachable_with_the_keyboard(app, photos):
    take(app, photos[0])
    reached = set()
    for _ in range(12):
        app.keyboard.press("Tab")
        reached.add(app.evaluate("document.activeElement.id"))
    assert {"camera", "files", "next", "heatmap", "truth", "note"} <= reached


@pytest.mark.parametrize("locale", ["es-PE", "fr-CI", "pt-BR", "hi-IN", "sw-KE", "de-DE"])
def test_the_language_follows_the_browser(chromium, address, locale):
    language = locale[:2] if locale[:2] in web.LANGUAGES else "en"
    texts = json.loads((web.APP / "texts" / f"{language}.json").read_text(encoding="utf-8"))
    context = chromium.new_context(locale=locale)
    page = context.new_page()
    page.goto(address)
    page.locator("h1", has_text=texts["title"]).wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.lang") == language
    context.close()


@pytest.mark.parametrize("language", web.LANGUAGES)
def test_every_language_has_the_keys_and_values_of_english(language):
    english, other = (json.loads((web.APP / "texts" / f"{each}.json").read_text()) for each in ("en", language))
    names = {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in english.items()}
    assert {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in other.items()} == names


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(300, 200), (90, 130), (97, 96), (1200, 700)])
def test_pixels_match_ingest(chromium, address, fit, size, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    page = chromium.new_page()
    page.goto(address)
    for name, options in (("a.png", {}), ("a.jpg", {"exif": _orientation(8), "quality": 95, "subsampling": 0})):
        image.save(tmp_path / name, **options)
        found = page.evaluate(
            """async ([bytes, size, fit]) => {
                const { prepare } = await import("./pixels.js");
                const { pixels } = await prepare(new File([Uint8Array.from(bytes)], ""), size, fit);
                return Array.from(pixels);
            }""",
            [list((tmp_path / name).read_bytes()), 96, fit],
        )
        difference = np.abs(np.array(found).reshape(96, 96, 3) - prepare(tmp_path / name, 96, name, fit).astype(int))
        assert difference.max() <= 3
        assert difference.mean() < 0.5
    page.close()


@pytest.mark.parametrize("number", range(16))
def test_views_match_evaluation(chromium, address, number):
    from leaf.models.tta import tta_view

    image = np.random.default_rng(0).uniform(0, 255, (1, 24, 24, 3)).astype(np.float32)
    page = chromium.new_page()
    page.goto(address)
    script = """async ([values, number]) => {
        const { view } = await import("./model.js");
        return Array.from(view(Float32Array.from(values), 24, number));
    }"""
    found = page.evaluate(script, [image.ravel().tolist(), number])
    np.testing.assert_allclose(np.reshape(found, image.shape), tta_view(image, number), atol=1e-3)
    page.close()


def test_pixel_statistics_match_the_detector(chromium, address, photos):
    from leaf.evaluate.out_of_distribution import image_statistics

    image = prepare(photos[1], 96, "leaf")
    page = chromium.new_page()
    page.goto(address)
    script = """async (values) => {
        const { statistics } = await import("./model.js");
        return statistics(Float32Array.from(values), 96);
    }"""
    found = page.evaluate(script, image.ravel().tolist())
    np.testing.assert_allclose(found, image_statistics(image[None])[0], atol=1e-3)
    page.close()


def test_the_web_model_keeps_probabilities_and_adds_the_distance(trained):
    classifier = leaf.load(trained / "models" / "model.onnx")
    images = np.load(trained / "images.npz")["test"].astype(np.float32)
    content = web.web_model((trained / "models" / "model.onnx").read_bytes(), classifier.ood_detector.features)
    given = onnxruntime.InferenceSession(content).run(["probabilities", "distance"], {"images": images})
    expected, features = classifier.network.predict(images)
    assert np.abs(given[0] - expected).max() < 0.01
    np.testing.assert_allclose(given[1], classifier.ood_detector.features.distance(features), rtol=0.02)


def test_package_with_another_hash_is_rejected(tmp_path):
    (tmp_path / "runtime.tgz").write_bytes(b"something else")
    with pytest.raises(LeafError, match=r"runtime\.tgz: SHA-512 is .*, expected q0y"):
        web.read_runtime(tmp_path / "runtime.tgz")
    with pytest.raises(LeafError, match=r"missing\.tgz: no such file"):
        web.read_runtime(tmp_path / "missing.tgz")


def test_a_damaged_download_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    monkeypatch.setattr(web, "URL", (tmp_path / "package.tgz").as_uri())
    with pytest.raises(LeafError, match=r"the download failed .* --runtime FILE"):
        web.read_runtime(None)
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(LeafError, match="SHA-512"):
        web.read_runtime(None)


@pytest.mark.parametrize(("single", "name"), [(True, "app"), (False, "app.html")])
def test_path_that_does_not_match_the_form_is_rejected(trained, tmp_path, single, name):
    with pytest.raises(LeafError, match=rf"{name}: .*(an \.html file|a folder)"):
        web.export_web(trained / "models" / "model.onnx", tmp_path / name, single, None, "")


def test_export_is_reproducible(trained, exported, runtime, tmp_path):
    web.export_web(trained / "models" / "model.onnx", tmp_path / "leaf.html", True, runtime, "Leaves on soil.")
    assert sha256(tmp_path / "leaf.html") == sha256(exported / "leaf.html")
