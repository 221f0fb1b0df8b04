"""Take the README's picture of the report: `python docs/images/picture.py` after a run of the pipeline.

Needs playwright and a Chromium on PATH (Debian: `apt-get install chromium`). Writes docs/images/report.png.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SCALE = 1240, 1.5
COLOURS = 160  # the page has few; a palette keeps the file under 300 kB


def main() -> None:
    """Open the page, photograph its first screen, write it with a palette."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", default="reports/report.html", type=Path)
    parser.add_argument("--to", default="docs/images/report.png", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not options.page.is_file() or not chromium:
        raise SystemExit(f"error: {options.page} and a chromium on PATH are needed; run `dvc repro` first")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1000}, device_scale_factor=SCALE, color_scheme="light"
        )
        page.goto(options.page.resolve().as_uri())
        page.evaluate("document.fonts.ready")
        bottom = page.evaluate("document.querySelector('#images figure').getBoundingClientRect().bottom + scrollY")
        shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 32})
        browser.close()
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(options.to, optimize=True)
    print(f"{options.to}: {options.to.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
