"""Test the review page in a real browser: keyboard, two tabs, a killed server, a phone, and 10,000 cases."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uvicorn
from playwright.sync_api import expect

from leaf.review.app import Review, create_app
from leaf.serve.server import LOOPBACK, open_port

from .conftest import WRONG, rows

pytestmark = [pytest.mark.slow, pytest.mark.browser]
FEW, MANY = 1_000, 10_000


def started(review: Review) -> tuple[uvicorn.Server, str]:
    """Start a server in a thread, and return it and its URL."""
    listening = open_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(review, "token", LOOPBACK), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    return server, f"http://127.0.0.1:{listening.getsockname()[1]}/token/"


@pytest.fixture
def address(review: Review) -> Iterator[str]:
    server, address = started(review)
    yield address
    server.should_exit = True


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """Return a browser context; page errors, policy violations and requests to other servers fail the test."""
    made = chromium.new_context(viewport={"width": 1440, "height": 900})
    made.set_default_timeout(30_000)
    problems: list[str] = []
    made.on("weberror", lambda error: problems.append(str(error.error)))
    made.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
    made.on("request", lambda each: problems.append(each.url) if "//127.0.0.1" not in each.url else None)
    yield made
    assert problems == []
    made.close()


@pytest.fixture
def page(context: Any, address: str) -> Any:
    return ready(context.new_page(), address)


def ready(page: Any, address: str) -> Any:
    """Open the page and wait for its first case."""
    page.goto(address)
    page.locator("#lines dt").first.wait_for()
    return page


def heading(page: Any) -> str:
    return page.evaluate("location.hash")


def press(page: Any, key: str, says: str) -> None:
    """Press a key and wait for the status message."""
    page.keyboard.press(key)
    page.locator("#status", has_text=re.compile(says)).wait_for()


def test_keys_decide_and_open_the_next_case(page: Any, reviewed: Path) -> None:
    assert heading(page).startswith("#conflict-")
    page.keyboard.press("n")
    page.wait_for_url(re.compile("#label-33"))
    page.keyboard.press("n")
    page.wait_for_url(re.compile("#label-3-"))
    press(page, "1", "3.png: relabel as healthy. 1 of 7 cases reviewed")
    page.wait_for_url(re.compile("#label-8-"))
    press(page, "d", "8.png: drop. 2 of 7")
    press(page, "u", "21.png: unsure. 3 of 7")
    press(page, "r", "5.png: correct as it is. 4 of 7")
    press(page, "a", "49.png: not the same leaf. 5 of 7")
    assert sorted(rows(reviewed)["ruling"]) == ["apart", "drop", "relabel"]
    assert sorted(rows(reviewed, "reviewed")["verdict"]) == ["seen", "unsure"]
    assert page.locator("#summary").inner_text() == "3 decisions: 1 dropped, 1 relabeled, 1 separated"


def test_fast_keys_are_processed_in_order(page: Any, reviewed: Path) -> None:
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.keyboard.type("kkk")
    page.locator("#progress", has_text="3 of 7").wait_for()
    assert len(rows(reviewed)) == 3


def test_undo_works_after_a_reload_and_returns_to_the_image(page: Any, address: str, reviewed: Path) -> None:
    page.evaluate("location.hash = '#label-3--1'")
    page.reload()
    page.locator("#question", has_text="Label").wait_for()
    press(page, "d", "3.png: drop")
    press(page, "k", "8.png: keep")
    page.reload()
    page.locator("#progress", has_text="2 of 7").wait_for()
    press(page, "z", "Undone. 1 of 7")
    assert heading(page).startswith("#label-8-")
    press(page, "z", "Undone. 0 of 7")
    assert heading(page).startswith("#label-3-")
    assert rows(reviewed).empty
    press(page, "z", "Nothing to undo in this tab")


def test_reload_keeps_the_case_and_shows_the_decisions(page: Any, address: str) -> None:
    page.keyboard.press("1")
    page.locator("#ask-reason").fill("seen spots")
    page.keyboard.press("Enter")
    page.locator("#status", has_text="0.png: relabel as healthy").wait_for()
    here = heading(page)
    page.reload()
    page.locator("#lines dt").first.wait_for()
    assert heading(page) == here
    page.locator("#open").uncheck()
    assert "relabel as healthy" in page.locator("#c0").inner_text()


def test_test_image_requires_a_reason_and_escape_cancels(page: Any, reviewed: Path) -> None:
    page.keyboard.press("n")
    page.locator("#bias").wait_for()
    page.keyboard.press("d")
    page.locator("#ask").wait_for()
    page.keyboard.press("Escape")
    page.locator("#status", has_text="Canceled").wait_for()
    assert rows(reviewed).empty
    page.keyboard.press("d")
    page.locator("#ask").wait_for()
    page.keyboard.type("a hand, no leaf")
    page.keyboard.press("Enter")
    page.locator("#status", has_text="33.png: drop").wait_for()
    assert rows(reviewed)["why"].tolist() == ["a hand, no leaf"]


def test_two_tabs_share_their_decisions(context: Any, address: str, reviewed: Path) -> None:
    one, other = (ready(context.new_page(), f"{address}#label-{image}--1") for image in (3, 8))
    press(one, "d", "3.png: drop")
    press(other, "k", "8.png: keep. 2 of 7")
    one.keyboard.press("n")
    one.wait_for_url(re.compile("#label-21"))
    press(one, "u", "3 of 7")
    assert sorted(rows(reviewed)["ruling"]) == ["drop", "keep"]
    press(other, "z", "Undone")
    assert rows(reviewed)["ruling"].tolist() == ["drop"]


def test_review_continues_after_a_kill(context: Any, reviewed: Path, serve: Callable[..., Any]) -> None:
    process, address = serve(reviewed)
    page = ready(context.new_page(), f"{address}#label-3--1")
    press(page, "d", "3.png: drop")
    page.wait_for_load_state("networkidle")  # the next case is shown
    process.send_signal(signal.SIGKILL)
    process.wait()
    press(page, "d", "The server is not responding. Run `leaf review` again")
    assert len(rows(reviewed)) == 1
    _, again = serve(reviewed)
    assert again.rpartition("/")[0] != address.rpartition("/")[0]
    page = ready(context.new_page(), f"{again}#label-8--1")
    assert page.locator("#progress").inner_text() == "1 of 7 cases reviewed"
    press(page, "d", "2 of 7")
    assert len(rows(reviewed)) == 2


def test_similar_image_joins_the_group(page: Any, reviewed: Path) -> None:
    page.keyboard.press("n")
    page.wait_for_url(re.compile("#label-33"))
    page.locator("#neighbors button").first.wait_for()
    press(page, "s", "requires a second image")
    page.locator("#neighbors button").first.focus()
    press(page, "s", "same leaf")
    assert rows(reviewed)["ruling"].tolist() == ["group"]


def test_several_images_are_selected_in_the_grid_and_dropped(page: Any, reviewed: Path) -> None:
    page.keyboard.press("g")
    page.locator("#grid [role=option]").first.wait_for()
    first = page.locator("#grid [role=option]").nth(0).get_attribute("aria-label")
    assert int(re.search(r"\d+", first)[0]) in WRONG  # least probable label first
    page.keyboard.press("End")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    page.locator("#chosen", has_text="3 images selected").wait_for()
    assert page.locator("#grid [aria-selected=true]").count() == 3
    page.keyboard.press("w")
    page.keyboard.type("all of one twig")
    page.keyboard.press("Enter")
    press(page, "d", "3 images: drop")
    assert rows(reviewed)["why"].tolist() == ["all of one twig"] * 3


def test_pair_alternates_and_shows_its_difference(page: Any) -> None:
    page.keyboard.press("f")
    expect(page.locator("#images .under")).to_have_count(1)
    first = page.evaluate("[...document.querySelectorAll('#images figure')].findIndex(f => f.matches('.under'))")
    expect(page.locator("#images figure").nth(first)).not_to_have_class(re.compile("under"))
    page.keyboard.press("v")
    page.locator("#images canvas").wait_for()
    colours = page.evaluate(
        "() => { const c = document.querySelector('canvas');"
        " return [...c.getContext('2d').getImageData(5, 5, 1, 1).data]; }"
    )
    assert colours == [12, 12, 12, 255]  # three gray levels apart, ×4


def test_elements_have_accessible_names_and_states(page: Any) -> None:
    for name in ("healthy", "Keep", "Drop", "Unsure", "Same leaf", "Undo"):
        assert page.get_by_role("button", name=re.compile(rf"\b{name}$")).count() >= 1, name
    assert page.locator("#actions button:not([aria-keyshortcuts])").count() == 0
    options = page.locator("#list").get_by_role("option", name=re.compile("Label and prediction differ"))
    assert options.count() == len(WRONG)
    active = page.locator("#list").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    assert page.locator("#images img").first.get_attribute("alt").startswith("0.png: healthy")
    assert page.locator("#status").get_attribute("role") == "status"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input, [role=listbox]')]"
        ".filter(e => e.checkVisibility() && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length).length"
    )
    assert unnamed == 0


def test_phone_layout_fits_and_buttons_are_large_enough(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for key in ("", "f", "v", "g"):
        if key:
            page.keyboard.press(key)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    low = page.evaluate(
        "[...document.querySelectorAll('button')].filter(e => e.checkVisibility() && e.offsetHeight < 40).length"
    )
    assert low == 0


CONTRASTS = """() => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (e) => {
        const colour = getComputedStyle(e).backgroundColor;
        return /, 0\\)$/.test(colour) && e.parentElement ? ground(e.parentElement) : colour;
    };
    const names = ["h1", "#why", "#progress", "#list small", "#actions button", "#lines dt", "footer p", "figcaption"];
    return names.map((name) => {
        const e = document.querySelector(name);
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark_mode(chromium: Any, address: str, scheme: str) -> None:
    page = ready(chromium.new_page(color_scheme=scheme), address)
    ratios = page.evaluate(CONTRASTS)
    assert min(ratios) >= 4.5
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", dark))) < 60) == (scheme == "dark")
    page.close()


def crowded(review: Review, count: int) -> Review:
    """Return a run with `count` images, each of which is a case."""
    images = np.random.default_rng(1).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)
    numbers = np.arange(count)
    hashes = [f"{number:032x}" for number in numbers]
    cases = {"question": "label", "image": numbers, "other": -1, "gain": 1.0, "why": "contradicted"}
    return replace(
        review,
        images=images,
        index=pd.DataFrame({"image": numbers, "source": numbers.astype(str), "hash": hashes, "file_hash": hashes}),
        decisions=pd.DataFrame({"label": numbers % 2, "kept": 1}),
        split=np.full(count, "train", object),
        cases=pd.DataFrame(cases),
        own=np.linspace(0, 1, count),
        points=np.random.default_rng(2).normal(size=(count, 8)),
        explain=lambda image: f"image    {image}",
    )


SCROLL = """async (where) => {
    const list = document.querySelector(where);
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const times = [];
    let before = await frame();
    for (let step = 1; step <= 36; step += 1) {
        list.scrollTop += 120;  // one wheel step
        const now = await frame();
        times.push(now - before);
        before = now;
    }
    return times.sort((a, b) => a - b)[18];
}"""


def test_ten_thousand_cases_scroll_as_fast_as_a_thousand(context: Any, review: Review) -> None:
    frames = {}
    for count in (FEW, MANY):
        server, address = started(crowded(review, count))
        page = ready(context.new_page(), address)
        for where in ("#list", "#grid"):
            if where == "#grid":
                page.keyboard.press("g")
            page.locator(f"{where} [role=option]").first.wait_for()
            frames[where, count] = page.evaluate(SCROLL, where)
            assert page.locator(f"{where} [role=option]").count() < 200
        if count == MANY:
            page.keyboard.press("g")
            press(page, "d", f"1 of {MANY}")
        page.close()
        server.should_exit = True
    for where in ("#list", "#grid"):  # in milliseconds; a frame takes 17 ms
        assert frames[where, MANY] < 2 * frames[where, FEW] + 17, where
