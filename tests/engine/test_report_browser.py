"""The report in a real browser: it is drawn, nothing leaves a phone's screen, and what can be clicked answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from report_run import write_run

from ise_fast.engine.report import write_report
from ise_fast.engine.report_compare import write_comparison

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Elements that reach beyond the window, other than inside what scrolls.
BEYOND = """[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
    && !e.closest(".wide, .row, svg")).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The page of a run with a long name, and that of two runs."""
    root = tmp_path_factory.mktemp("runs")
    first, second = write_run(root / ("long-name" * 9)), write_run(root / "other", method="cluster-contrast")
    return [write_report(first), write_comparison(first, second)]


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("which", [0, 1])
def test_nothing_overflows(which: int, width: int, browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[which], width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(BEYOND) == []
    assert browser.run("document.querySelectorAll('svg').length") >= 6
    assert browser.run("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert (
        browser.run("[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height < 50).length")
        == 0
    )
    assert browser.errors == []


def test_dark_and_light(browser: Browser, pages: list[Path]) -> None:
    def colours() -> list[str]:
        script = "[document.body, document.querySelector('svg text')].map(e => getComputedStyle(e)"
        return [*browser.run(script + ".backgroundColor)"), *browser.run(script + ".fill)")]

    browser.open(pages[0], 1280)
    light = colours()
    browser.open(pages[0], 1280, dark=True)
    dark = colours()
    assert light[0] == "rgb(245, 247, 250)"
    assert dark[0] == "rgb(15, 20, 26)"
    assert light[3] == "rgb(91, 104, 118)"  # labels of the axes
    assert dark[3] == "rgb(152, 164, 177)"


def test_a_click_shows_the_image_of_a_point(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    mark = "document.querySelectorAll('.embedding')[1].querySelector('[data-i=\"7\"]')"
    browser.run(f"{mark}.scrollIntoView({{block: 'center'}})")
    box = browser.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({mark}.getBoundingClientRect())")
    browser.click(*box)
    said = "[...document.querySelectorAll('.picked')].map(e => e.textContent)"
    assert browser.run(said) == ["identity 2, camera 2"] * 2
    assert browser.run("document.querySelectorAll('.chosen').length") == 2
    sprite = browser.run(
        "(s => [s.width, s.height, s.backgroundPosition])(getComputedStyle(document.querySelector('.sprite')))"
    )
    assert sprite == ["4px", "8px", "-28px 0px"]
    key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
    browser.run(f"document.querySelector('.scatter').dispatchEvent({key})")
    assert browser.run(said) == ["identity 3, camera 1"] * 2
    assert browser.errors == []


def test_rank_lists_are_chosen(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    shown = "[...document.querySelectorAll('.lists .row')].filter(r => !r.hidden).map(r => r.dataset.ap)"
    assert browser.run(shown) == ["0.123000", "1.000000"]

    def choose(which: int, value: str) -> None:
        select = f"document.querySelectorAll('#rank-lists select')[{which}]"
        browser.run(f"(s => {{s.value = '{value}'; s.dispatchEvent(new Event('change'))}})({select})")

    choose(0, "best")
    assert browser.run(shown) == ["1.000000", "0.123000"]
    choose(1, "1")
    assert browser.run(shown) == ["0.123000"]
    assert browser.run("document.querySelector('#rank-lists output').textContent") == "1 of 2 shown"


def test_a_row_is_copied_as_latex(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    browser.run("document.querySelector('button[data-latex]').click()")
    text = browser.run("document.querySelector('textarea').value")
    assert text == "long-name" * 9 + r" & 40.0 & 30.0 & 40.0 & 50.0 & 10.0 \\"
    assert browser.run("(e => e.selectionEnd - e.selectionStart)(document.activeElement)") == len(text)
    assert browser.run("document.querySelector('button[data-latex]').textContent") == "copied"
