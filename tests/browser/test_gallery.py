"""The gallery: ten views alive on one page from disk, in JupyterLab, and there without a kernel."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.browser.lab import Lab, run_all, save
from tests.browser.screen import Screen, ViewOnScreen
from tests.browser.test_notebooks import ROOT, exported, notebook
from tests.views.examples import EXAMPLES
from zeta_edu.views.display import Span

GALLERY = ROOT / "notebooks" / "gallery.ipynb"
KINDS = "(host) => host.view.state.kind"


def all_alive(shown: Screen) -> list[ViewOnScreen]:
    """The ten views of the page, after each has answered to a change of its controls."""
    found = shown.wait_for_views(len(EXAMPLES))
    kinds = [view.host.evaluate(KINDS) for view in found]
    assert sorted(kinds) == sorted(EXAMPLES)
    for kind, view in zip(kinds, found, strict=True):
        assert moved(view), f"{kind} does not answer"
    return found


def moved(view: ViewOnScreen) -> bool:
    """Whether some control, pressed as a hand would, changes what the view says it draws."""
    before = view.report()
    for element in (
        view.host.evaluate_handle(
            "(h) => [...h.shadowRoot.querySelectorAll('.controls input, .controls select')]"
        )
        .get_properties()
        .values()
    ):
        control = element.as_element()
        control.focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Space"):
            view.press(key)
            if {**view.report(), "cursor": None} != {**before, "cursor": None}:
                return True
    return False


def test_on_one_page_from_disk_with_the_network_off(screen: Any, tmp_path: Path) -> None:
    page = exported(GALLERY, tmp_path)
    shown = screen(page, width=1200)
    all_alive(shown)
    print(f"\nthe gallery is one file of {page.stat().st_size / 1e6:.2f} MB")
    assert page.stat().st_size < 5e6


def test_in_jupyterlab_and_again_without_a_kernel(
    screen: Any, lab: Lab, lab_without_kernels: Lab
) -> None:
    shutil.copy(GALLERY, lab.folder / "gallery.ipynb")
    shown = lab.open(screen, "gallery.ipynb")
    run_all(shown)
    all_alive(shown)
    save(shown)
    reopened = lab_without_kernels.open(screen, "gallery.ipynb")
    all_alive(reopened)
    assert reopened.kernel() is None


SET_UP = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.views.examples import EXAMPLES"
SHOW = "{kind} = EXAMPLES[{kind!r}]().live()\n{kind}"


def first_change(kind: str) -> tuple[str, Any]:
    """A control of a view that is not chosen in the picture itself, and a value it has not yet."""
    made = EXAMPLES[kind]()
    start = made.state()["start"]
    for name, allowed in made.controls().items():
        values = [allowed.low, allowed.high] if isinstance(allowed, Span) else [*allowed]
        others = [value for value in values if value != start[name]]
        if others:
            return name, others[0]
    raise AssertionError(f"{kind} has nothing to change")


def test_live_views_and_the_kernel_hear_each_other(screen: Any, lab: Lab) -> None:
    changes = {kind: first_change(kind) for kind in EXAMPLES}
    setting = "\n".join(f"{kind}.{name} = {value!r}" for kind, (name, value) in changes.items())
    cells = [SET_UP, *(SHOW.format(kind=kind) for kind in EXAMPLES), setting]
    notebook(lab.folder / "live_views.ipynb", *cells)
    shown = lab.open(screen, "live_views.ipynb")
    run_all(shown)
    for view in shown.wait_for_views(len(EXAMPLES)):
        kind = view.host.evaluate(KINDS)
        name, value = changes[kind]
        code = "([host, name, value]) => host.view.report()[name] === value"
        shown.page.wait_for_function(code, arg=[view.host, name, value], timeout=20_000)
        assert moved(view)
        names = list(EXAMPLES[kind]().controls())
        asked = f"__import__('json').dumps([{', '.join(f'{kind}.{name}' for name in names)}])"
        for _ in range(50):  # a widget sends a change once the one before has arrived
            told, drawn = json.loads(lab.ask(shown, asked)), view.report()
            if told == [drawn[name] for name in names]:
                break
            shown.page.wait_for_timeout(100)
        else:
            raise AssertionError(f"Python has {told} for {names} of {kind}, drawn is {drawn}")
