"""The page in a browser: narrow, dark, on paper, without scripts, and how its charts answer."""

import shutil

import pytest
from test_page import folder, with_model  # noqa: F401  (a fixture)
from test_report import build, everything

from reporting import web_page
from reporting.blocks import Heading
from reporting.leaderboard import board_table

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:  # WebGL by software, for the parallel coordinates
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory, folder):  # noqa: F811
    """The file of a report of a bit of everything, and of a user's own pictures."""
    runs = everything(tmp_path_factory.mktemp("browser") / "runs")
    with_model(runs, folder, runs.parent)
    build(runs)
    return runs / "report.html"


@pytest.fixture
def shown(browser, report):
    """Opens it, as a browser with these settings shows it."""
    contexts = []

    def show(width=1200, **settings):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **settings))
        page = contexts[-1].new_page()
        page.goto(f"file://{report}")
        return page

    yield show
    for context in contexts:
        context.close()


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")


def chart(page, name):
    """The chart of the picture whose alt text starts with `name`, drawn."""
    figure = page.locator("figure.chart").filter(has=page.locator(f"img[alt^='{name}']")).first
    figure.scroll_into_view_if_needed()
    figure.locator(".plot .main-svg").first.wait_for()
    return figure.locator(".plot")


def test_on_a_telephone_nothing_scrolls_to_the_side(shown):
    page = shown(390)
    unfold(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    inside = "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && " \
             "['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.textContent.slice(0, 60))"
    assert page.evaluate(inside) == []
    letters = page.evaluate("Math.min(...[...document.querySelectorAll('td, th')].filter(e => e.offsetParent)"
                            ".map(e => parseFloat(getComputedStyle(e).fontSize)))")
    assert letters > 10  # pixels
    assert page.locator(".narrow table").first.is_visible() and not page.locator("figure.wide").first.is_visible()


def test_the_leaderboard_has_room(browser):
    row = {"rank": 1, "stage": "classic_nas", "network": "MobileNet found by classic NAS", "parameters": 2_969_636,
           "multiply_adds": 146_570_000, "images_per_second": 1657.0, "train_seconds": 7000, "search_seconds": 9000,
           **{part: {"accuracy": 0.4545, "standard_error": 0.1062, "several_views_accuracy": 0.5, "images": 22}
              for part in ("validation", "test")}}
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_content(web_page.page("T", [Heading(2, "Leaderboard"), board_table({"rows": [row]})]))
    frame = page.locator("div.scroll")
    assert frame.evaluate("e => e.scrollWidth <= e.clientWidth")
    page.close()


def test_dark_pages_are_dark_and_their_charts_follow(shown):
    page = shown(color_scheme="dark")
    brightness = "(() => { const [r, g, b] = getComputedStyle(%s).%s.match(/[0-9.]+/g); return (+r + +g + +b) / 3; })()"
    assert page.evaluate(brightness % ("document.body", "backgroundColor")) < 40
    assert page.evaluate(brightness % ("document.body", "color")) > 180
    plot = chart(page, "accuracy over the epochs")
    ink = "e => e.layout.font.color"
    assert plot.evaluate(ink) == "#e4e8ee"
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.querySelector('.drawn .plot').layout.font.color === '#1c2430'")


def test_drawings_are_light_on_a_dark_page(shown):
    """Pixels of the text above the cells, as a browser draws the picture."""
    ink = """async picture => {
      await picture.decode();
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [600, 500];
      const context = canvas.getContext('2d');
      context.drawImage(picture, 0, 0, 600, 500);
      const pixels = context.getImageData(0, 0, 200, 28).data;
      let found = [];
      for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) found.push(pixels[i]);
      return [found.length, found.reduce((a, b) => a + b, 0) / found.length];
    }"""
    for scheme, light in (("light", False), ("dark", True)):
        picture = shown(color_scheme=scheme).locator("img[alt^='The normal and the reduction cell']").first
        count, mean = picture.evaluate(ink)
        assert 20 < count < 5000 and (mean > 150) == light, scheme


def test_paper_has_everything_and_nothing_is_cut_off(shown, tmp_path):
    page = shown()
    chart(page, "accuracy over the epochs")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(part => part.open)")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 690).length"
    assert page.evaluate(wide) == 0
    assert not page.locator(".plot").first.is_visible() and page.locator(".drawn img").first.is_visible()
    alone = "[...document.querySelectorAll('h2, h3')].filter(e => getComputedStyle(e).breakAfter !== 'avoid').length"
    assert page.evaluate(alone) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.evaluate("[...document.querySelectorAll('details')].some(part => part.open)")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").stat().st_size > 50_000


def test_without_scripts_every_chart_is_a_picture(shown):
    page = shown(java_script_enabled=False)
    charts = page.locator("figure.chart")
    assert charts.count() > 4
    for number in range(charts.count()):
        figure = charts.nth(number)
        if figure.locator("xpath=ancestor::details").count() == 0:
            assert figure.locator("img").is_visible() and not figure.locator(".plot").is_visible()
    page.locator("summary").first.click()  # folding needs none
    assert page.locator("details").first.locator("figure img").first.is_visible()


def test_a_trial_tells_its_name_and_a_curve_its_values(shown):
    page = shown()
    plot = chart(page, "Validation accuracy against parameters")
    plot.hover()
    x, y = plot.evaluate("e => { const a = e._fullLayout, b = e.getBoundingClientRect(); const d = e.data[0]; return ["
                         "b.x + a._size.l + a.xaxis.d2p(d.x[1]), b.y + a._size.t + a.yaxis.d2p(d.y[1])]; }")
    page.mouse.move(x, y)
    page.mouse.move(x + 1, y)
    assert "trial n1" in plot.locator(".hovertext").first.text_content(timeout=3000)


def test_dragging_zooms(shown):
    page = shown()
    plot = chart(page, "loss over the epochs")
    plot.scroll_into_view_if_needed()
    before = plot.evaluate("e => e.layout.xaxis.range")
    box = plot.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 20, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    low, high = plot.evaluate("e => e.layout.xaxis.range")
    assert before[0] < low < high < before[1]


def test_a_range_of_an_axis_of_the_parallel_coordinates_can_be_chosen(shown):
    page = shown()
    plot = chart(page, "Parallel coordinates of lr, model")
    plot.scroll_into_view_if_needed()
    axis = plot.locator(".axis-brush .background").first.bounding_box()
    x = axis["x"] + axis["width"] / 2
    page.mouse.move(x, axis["y"] + axis["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(x, axis["y"] + axis["height"] * 0.7, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert plot.evaluate("e => e.data[0].dimensions[0].constraintrange")
