"""The attention view outside the browser: state, displayed bundle, files, figure, widget."""

import base64
import io
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from zeta_edu.views import AttentionView, attention_view, codec, style

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "$\\frac{1}{",
    "\u2028\u2029\u202e\x00",
    "漢字🙂",
    "",
    "-->",
    "]]>",
]


def causal(layers: int, heads: int, tokens: int) -> torch.Tensor:
    scores = torch.randn(layers, heads, tokens, tokens, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.fixture
def view() -> AttentionView:
    return attention_view(causal(2, 3, 5), ["def", " f", "(", ")", ":\n"])


def test_the_state_is_json_and_names_everything(view: AttentionView) -> None:
    state = json.loads(json.dumps(view.state(), allow_nan=False))
    assert state["shape"] == [2, 3, 5, 5]
    assert state["key_labels"] == ["def", "·f", "(", ")", ":⏎"]
    assert state["query_labels"] is None
    assert state["causal"] is True
    assert [len(row) for row in state["findings"]] == [3, 3]


def test_the_state_says_when_attention_is_not_causal_or_holds_nan() -> None:
    weights = torch.full((1, 1, 3, 3), 1 / 3)
    weights[0, 0, 0, 0] = torch.nan
    state = attention_view(weights).state()
    assert state["causal"] is False
    assert state["has_nan"] is True


def test_stages_are_kept_in_order_with_the_weights_last() -> None:
    scores = torch.randn(1, 2, 3, 3)
    stages = {"scores": scores, "scaled": scores / 8, "what I did next": scores + 1}
    state = attention_view(scores.softmax(-1), stages=stages).state()
    assert [step["name"] for step in state["stages"]] == [*stages, "softmax"]
    assert state["stages"][2]["title"] == "what I did next"
    decoded = codec.decode(state["arrays"]["scaled"])
    np.testing.assert_allclose(decoded, scores.numpy() / 8, rtol=1e-6)


def test_the_display_is_html_first_with_a_picture_and_words(view: AttentionView) -> None:
    data, metadata = view._repr_mimebundle_()
    assert list(data) == ["text/html", "image/png", "text/plain"]
    assert view.alt in data["text/plain"]
    assert metadata["image/png"]["alt"] == view.alt
    assert f'alt="{view.alt}"' in data["text/html"]
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert "application/vnd.jupyter.widget-view+json" not in data


def test_the_display_is_the_same_every_time() -> None:
    def displayed() -> dict[str, str]:
        return attention_view(causal(2, 3, 5), list("abcde"))._repr_mimebundle_()[0]

    assert displayed() == displayed()


def test_hostile_tokens_stay_inside_their_strings(tmp_path: Path) -> None:
    view = attention_view(causal(1, 1, len(HOSTILE)), HOSTILE, stages={"<b>": causal(1, 1, 8)})
    page = view.html()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert page.count("<img") == 1
    assert "onerror=" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    state = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert state["key_labels"][0] == HOSTILE[0].replace(" ", "·")
    view.save(tmp_path / "page.svg")
    assert "<script" not in (tmp_path / "page.svg").read_text()


def test_a_head_that_favours_a_hostile_token_names_it_harmlessly() -> None:
    weights = torch.zeros(1, 1, 3, 3)
    weights[..., 1] = 1
    page = attention_view(weights, ["a", '"><img src=x onerror=alert(1)>', "b"]).html()
    assert page.count("<img") == 1
    assert "“&quot;&gt;&lt;img·src=x·onerror=al…”" in page


def test_tokens_that_the_figure_cannot_draw_draw_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.picture(attention_view(causal(1, 1, len(HOSTILE)), HOSTILE).figure())


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (1, 1, 2, 2), (2, 3, 0, 0), (1, 2, 1, 30), (3, 1, 40, 7), (1, 1, 700, 700)],
)
def test_any_shape_has_a_figure_and_a_page(shape: tuple[int, ...]) -> None:
    weights = torch.full(shape, 1 / max(1, shape[-1]))
    view = attention_view(weights)
    assert isinstance(view.figure(), Figure)
    assert str(list(shape)).replace(" ", "") in view.html()


@pytest.mark.parametrize("filling", [0.0, float("nan")])
def test_heads_of_nothing_or_nan_have_a_figure(filling: float) -> None:
    assert style.picture(attention_view(torch.full((1, 1, 3, 3), filling)).figure())


def test_a_head_alone_is_not_named_and_takes_the_whole_figure() -> None:
    view = attention_view(torch.full((1, 3, 3), 1 / 3))
    assert view.title == "Each query spreads its attention over about 3 tokens"
    assert view.alt.startswith("Attention weights of one head over 3 tokens. Each query")
    assert [axes.get_xlabel() for axes in view.figure().axes] == [
        "keys: the tokens looked at",
        "",
    ]
    two = attention_view(torch.full((2, 3, 3), 1 / 3))
    assert two.title.startswith("Layer 0, head 0: ")
    assert [axes.get_xlabel() for axes in two.figure().axes][-1] == "head"


def test_files_are_written_by_their_ending(view: AttentionView, tmp_path: Path) -> None:
    page = view.save(tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    Image.open(view.save(str(tmp_path / "picture.png"))).verify()
    assert "<svg" in view.save(tmp_path / "picture.svg").read_text("utf-8")


def test_files_are_the_same_every_time(view: AttentionView, tmp_path: Path) -> None:
    for ending in ("html", "png", "svg"):
        first = view.save(tmp_path / f"first.{ending}").read_bytes()
        assert view.save(tmp_path / f"second.{ending}").read_bytes() == first


@pytest.mark.parametrize("name", ["page.pdf", "page", "page.html.gz"])
def test_another_ending_is_refused(view: AttentionView, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="path must end in"):
        view.save(tmp_path / name)


def test_the_figure_shows_the_weights_of_the_opened_head() -> None:
    weights = torch.eye(6)[None, None].clone()
    weights[0, 0, 5] = torch.tensor([0.0, 0, 0, 0.5, 0, 0.5])
    image = attention_view(weights).figure().axes[0].images[0].get_array()
    darkness = 1 - image[..., :3].mean(-1)
    assert darkness[0, 0] > darkness[5, 3] > darkness[0, 1]


def test_the_widget_starts_where_the_view_does_and_carries_its_state(view: AttentionView) -> None:
    widget = view.live()
    start = view.state()["start"]
    assert {name: getattr(widget, name) for name in start} == start
    assert widget.state == view.state()
    assert "export default" in widget._esm


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("layer", 1, 2),
        ("head", 2, -1),
        ("query", 4, 5),
        ("stage", "softmax", "scores"),
        ("direction", "key", "sideways"),
        ("scale", "log", "cubic"),
    ],
)
def test_the_widget_takes_what_exists_and_refuses_the_rest(
    view: AttentionView, name: str, good: Any, bad: Any
) -> None:
    widget = view.live()
    setattr(widget, name, good)
    assert getattr(widget, name) == good
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(widget, name, bad)


def test_twelve_layers_of_eight_heads_fit_into_a_page_of_two_megabytes() -> None:
    page = attention_view(causal(12, 8, 256)).html()
    print(f"12 × 8 × 256: {len(page.encode()) / 1e6:.2f} MB")
    assert len(page.encode()) < 2_000_000


def test_an_output_without_attentions_says_how_to_get_them() -> None:
    output = SimpleNamespace(attentions=None)
    with pytest.raises(ValueError, match="holds no attentions: load the model with"):
        attention_view(output, ["a", "b"])


def test_of_an_encoder_and_decoder_one_must_be_chosen() -> None:
    output = SimpleNamespace(encoder_attentions=(), cross_attentions=())
    with pytest.raises(ValueError, match=r"pass \.encoder_attentions, \.decoder_attentions or"):
        attention_view(output, ["a", "b"])
