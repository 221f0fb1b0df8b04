"""Take the screenshots of the documentation.

python docs/images/picture.py                                               # the report, after `dvc repro`
python docs/images/picture.py reports/audit.html --to docs/images/audit.png
python docs/images/picture.py ADDRESS#QUESTION-IMAGE-OTHER --to docs/images/review.png

ADDRESS is printed by `leaf review`, and the fragment selects a case. Needs playwright and a Chromium on PATH (Debian:
`apt-get install chromium`).
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SCALE = 1240, 1.5
END = "#images figure, #q1 p:last-child"  # the screenshot ends below the first match
COLOURS = 80  # a palette keeps each file below 300 kB


def main() -> None:
    """Open the page and write a screenshot of its top with a palette."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", default="reports/report.html")
    parser.add_argument("--to", default="docs/images/report.png", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    review = options.page.startswith("http://")
    if not chromium or not (review or Path(options.page).is_file()):
        raise SystemExit(f"error: {options.page} and a chromium on PATH are needed; run `dvc repro` first")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1000}, device_scale_factor=SCALE, color_scheme="light"
        )
        if review:
            page.set_viewport_size({"width": WIDTH, "height": 800})
            page.goto(options.page)
            page.locator("#neighbors img").last.wait_for()
            page.wait_for_load_state("networkidle")
            shot = page.screenshot()
        else:
            page.goto(Path(options.page).resolve().as_uri())
            page.evaluate("document.fonts.ready")
            bottom = page.evaluate(f"document.querySelector('{END}').getBoundingClientRect().bottom + scrollY")
            shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 32})
        browser.close()
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(options.to, optimize=True)
    print(f"{options.to}: {options.to.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
