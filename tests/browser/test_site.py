"""The web site in a browser: opened from disk, every request to the outside refused."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.screen import Screen, ViewOnScreen
from tests.browser.test_gallery import moved
from tests.site_build import ROOT

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)
WIDTHS = (400, 1280)
SPILL = "() => document.documentElement.scrollWidth - innerWidth"


def console_errors(shown: Screen) -> list[str]:
    """A list that fills with what the page's console complains about."""
    errors: list[str] = []
    shown.page.on(
        "console", lambda said: errors.append(said.text) if said.type == "error" else None
    )
    return errors


def views_of(shown: Screen) -> list[ViewOnScreen]:
    """All views of a page, each drawn."""
    count = shown.page.evaluate(
        """() => [...document.querySelectorAll("*")]
            .filter((node) => node.localName.startsWith("zeta-view-")).length"""
    )
    return shown.wait_for_views(count)


def test_every_page_opens_without_a_complaint_and_fits_the_screen(screen: Any, site: Path) -> None:
    shown = screen(site / "index.html")
    errors = console_errors(shown)
    pages = [page for page in sorted(site.rglob("*.html")) if page.parent.name != "lessons"]
    for page in pages:
        shown.page.goto(page.as_uri())
        for width in WIDTHS[:1] if "_modules" in page.parts else WIDTHS:  # listings are all alike
            shown.page.set_viewport_size({"width": width, "height": 900})
            assert shown.page.evaluate(SPILL) <= 0, (page.name, width)
    assert errors == []
    assert len(pages) > 100


@every_notebook
def test_a_lesson_s_views_are_drawn_and_react(screen: Any, site: Path, name: str) -> None:
    shown = screen(site / "lessons" / f"{name}.html", width=1280)
    errors = console_errors(shown)
    views = views_of(shown)
    assert views
    for view in views:
        assert moved(view)
    for width in WIDTHS:
        shown.page.set_viewport_size({"width": width, "height": 900})
        shown.page.wait_for_timeout(200)
        assert shown.page.evaluate(SPILL) <= 0, width
    formulas = shown.page.evaluate(
        "() => [...document.querySelectorAll('math')].map((m) => m.getBoundingClientRect().height)"
    )
    assert all(height > 5 for height in formulas)
    assert errors == []


def test_the_switch_of_the_theme_turns_the_views_too(screen: Any, site: Path) -> None:
    shown = screen(site / "lessons" / "04-rotary.html", width=1400)
    views = views_of(shown)
    seen = set()
    for _ in range(3):
        shown.page.locator("button.theme-toggle:visible").first.click()
        theme = shown.page.evaluate("() => document.body.dataset.theme")
        for view in views:
            view.wait_until_dark(theme == "dark")  # "auto" is light here
        seen.add(theme)
    assert seen == {"auto", "light", "dark"}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("xPos", "lessons/05-xpos.html"),
        ("KVCache", "reference/zeta_edu.cache.html#zeta_edu.cache.KVCache"),
        ("flash attention", "lessons/08-flash-attention.html"),
    ],
)
def test_search_from_disk_finds_it_first(screen: Any, site: Path, query: str, wanted: str) -> None:
    shown = screen(site / "index.html", width=1280)
    errors = console_errors(shown)
    box = shown.page.locator("input[name=q]:visible").first
    box.fill(query)
    box.press("Enter")
    first = shown.page.locator("#search-results li a").first
    first.wait_for(timeout=20_000)
    assert first.get_attribute("href").split("?")[0].endswith(wanted)
    first.click()
    assert wanted.partition("#")[0] in shown.page.url
    assert errors == []


def test_nothing_is_found_for_what_is_nowhere(screen: Any, site: Path) -> None:
    shown = screen(f"{(site / 'search.html').as_uri()}?q=xylophone")
    shown.page.get_by_text("did not match any documents").wait_for(timeout=20_000)


def test_the_map_is_walked_by_keyboard(screen: Any, site: Path) -> None:
    shown = screen(site / "index.html", width=1280)
    door = shown.page.locator('.block-map a[href*="04-rotary"]')
    shown.page.locator(".block-map a").first.focus()
    while not door.evaluate("(link) => link === document.activeElement"):
        inside = "() => document.activeElement.closest('.block-map') !== null"
        assert shown.page.evaluate(inside)
        shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_url("**/lessons/04-rotary.html")


def test_paper_is_light_and_shows_the_solutions(screen: Any, site: Path) -> None:
    shown = screen(site / "lessons" / "04-rotary.html", width=1280, dark=True)
    view = views_of(shown)[0]
    view.wait_until_dark(True)
    shown.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    folded = "() => document.querySelectorAll('details:not([open])').length"
    assert shown.page.evaluate(folded) == 0
    view.wait_until_dark(False)
    shown.page.emulate_media(media="print")
    assert not shown.page.locator(".sidebar-drawer").is_visible()
    shown.page.emulate_media(media="screen")
    shown.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert shown.page.evaluate(folded) > 0
    view.wait_until_dark(True)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "page",
    [
        "index",
        "search",
        "lessons/04-rotary",
        "lessons/07-feed-forward",
        "lessons/gallery",
        "reference/index",
        "reference/zeta_edu.attention",
        "_modules/zeta_edu/attention",
    ],
)
def test_axe_finds_nothing_serious(
    screen: Any, site: Path, page: str, width: int, dark: bool
) -> None:
    shown = screen(site / f"{page}.html", width=width, dark=dark)
    views_of(shown)
    found = [
        (fault["impact"], fault["id"], [node["html"][:200] for node in fault["nodes"][:3]])
        for fault in Axe().run(shown.page).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert found == []
