"""What is sent to the browser is closed in itself: one script, no tag inside, no name twice."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeta_edu import views
from zeta_edu.views import AttentionView, bundle, style

FOLDER = Path(str(files("zeta_edu.views") / "js"))
VIEWS = [name for name in views.__all__ if name.endswith("View") and name != "View"]
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|const|class) (\w+)", re.MULTILINE)
IMPORTED = re.compile(r'^import \{ ([\w, ]+) \} from "\./([\w.]+)";', re.MULTILINE)


@given(st.text())
def test_json_holds_no_letter_that_could_begin_a_tag_or_end_a_line(text: str) -> None:
    written = bundle.to_json({"text": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"text": text}


def test_json_refuses_what_a_browser_cannot_read() -> None:
    with pytest.raises(ValueError, match="JSON"):
        bundle.to_json(float("nan"))


def test_no_name_is_declared_in_two_modules() -> None:
    declared = [name for path in FOLDER.glob("*.js") for name in DECLARED.findall(path.read_text())]
    assert len(declared) > 30
    others = [name for name in declared if name != "widget"]  # one in the last file of each view
    assert sorted(others) == sorted(set(others))


def test_every_import_names_what_its_module_exports_and_stands_on_one_line() -> None:
    for path in FOLDER.glob("*.js"):
        code = path.read_text()
        imports = IMPORTED.findall(code)
        assert len(imports) == len(re.findall(r"^import\b", code, re.MULTILINE)), path.name
        for names, source in imports:
            if source == "generated.js":
                continue
            exported = re.findall(
                r"^export (?:async )?(?:function|const|class) (\w+)",
                (FOLDER / source).read_text(),
                re.MULTILINE,
            )
            assert set(names.split(", ")) <= set(exported), (path.name, source)


@pytest.mark.parametrize("name", VIEWS)
def test_modules_come_after_those_they_need(name: str) -> None:
    seen: set[str] = {"generated.js"}
    modules = getattr(views, name).modules
    for module in modules:
        needed = {source for _, source in IMPORTED.findall((FOLDER / module).read_text())}
        assert needed <= seen, module
        seen.add(module)


@pytest.mark.parametrize("name", VIEWS)
def test_the_script_asks_nothing_of_the_network_and_writes_no_markup(name: str) -> None:
    script = bundle.script(getattr(views, name).modules)
    for word in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "insertAdjacentHTML", "eval("):
        assert word not in script
    assert not re.search(r"^import\b", script, re.MULTILINE)
    assert "</" not in script
    addresses = set(re.findall(r"https?://[^\"'` ]+", script))
    assert addresses == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", VIEWS)
def test_the_script_stays_small(name: str) -> None:
    assert len(bundle.script(getattr(views, name).modules)) < 52_000


def test_files_for_the_browser_stay_readable() -> None:
    for path in FOLDER.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) < 300, path.name
        assert max(len(line) for line in lines) <= 120, path.name


def test_the_script_draws_in_the_colours_of_the_style() -> None:
    colours = json.loads(bundle.script(AttentionView.modules).splitlines()[0][14:-1])
    assert tuple(colours["light"]["stops"]) == style.STOPS_LIGHT
    assert tuple(colours["dark"]["stops"]) == style.STOPS_DARK
    assert colours["roles"]["query"] == style.QUERY
