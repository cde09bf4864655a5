"""The colours can be told apart and read, and figures carry their words."""

import base64
import io
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from zeta_edu.views import style


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", [style.LIGHT["page"], style.DARK["page"]])
@pytest.mark.parametrize("role", ["query", "key", "value", "output", "mask"])
def test_every_role_stands_out_on_both_pages(role: str, page: str) -> None:
    assert contrast(style.ROLES[role], page) >= 3.0


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK])
@pytest.mark.parametrize("writing", [*style.LIGHT][4:])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_writing_can_be_read(theme: dict[str, str], writing: str, ground: str) -> None:
    assert contrast(theme[writing], theme[ground]) >= 4.5


# Viénot, Brettel and Mollon (1999): linear RGB as seen without red or without green cones.
WITHOUT_RED = [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]
WITHOUT_GREEN = [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]


@pytest.mark.parametrize("eye", [WITHOUT_RED, WITHOUT_GREEN])
def test_query_key_value_and_output_differ_to_colour_blind_eyes(eye: list[list[float]]) -> None:
    roles = (style.QUERY, style.KEY, style.VALUE, style.OUTPUT)
    seen = [np.array(eye) @ (np.array(to_rgb(role)) ** 2.2) for role in roles]
    for one, other in itertools.combinations(seen, 2):
        assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize("stops", [style.STOPS_LIGHT, style.STOPS_DARK[::-1]])
def test_more_is_always_further_from_the_page(stops: tuple[str, ...]) -> None:
    brightness = [luminance(stop) for stop in stops]
    assert brightness == sorted(brightness, reverse=True)


def test_use_sets_matplotlib_up() -> None:
    with matplotlib.rc_context():
        style.use()
        assert matplotlib.rcParams["image.cmap"] == style.MAP
        colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        assert colours[:4] == [style.QUERY, style.KEY, style.VALUE, style.OUTPUT]


def shown(figure: Figure, alt: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    outputs: list[tuple[dict, dict]] = []
    shell = InteractiveShell.instance()
    monkeypatch.setattr(
        shell.display_pub, "publish", lambda data, metadata, **_: outputs.append((data, metadata))
    )
    style.show(figure, alt=alt)
    InteractiveShell.clear_instance()
    (output,) = outputs
    return output


def test_show_gives_the_picture_its_words_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    data, metadata = shown(figure, 'a line that rises from 1 to 3, "straight"', monkeypatch)
    assert 'alt="a line that rises from 1 to 3, &quot;straight&quot;"' in data["text/html"]
    assert data["text/plain"] == metadata["image/png"]["alt"]
    assert data["image/png"] in data["text/html"]
    assert not plt.fignum_exists(figure.number)
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.size[0] == 2 * metadata["image/png"]["width"]


@pytest.mark.parametrize(
    ("alt", "error"), [("", ValueError), ("  ", ValueError), (None, TypeError)]
)
def test_show_refuses_a_figure_without_words(alt: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="alt"):
        style.show(Figure(), alt=alt)


def test_show_refuses_what_is_no_figure() -> None:
    with pytest.raises(TypeError, match="figure"):
        style.show([1, 2], alt="a list")  # type: ignore[arg-type]


def test_a_picture_has_the_same_bytes_every_time_and_leaves_the_figure_as_it_was() -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    dpi, canvas = figure.dpi, figure.canvas
    assert style.picture(figure) == style.picture(figure)
    assert (figure.dpi, figure.canvas) == (dpi, canvas)
