"""What all views promise outside the browser: state, display, files, pictures, widgets."""

import base64
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import traitlets
from matplotlib.figure import Figure

from tests.views.examples import EXAMPLES, HOSTILE, WITH_TOKENS
from zeta_edu.views.display import Span, View

every_view = pytest.mark.parametrize("name", EXAMPLES)


@pytest.fixture
def view(name: str) -> View:
    return EXAMPLES[name]()


@every_view
def test_the_state_is_json_with_a_start_for_every_control(view: View, name: str) -> None:
    state = json.loads(json.dumps(view.state(), allow_nan=False))
    assert state["kind"] == name
    assert set(state["start"]) == set(view.controls())
    for control, allowed in view.controls().items():
        start = state["start"][control]
        fits = allowed.low <= start <= allowed.high if isinstance(allowed, Span) else None
        assert fits if fits is not None else start in allowed, control  # type: ignore[operator]


@every_view
def test_it_is_displayed_alive_with_a_still_picture_and_words_and_no_widget(view: View) -> None:
    data, metadata = view._repr_mimebundle_()
    assert list(data) == ["text/html", "image/png", "text/plain"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert len(view.alt) > 20
    assert metadata["image/png"]["alt"] == view.alt
    assert data["text/plain"] == f"{type(view).__name__}: {view.alt}"


@every_view
def test_it_is_displayed_the_same_way_every_time(view: View, name: str) -> None:
    assert view._repr_mimebundle_() == EXAMPLES[name]()._repr_mimebundle_()


@every_view
def test_the_title_says_something_and_ends_without_a_full_stop(view: View) -> None:
    assert len(view.title) > 10
    assert not view.title.endswith(".")
    assert view.alt.endswith(".")


@every_view
def test_the_still_picture_fits_a_notebook(view: View) -> None:
    figure = view.figure()
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    assert 6 <= width <= 10
    assert height <= 7


@every_view
def test_it_is_saved_as_page_and_as_picture(view: View, tmp_path: Path) -> None:
    assert view.save(tmp_path / "a.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert view.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in view.save(tmp_path / "a.svg").read_text("utf-8")
    first = (tmp_path / "a.svg").read_bytes()
    assert view.save(tmp_path / "b.svg").read_bytes() == first
    with pytest.raises(ValueError, match=r"path must end in \.html"):
        view.save(tmp_path / "a.jpeg")


@every_view
def test_the_widget_has_a_trait_for_every_control_and_refuses_what_it_cannot_be(view: View) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        widget = view.live()
    start = view.state()["start"]
    for control, allowed in view.controls().items():
        assert getattr(widget, control) == start[control]
        wrong: Any = "no such value"
        with pytest.raises(traitlets.TraitError):
            setattr(widget, control, wrong)
        if isinstance(allowed, range) and len(allowed):
            setattr(widget, control, allowed[-1])
            assert getattr(widget, control) == allowed[-1]


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_hostile_text_stays_inside_its_data(name: str) -> None:
    view = EXAMPLES[name](HOSTILE)
    page = view.html()
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert "\u2028" not in page
    view.figure().savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_tokens_of_another_number_or_kind_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="tokens"):
        EXAMPLES[name](HOSTILE[:3])
    with pytest.raises(TypeError, match="tokens"):
        EXAMPLES[name]([*HOSTILE[:7], 7])  # type: ignore[list-item]
