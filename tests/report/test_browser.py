"""In Chromium, pages have no console messages, network requests, empty figures or cut-off text."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CUT = """() => [...document.querySelectorAll('h1,h2,h3,p,li,td,th,dt,dd,figcaption,code,a,summary')]
  .filter(e => e.offsetParent && !e.closest('.skip') && !e.matches('.skip'))
  .filter(e => { const box = e.getBoundingClientRect();
    return box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5
      || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline' })
  .filter(e => !e.closest('.scroll'))
  .map(e => e.tagName + ': ' + e.textContent.trim().slice(0, 60))"""

CUT_IN_FIGURES = """() => [...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length)
  .filter(e => { const box = e.getBoundingClientRect(), page = document.documentElement.clientWidth;
    const figure = e.ownerSVGElement.getBoundingClientRect();
    return box.left < 0 || box.right > page + 0.5 || box.right > figure.right + 3 || box.left < figure.left - 3
      || box.top < figure.top - 3 || box.bottom > figure.bottom + 3 })
  .map(e => e.textContent)"""

OVERLAPS = """() => [...document.querySelectorAll('svg')].filter(s => s.getClientRects().length).flatMap(s => {
  const boxes = [...s.querySelectorAll('text')].filter(e => e.textContent.trim())
    .map(e => [e.textContent, e.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
    Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2 &&
    Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 5).map(([b]) => a + ' | ' + b)) })"""

COVERED = """() => [...document.querySelectorAll('svg text, svg rect[class*=fill-], svg circle')]
  .filter(e => e.getClientRects().length).flatMap((e, i, all) => e.tagName != 'text' ? [] : all.slice(i + 1)
    .filter(m => m.tagName != 'text' && m.ownerSVGElement == e.ownerSVGElement)
    .filter(m => { const p = e.getBoundingClientRect(), q = m.getBoundingClientRect();
      return Math.min(p.right, q.right) - Math.max(p.left, q.left) > 0.5
        && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4 })
    .map(m => e.textContent + ' under ' + m.getAttribute('class')))"""

CROSSED = """() => [...document.querySelectorAll('svg line.mark')].filter(e => e.getClientRects().length).flatMap(e => {
  const p = e.getBoundingClientRect();
  return [...e.ownerSVGElement.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
    .filter(([, q]) => q.left + 1 < p.left && p.left < q.right - 1)
    .filter(([, q]) => Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
    .map(([words]) => words) })"""

UNDRAWN = """() => [...document.querySelectorAll('figure')].filter(f => f.offsetParent)
  .filter(f => ![...f.querySelectorAll('svg, .dots')].some(s => s.getClientRects().length
    && s.getBoundingClientRect().width > 100 && s.getBoundingClientRect().height > 40
    && [...s.querySelectorAll('path,circle,rect,.dot')].some(m => { const b = m.getBoundingClientRect();
      return b.width > 1 || b.height > 1 })))
  .map(f => f.outerHTML.slice(0, 90))"""

BROKEN = """() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0 && i.width > 20)).length"""

CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b) };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length && c[3] !== 0) return c } return [255, 255, 255] };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('title')) continue;
    const style = getComputedStyle(e), colour = parse(e.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(colour), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(e.textContent.trim().slice(0, 40) + ' ' + style.color);
  }
  return bad }"""

VIEWS = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]


@pytest.fixture(scope="module", params=["finished", "bare", "extreme", "beside", "audited_page", "one_page"])
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(request.getfixturevalue(request.param), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def page(request, file, chromium):
    """Open the page with all details expanded, and record console messages and requests."""
    width, theme = request.param
    opened = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    opened.logged, opened.requested = [], []
    opened.on("console", lambda message: opened.logged.append(message.text))
    opened.on("pageerror", lambda error: opened.logged.append(str(error)))
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.goto(file.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(entry => entry.open = true)")
    opened.wait_for_function("[...document.images].every(image => image.complete)")
    yield opened
    opened.close()


def test_browser_console_is_empty(page):
    assert page.logged == []


def test_no_network_request_is_made(page, file):
    assert [url for url in page.requested if not url.startswith("data:")] == [file.as_uri()]


def test_every_figure_is_drawn(page):
    assert page.evaluate(UNDRAWN) == []


def test_every_image_is_shown(page):
    assert page.evaluate(BROKEN) == 0


def test_the_page_does_not_scroll_sideways(page):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_no_text_is_cut_off(page):
    assert page.evaluate(CUT) == []


def test_no_figure_text_is_cut_off(page):
    assert page.evaluate(CUT_IN_FIGURES) == []


def test_texts_in_a_figure_do_not_overlap(page):
    assert page.evaluate(OVERLAPS) == []


def test_no_epoch_mark_crosses_text(page):
    assert page.evaluate(CROSSED) == []


def test_no_figure_text_is_covered_by_a_mark(page):
    assert page.evaluate(COVERED) == []


def test_all_text_has_enough_contrast(page):
    assert page.evaluate(CONTRAST) == []


def test_the_embedded_font_is_used(page):
    assert page.evaluate("document.fonts.check('16px Inter') && [...document.fonts].some(f => f.status == 'loaded')")


def test_the_keyboard_reaches_the_skip_link_the_contents_and_the_tables(page):
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stop = page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        if stop[0] == "BODY":
            break
        stops.append(stop)
    names = [name for name, _ in stops]
    assert names[0] == "A"
    assert ("DIV" in names) == (page.query_selector(".scroll") is not None)
    assert all(outline != "none" for _, outline in stops)


def test_printed_page_is_light_and_includes_its_figures(page):
    page.emulate_media(media="print")
    try:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("[...document.querySelectorAll('nav')].every(e => getComputedStyle(e).display == 'none')")
        assert page.evaluate(UNDRAWN) == []
    finally:
        page.emulate_media(media="screen")
