"""The web site: every link leads somewhere, every name is explained, nothing comes from outside."""

import html
import json
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest

import zeta_edu
from tests.site_build import ROOT, build_site
from zeta_edu.lessons import heading
from zeta_edu.pages.formulas import Formulas
from zeta_edu.views.parts import PARTS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
# What a page loads by itself, as against what a reader may follow.
LOADS = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)")
OUTSIDE = re.compile(r"(?:[a-z]+:)?//")


@cache
def read(page: Path) -> str:
    """A page's HTML without what is in its scripts, and without the bytes of pictures."""
    text = page.read_text("utf-8")
    text = re.sub(r"(<script\b[^>]*>).*?</script>", r"\1</script>", text, flags=re.DOTALL)
    return re.sub(r"data:[a-z]+/[a-z0-9+.-]+[;,][^\"')\s]*", "data:", text)


@cache
def anchors(page: Path) -> set[str]:
    return {html.unescape(name) for name in re.findall(r"\bid=\"([^\"]+)\"", read(page))}


def entry(site: Path, module: str, name: str) -> str:
    """What the reference says of a name, up to the next entry of the same rank."""
    text = read(site / "reference" / f"{module}.html")
    start = text.index(f'id="{name}"')
    following = text.find('<dl class="py', start)
    return text[start : following if following > 0 else None]


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_link_and_every_anchor_inside_the_site_resolves(site: Path) -> None:
    checked, lost = 0, []
    for page in pages(site):
        folder = page.parent.relative_to(site).as_posix()
        for target in re.findall(r"\b(?:href|src)=\"([^\"]*)\"", read(page)):
            path, _, anchor = unquote(html.unescape(target)).partition("#")
            path = path.partition("?")[0]
            if re.match(r"[a-z]+:", path):
                continue
            file = site / posixpath.normpath(posixpath.join(folder, path)) if path else page
            checked += 1
            if not file.is_file() or (anchor and anchor not in anchors(file)):
                lost.append((page.name, target))
    assert not lost
    assert checked > 1000


def test_a_page_loads_nothing_from_outside(site: Path) -> None:
    for page in pages(site):
        assert not [what for what in LOADS.findall(read(page)) if OUTSIDE.match(what)], page
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", read(page)), page
    for sheet in site.rglob("*.css"):
        assert not re.search(
            r"(?:url\(\s*[\"']?|@import\s+[\"'])(?:https?:)?//", sheet.read_text("utf-8")
        )


def test_every_lesson_stands_on_the_first_page_with_its_question(site: Path) -> None:
    first = read(site / "index.html")
    for path in LESSONS:
        title = html.escape(heading(json.loads(path.read_text("utf-8"))), quote=False)
        assert title in first
        assert f'href="lessons/{path.stem}.html"' in first
    assert first.count("?</p>") >= len(LESSONS)


def test_every_part_of_the_map_is_a_link_to_its_lesson(site: Path) -> None:
    drawn = re.findall(
        r'<a href="lessons/(\d\d)[^"]*" aria-label="([^"]+)"', read(site / "index.html")
    )
    there = {path.stem[:2] for path in LESSONS}
    wanted = [part.lesson for part in PARTS.values() if part.lesson in there] + ["11"]
    assert [lesson for lesson, _ in drawn] == wanted
    assert all(f"lesson {lesson}" in label for lesson, label in drawn)


@every_notebook
def test_a_page_shows_all_that_the_lesson_has_stored(site: Path, path: Path) -> None:
    page = (site / "lessons" / f"{path.stem}.html").read_text("utf-8")
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {html.unescape(alt) for alt in re.findall(r"alt=\"([^\"]+)\"", page)}
    for output in outputs:
        stored = output.get("data", {}).get("text/html", "")
        for view in re.findall(r"<(zeta-view-[0-9a-f]+)", stored):
            assert view in page
        about = output.get("metadata", {}).get("image/png", {})
        if "image/png" in output.get("data", {}):
            assert about["alt"] in shown
    views = sum("<zeta-view" in str(output.get("data", {}).get("text/html")) for output in outputs)
    assert page.count("<zeta-view") == views
    assert "application/vnd.jupyter.widget" not in page


@every_notebook
def test_every_formula_is_drawn(site: Path, path: Path) -> None:
    formulas = Formulas()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            formulas.take_out(cell.source)
    page = read(site / "lessons" / f"{path.stem}.html")
    assert page.count("<math") == len(formulas.made)


def test_every_public_name_has_an_entry(site: Path) -> None:
    for home, module in ((zeta_edu, "zeta_edu"), (zeta_edu.views, "zeta_edu.views")):
        page = read(site / "reference" / f"{module}.html")
        for name in home.__all__:
            thing = getattr(home, name)
            whole = f"{thing.__module__}.{name}" if hasattr(thing, "__module__") else thing.__name__
            target = f"{whole.rpartition('.')[0]}.html#{whole}"
            if not hasattr(thing, "__module__"):
                target = f"{whole}.html#module-{whole}"
            assert f'href="{target}"' in page, f"{module}.{name}"
            file, _, anchor = target.partition("#")
            assert anchor in anchors(site / "reference" / file), f"{module}.{name}"


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        (
            "zeta_edu.attention",
            "regular_attention",
            ["Parameters", "Returns", "Source", "&gt;&gt;&gt;"],
        ),
        ("zeta_edu.cache", "KVCache", ["Parameters", "Raises", "arxiv.org/abs/1911.02150"]),
        ("zeta_edu.views.rotary", "rotary_view", ["Parameters", "Raises"]),
    ],
)
def test_an_entry_says_what_the_docstring_says(
    site: Path, module: str, name: str, says: list[str]
) -> None:
    text = entry(site, module, f"{module}.{name}")
    assert [what for what in says if what not in text] == []


def test_what_stands_before_a_colon_in_a_property_is_no_type(site: Path) -> None:
    text = entry(site, "zeta_edu.views.rotary", "zeta_edu.views.rotary.RotaryView.product")
    assert "q·k as the view opens: the first query at m" in text


def test_a_module_leads_to_its_lessons_and_a_package_to_none(site: Path) -> None:
    reference = site / "reference"
    head = read(reference / "zeta_edu.rotary.html").partition('<dl class="py')[0]
    assert head[head.index("Built or proved in") :].count("../lessons/04-rotary.html") == 1
    assert "Built or proved in" not in read(reference / "zeta_edu.html")


def test_a_view_leads_to_the_lessons_that_show_it(site: Path) -> None:
    text = entry(site, "zeta_edu.views.rotary", "zeta_edu.views.rotary.rotary_view")
    assert "Shown in" in text
    assert "../lessons/04-rotary.html" in text


SOURCES = re.compile(r'<div class="sources">.*?</div>', re.DOTALL)
REFERENCE = re.compile(r'href="\.\./reference/([\w.]+)\.html#([\w.]+)"')
CODE = re.compile(r'href="\.\./_modules/([\w/]+)\.html#([\w.]+)">lines (\d+) to (\d+)')


def asked_of_the_package(cell: Any) -> bool:
    return "proof" in cell.metadata.get("tags", []) and "from zeta_edu" in cell.source


@every_lesson
def test_a_proof_leads_to_its_sources_and_an_entry_back_to_the_lesson(
    site: Path, path: Path
) -> None:
    notes = SOURCES.findall(read(site / "lessons" / f"{path.stem}.html"))
    importing = [
        cell for cell in nbformat.read(path, as_version=4).cells if asked_of_the_package(cell)
    ]
    assert len(notes) >= len(importing)
    for note in notes:
        entries, codes = REFERENCE.findall(note), CODE.findall(note)
        assert len(entries) == len(codes) > 0
        for (module, name), (file, short, first, last) in zip(entries, codes, strict=True):
            assert f"../lessons/{path.stem}.html" in entry(site, module, name)
            assert short in anchors(site / "_modules" / f"{file}.html")
            lines = (
                (ROOT / f"{file}.py").read_text("utf-8").splitlines()[int(first) - 1 : int(last)]
            )
            assert short.rpartition(".")[2] in "\n".join(lines[:4])


def test_a_folder_that_is_no_site_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = build_site(tmp_path)
    assert done.returncode == 2
    assert "--output must be a new folder or an earlier site" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
