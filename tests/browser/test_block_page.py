"""A saved block view, opened with the network off: its wires show what torch computed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zeta_edu import TransformerBlock
from zeta_edu.views import BlockView, block_view
from zeta_edu.views.block_data import block_wires

TOKENS = [["def", " f", "(", ")", ":"], ["a", " =", " 1", "\n", "b"], ["x", "y", "z", "w", "v"]]


@pytest.fixture(scope="module")
def block() -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(dim=16, dim_head=4, heads=4, kv_heads=2, qk_rmsnorm=True).eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def made(block: TransformerBlock, x: torch.Tensor) -> BlockView:
    return block_view(block, x, tokens=TOKENS)


@pytest.fixture
def view(screen: Any, made: BlockView, tmp_path: Path) -> Any:
    (view,) = screen(made.save(tmp_path / "page.html")).wait_for_views()
    return view


def set_to(view: Any, **changes: Any) -> dict[str, Any]:
    view.host.evaluate("(host, changes) => host.view.set(changes)", changes)
    return view.report()


def place(view: Any, name: str) -> Any:
    code = "(host, name) => host.view.diagram.places.get(name).node"
    return view.host.evaluate_handle(code, name).as_element()


@pytest.mark.parametrize("sequence", [0, 2])
def test_every_wire_shows_the_numbers_that_torch_computed(
    view: Any, made: BlockView, block: TransformerBlock, x: torch.Tensor, sequence: int
) -> None:
    for name, wire in block_wires(block, x).items():
        drawn = set_to(view, place=name, sequence=sequence)
        values = wire[sequence].double()
        finite = values[values.isfinite()]
        (row,) = drawn["table"]
        for key, expected in {
            "least": finite.min(),
            "largest": finite.max(),
            "mean": finite.mean(),
            "rms": finite.square().mean().sqrt(),
        }.items():
            assert row[key] == pytest.approx(float(expected), abs=1e-5), (name, key)
        counts = torch.histc(finite, 24, float(finite.min()), float(finite.max()))
        shares = drawn["histogram"]["shares"]
        # A number on the edge between two bins may fall to either side in the two libraries.
        assert np.abs(np.cumsum(shares) - (counts / counts.sum()).cumsum(0).numpy()).max() < 0.02
        rows = values.movedim(-2, 0).reshape(5, -1)
        sizes = [float(row[row.isfinite()].square().mean().sqrt()) for row in rows]
        assert drawn["byToken"] == pytest.approx(sizes, abs=1e-5)
        assert drawn["title"] == made.findings[sequence][name]


def test_labels_give_the_shape_and_what_is_asked_for(view: Any, made: BlockView) -> None:
    drawn = view.report()["labels"]
    assert {name: words[0] for name, words in drawn.items()} == {
        name: " × ".join(map(str, wire.shape)) for name, wire in made.wires.items()
    }
    least, largest, _, rms, _ = made.statistics.table[0][list(made.wires).index("q")]
    low, high = drawn["q"][1].replace("−", "-").split(" to ")
    assert float(low) == pytest.approx(least, rel=0.06)
    assert float(high) == pytest.approx(largest, rel=0.06)
    view.choose("On the wires", "rms")
    words = view.report()["labels"]["q"][1]
    assert float(words.removeprefix("rms ")) == pytest.approx(rms, rel=0.006)


def test_clicking_a_part_tells_its_lesson_its_source_and_its_shapes(view: Any) -> None:
    place(view, "part:qk_norm").click()
    drawn = view.report()
    assert drawn["place"] == "part:qk_norm"
    assert drawn["title"].startswith("qk norm: queries of rms")
    assert "Lesson 06, qk norm" in drawn["origin"]
    assert "l2_normalise" in drawn["origin"]
    assert "zeta_edu/norm.py" in drawn["origin"]
    assert "keys, normed (batch 3, kv_heads 2, n 5, dim_head 4)" in drawn["readout"]
    assert len(drawn["table"]) == 2
    assert drawn["histogram"] is None


def test_clicking_a_wire_tells_its_part_and_draws_its_histogram(view: Any) -> None:
    hit = place(view, "weights").query_selector(".hit")
    hit.click(force=True)
    drawn = view.report()
    assert drawn["place"] == "weights"
    assert "Lesson 03, masks" in drawn["origin"]
    assert "heads 4, query 5, key 5; 100 numbers" in drawn["readout"]
    assert sum(drawn["histogram"]["shares"]) == pytest.approx(1, abs=1e-6)


def test_every_place_is_reached_by_arrow_keys_from_every_other(view: Any) -> None:
    code = """(host) => {
        const { diagram, state } = host.view;
        const around = [[0, -1], [0, 1], [-1, 0], [1, 0]];
        const unreached = (from) => {
            const seen = new Set([from]);
            for (const name of seen) {
                for (const way of around) {
                    const next = diagram.neighbour(name, way);
                    if (next) seen.add(next);
                }
            }
            return [...diagram.places.keys()].filter((name) => !seen.has(name));
        };
        return [...diagram.places.keys()].flatMap(unreached);
    }"""
    assert view.host.evaluate(code) == []


def test_arrow_keys_move_the_focus_and_the_picked_part(view: Any) -> None:
    place(view, "part:norm").focus()
    assert view.report()["place"] == "part:norm"
    for key, expected in {
        "ArrowDown": "normed",
        "ArrowUp": "part:norm",
        "Home": "x",
        "End": "out",
    }.items():
        view.press(key)
        assert view.report()["place"] == expected
    focused = view.host.evaluate("(host) => host.shadowRoot.activeElement.ariaLabel")
    assert focused == "block(x), their sum"


def test_hovering_tells_without_picking(view: Any) -> None:
    place(view, "part:rotary").query_selector("rect").hover()
    drawn = view.report()
    assert drawn["readout"].startswith("Turns each pair of features")
    assert drawn["place"] == "part:sum"


def test_bars_and_tokens_speak_under_mouse_and_keyboard(view: Any, made: BlockView) -> None:
    set_to(view, place="ff_out")
    view.part(".plot canvas").focus()
    view.press("ArrowRight", "ArrowRight")
    assert "of the numbers of feed-forward out lie between" in view.report()["readout"]
    view.part(".token", 1).hover()
    size = made.statistics.by_token[0, list(made.wires).index("ff_out"), 1]
    assert view.report()["readout"] == f"·f at position 1: rms {size:.3g} on feed-forward out."
    view.part(".strip").focus()
    view.press("Home", "ArrowRight", "ArrowRight")
    assert "( at position 2" in view.report()["readout"]


def test_another_sequence_brings_its_own_tokens_and_finding(view: Any, made: BlockView) -> None:
    view.slide("sequence", 1)
    drawn = view.report()
    assert drawn["title"] == made.findings[1]["part:sum"]
    assert view.text(".token", 3) == "⏎"


def test_numbers_that_are_not_finite_are_marked_where_they_begin(
    screen: Any, block: TransformerBlock, x: torch.Tensor, tmp_path: Path
) -> None:
    broken = x[:1].clone()
    broken[0, 1, 0] = torch.inf
    page = block_view(block, broken).save(tmp_path / "page.html")
    (view,) = screen(page).wait_for_views()
    labels = view.report()["labels"]
    assert labels["x"][1] == "1 not finite"
    assert labels["normed"][1] == "16 not finite"
    assert "bad" in place(view, "x").get_attribute("class")


def test_an_empty_input_is_a_sentence(screen: Any, block: TransformerBlock, tmp_path: Path) -> None:
    page = block_view(block, torch.zeros(1, 0, 16)).save(tmp_path / "page.html")
    screen(page).page.get_by_text("Nothing to look at yet: x holds no tokens.").wait_for()
