"""Compare the exported web app with `leaf predict`; measure the size, speed, memory and capture check of the app.

    python benchmarks/web.py --model models/model.onnx --photos FOLDER

Use photos that the model was not trained on. 200 photos of the first folder are stored in other formats, sizes and
orientations; all photos of all folders go through the capture check. The app runs in headless Chromium without
a network connection. The script records the tables `web` (differences by kind of file), `web_cost` and `web_checks`.
"""

import base64
import contextlib
import csv
import functools
import gzip
import http.server
import io
import itertools
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright
from runs import keep_table, table_parser

import leaf
from leaf.export.web import export_web
from leaf.serve.classifier import Classifier, prepare

FLAGS = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
SETTLE = 30  # photos before the first memory measurement


def oriented(image: Image.Image, number: int) -> bytes:
    """Return a JPEG file with the EXIF orientation `number`."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    turned = image.transpose(Image.Transpose(undo[number])) if number in undo else image
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(turned, "JPEG", quality=92, exif=exif)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """Encode `image` in the format `form` and return the bytes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize the image to cover `width` × `height`, then crop it to that size."""
    scale = max(width / image.width, height / image.height)
    larger = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return larger.crop((0, 0, width, height))


def with_alpha(image: Image.Image) -> Image.Image:
    """Make one corner transparent."""
    made = image.convert("RGBA")
    made.paste((0, 0, 0, 0), (0, 0, image.width // 3, image.height // 3))
    return made


def deep(image: Image.Image) -> bytes:
    """Encode the image as PNG with 16 bits per channel."""
    return cv2.imencode(".png", np.asarray(image)[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


KINDS: dict[str, tuple[str, Callable[[Image.Image, int], bytes]]] = {
    "JPEG": (".jpg", lambda image, _: saved(image, "JPEG", quality=90)),
    "JPEG, 640×480": (".jpg", lambda image, _: saved(sized(image, 640, 480), "JPEG", quality=85)),
    "JPEG, 1001×1333": (".jpg", lambda image, _: saved(sized(image, 1001, 1333), "JPEG", quality=90)),
    "JPEG, 4032×3024": (".jpg", lambda image, _: saved(sized(image, 4032, 3024), "JPEG", quality=90)),
    "JPEG, EXIF orientation 1–8": (".jpg", lambda image, n: oriented(sized(image, 803, 602), n % 8 + 1)),
    "JPEG, progressive": (".jpg", lambda image, _: saved(image, "JPEG", quality=90, progressive=True)),
    "JPEG, gray": (".jpg", lambda image, _: saved(image.convert("L"), "JPEG", quality=90)),
    "PNG": (".png", lambda image, _: saved(image, "PNG")),
    "PNG, 90×120": (".png", lambda image, _: saved(image.resize((90, 120)), "PNG")),
    "PNG, transparent": (".png", lambda image, _: saved(with_alpha(image), "PNG")),
    "PNG, 16 bits": (".png", lambda image, _: deep(image)),
    "WebP": (".webp", lambda image, _: saved(sized(image, 500, 333), "WEBP", quality=85)),
    "AVIF": (".avif", lambda image, _: saved(image, "AVIF", quality=80)),
}


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder and yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def answer(page: Page, file: Path) -> float:
    """Return the time in seconds until the app shows the result for one photo."""
    if page.locator("#plant").is_visible():
        page.locator("#next").click()
    start = time.perf_counter()
    page.set_input_files("#camera", file)
    page.locator("#photos li, #warnings li").first.wait_for(timeout=60_000)
    return time.perf_counter() - start


def parity(page: Page, classifier: Classifier, photos: list[Path], folder: Path, count: int) -> list[list[str]]:
    """Return a row per kind of file and one for all: photos, largest and mean difference, changed predictions."""
    names, files = list(KINDS), []
    for number in range(count):
        suffix, store = KINDS[names[number % len(names)]]
        files.append(folder / f"{number:03}{suffix}")
        with Image.open(photos[number % len(photos)]) as image:
            files[-1].write_bytes(store(image.convert("RGB"), number // len(names)))
    for file in files:
        answer(page, file)
    with page.expect_download() as started:
        page.evaluate("document.getElementById('history').open = true")
        page.locator("#csv").click()
    page.evaluate("document.getElementById('history').open = false")
    text = started.value.path().read_text(encoding="utf-8")
    given = {row["photos"]: row for row in csv.DictReader(io.StringIO(text))}
    rows: list[list[str]] = []
    expected = {prediction.image: prediction for prediction in classifier.predict(files)}
    worst: list[tuple[float, bool]] = []
    for kind, name in enumerate(names):
        compared = []
        for file in files[kind :: len(names)]:
            one, other = expected[str(file)], given[file.name]
            found = {each: float(other[f"probability of {each}"]) for each in classifier.classes}
            differences = [abs(found[each] - one.probabilities[each]) for each in classifier.classes]
            compared.append((max(differences), one.label != other["predicted"]))
        worst += compared
        rows.append([name, *summary(compared)])
    return [*rows, ["all", *summary(worst)]]


def summary(compared: list[tuple[float, bool]]) -> list[str]:
    """Return the number of photos, the largest and mean difference, and the number with a different predicted class."""
    differences = [difference for difference, _ in compared]
    other = sum(changed for _, changed in compared)
    return [str(len(compared)), f"{max(differences):.4f}", f"{statistics.mean(differences):.4f}", str(other)]


def memory(browser: Browser, page: Page) -> tuple[float, float]:
    """Return the MiB that the page's JavaScript heap and process (with WebAssembly) use after garbage collection."""
    page.evaluate("gc()")
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [Path(f"/proc/{each['id']}/statm") for each in processes if each["type"] == "renderer"]
    pages = max(int(path.read_text().split()[1]) for path in renderers)
    return heap / 2**20, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def degraded(image: Image.Image) -> dict[str, Image.Image]:
    """Return degraded versions of the image: too dark, blurred, overexposed, and too far away."""
    small = Image.new("RGB", image.size, (120, 118, 116))
    side = image.width // 8
    small.paste(image.resize((side, side)), (image.width // 2, image.height // 2))
    return {
        "dark": image.point(lambda value: value * 0.2),
        "blurred": image.filter(ImageFilter.GaussianBlur(image.width / 40)),
        "glare": image.point(lambda value: min(255, value * 3)),
        "small": small,
    }


def measures(page: Page, images: list[np.ndarray]) -> list[dict[str, float]]:
    """Return the measurements of the capture check for prepared images (S, S, 3)."""
    script = """async ([images, size]) => {
        const { measure } = await import("./checks.js");
        return images.map((text) => measure(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)), size));
    }"""
    found: list[dict[str, float]] = []
    for start in range(0, len(images), 100):
        part = [base64.b64encode(image.tobytes()).decode() for image in images[start : start + 100]]
        found += page.evaluate(script, [part, images[0].shape[0]])
    return found


def checks(page: Page, classifier: Classifier, photos: list[Path]) -> list[list[str]]:
    """Return a row per check and one for any: limit, quantile of good photos, shares of photos that trigger it."""
    limits = page.evaluate("import('./checks.js').then(({ LIMITS }) => LIMITS)")
    size, fit = classifier.image_size, classifier.fit

    def fails(name: str, found: dict[str, float]) -> bool:
        return found[name] > limits[name] if name == "glare" else found[name] < limits[name]

    good = measures(page, [prepare(photo, size, photo.name, fit) for photo in photos])
    rows = []
    for name in limits:
        images = []
        for photo in photos[:: max(1, len(photos) // 200)]:
            with Image.open(photo) as image:
                images.append(prepare(degraded(image.convert("RGB"))[name], size, photo.name, fit))
        found = measures(page, images)
        values = sorted(each[name] for each in good)
        quantile = values[int(0.995 * len(values))] if name == "glare" else values[int(0.005 * len(values))]
        alarms, hits = (statistics.mean(fails(name, each) for each in part) for part in (good, found))
        rows.append([name, f"{limits[name]:g}", f"{quantile:.3g}", f"{alarms:.1%}", f"{hits:.0%}"])
    questioned = statistics.mean(any(fails(name, each) for name in limits) for each in good)
    return [*rows, ["any", "", "", f"{questioned:.1%}", ""]]


def list_photos(folder: Path) -> list[Path]:
    """Return the photos below a folder, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/model.onnx"))
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of photos")
    parser.add_argument("--count", type=int, default=200, help="photos compared with `leaf predict`")
    parser.add_argument("--soak", type=int, default=500, help="photos between the two memory measurements")
    parser.add_argument("--runtime", type=Path, help="the onnxruntime-web package")
    options = parser.parse_args()
    every = [list_photos(folder) for folder in options.photos]
    photos = [every[0][k] for k in np.random.default_rng(0).permutation(len(every[0]))]
    classifier = leaf.load(options.model)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        export_web(options.model, folder / "app", False, options.runtime, "")
        export_web(options.model, folder / "leaf.html", True, options.runtime, "")
        contents = [file.read_bytes() for file in (folder / "app").rglob("*") if file.is_file()]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with served(folder / "app") as address:
            first = []
            for _ in range(5):  # a new context starts with an empty cache
                context = browser.new_context()
                page = context.new_page()
                start = time.perf_counter()
                page.goto(address)
                answer(page, photos[0])
                first.append(time.perf_counter() - start)
                context.close()
            context = browser.new_context()
            page = context.new_page()
            page.goto(address)
            page.evaluate("navigator.serviceWorker.ready.then(() => 0)")
            context.set_offline(True)
            page.reload()
            compared = parity(page, classifier, photos, folder, options.count)
            small = [answer(page, photo) for photo in photos[:SETTLE]]
            large = folder / "large.jpg"
            with Image.open(photos[0]) as image:
                large.write_bytes(KINDS["JPEG, 4032×3024"][1](image.convert("RGB"), 0))
            slow = [answer(page, large) for _ in range(7)]
            heap, process = memory(browser, page)
            for number in range(options.soak):
                answer(page, photos[number % len(photos)])
            later_heap, later_process = memory(browser, page)
            checked = checks(page, classifier, list(itertools.chain(*every)))
        browser.close()
        import brotli  # imported here so that `--help` works without it

        cost = {
            "app, uncompressed": f"{sum(map(len, contents)) / 1e6:.1f} MB",
            "app, compressed with gzip": f"{sum(len(gzip.compress(each)) for each in contents) / 1e6:.1f} MB",
            "app, compressed with brotli": f"{sum(len(brotli.compress(each)) for each in contents) / 1e6:.1f} MB",
            "single file": f"{(folder / 'leaf.html').stat().st_size / 1e6:.1f} MB",
            "first prediction after a cold start": f"{statistics.median(first):.2f} s",
            "each further photo, 256×256": f"{1000 * statistics.median(small):.0f} ms",
            "each further photo, 4032×3024": f"{1000 * statistics.median(slow):.0f} ms",
            "JavaScript heap": f"{heap:.0f} MiB",
            f"JavaScript heap after {options.soak} more photos": f"{later_heap:.0f} MiB",
            "memory of the page's process": f"{process:.0f} MiB",
            f"memory of the page's process after {options.soak} more photos": f"{later_process:.0f} MiB",
        }
    columns = ["photos", "count", "largest difference", "mean difference", "different class"]
    keep_table("web", columns, compared, options.record)
    keep_table("web_cost", ["measurement", "value"], [list(pair) for pair in cost.items()], options.record)
    columns = [
        "check",
        "threshold",
        "0.5% quantile of good photos (glare: 99.5%)",
        "good photos with a warning",
        "degraded photos with a warning",
    ]
    keep_table("web_checks", columns, checked, options.record)


if __name__ == "__main__":
    main()
