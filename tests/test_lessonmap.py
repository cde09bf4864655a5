"""The map of the block at the top of each lesson."""

import math

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation

from zeta_edu.lessonmap import DOOR, PARTS, block_map, block_map_text
from zeta_edu.views import style


def boxes_in_colour(figure, colour):
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    return [box for box in boxes if to_hex(box.get_facecolor()) == colour.lower()]


@pytest.mark.parametrize("name", PARTS)
def test_a_lit_part_is_the_one_box_in_colour_and_in_the_title(name):
    figure = block_map(lit=(name,))
    (box,) = boxes_in_colour(figure, style.OUTPUT)
    part = PARTS[name]
    assert (box.get_x(), box.get_y()) == (part.x, part.y)
    assert figure.axes[0].get_title(loc="left").startswith("You are here: ")


def test_a_map_with_nothing_lit_has_no_box_in_colour():
    assert boxes_in_colour(block_map(), style.OUTPUT) == []
    assert "No part is lit." in block_map_text()


def test_the_whole_block_can_be_lit():
    assert block_map(lit=("block",)).axes[0].get_title(loc="left").endswith("the whole block")
    assert "Lit: the whole block." in block_map_text(("block",))


def test_a_single_name_may_stand_for_itself():
    assert block_map_text("attention") == block_map_text(("attention",))


def test_every_lesson_of_the_block_has_a_door():
    doors = {text.get_text() for text in block_map().axes[0].texts}
    assert {f"{number:02}" for number in range(1, 12)} <= doors


@pytest.mark.parametrize("name", PARTS)
def test_no_door_covers_another_box(name):
    own = PARTS[name]
    right, top = own.x + own.width, own.y + own.height
    for part in (part for other, part in PARTS.items() if other != name):
        across = max(part.x - right, 0, right - part.x - part.width)
        up = max(part.y - top, 0, top - part.y - part.height)
        assert math.hypot(across, up) >= DOOR, part.label


def test_lora_leads_to_the_projection_and_to_the_output():
    ends = {text.xy for text in block_map().axes[0].texts if isinstance(text, Annotation)}
    out, projection = PARTS["out"], PARTS["projection"]
    assert (out.x + out.width, out.y + out.height / 2) in ends
    assert any(y == projection.y + projection.height for _, y in ends)


def test_a_part_that_is_not_on_the_map_is_refused_by_name():
    with pytest.raises(ValueError, match=r"lit: no part is called 'engine'; known: block, norm"):
        block_map(lit=("attention", "engine"))
