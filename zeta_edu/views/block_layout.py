"""Where the parts of a block and the wires between them are drawn: from the top down.

One layout serves the page and the still picture. Lengths are in the pixels of a page whose
diagram is `WIDTH` wide. Queries, keys, values and the feed-forward each have a column.
"""

from dataclasses import dataclass, field
from typing import Any

from zeta_edu.block import TransformerBlock
from zeta_edu.views.parts import PARTS

WIDTH = 600
FRAME = (10, 30, 580)  # left, top, width
COLUMNS = {"q": 84, "k": 206, "v": 338, "ff": 476}
TRUNK = 300
MERGED = 206  # where the heads, merged, go on
ROLES = {"q": "query", "k": "key", "v": "value"}
BOX, GAP, BAR, FAN = 26, 36, 16, 20
LEFT, TO_KEYS, TO_VALUES = 34, 306, 426
SUM = (342, 11)  # centre and radius of the circle

Point = tuple[float, float]


@dataclass
class Layout:
    """Boxes and wires as they are laid down, and how far down the drawing has come."""

    boxes: list[dict[str, Any]] = field(default_factory=list)
    wires: dict[str, dict[str, Any]] = field(default_factory=dict)
    y: float = 0

    def box(
        self, name: str, label: str, lesson: str, left: float, right: float, y: float | None = None
    ) -> None:
        """A box from `left` to `right`; without `y` it is next, and the drawing goes on below."""
        top = self.y if y is None else y
        place = {"x": left, "y": top, "width": right - left, "height": BOX}
        self.boxes.append({"name": name, "label": label, "lesson": lesson, **place})
        if y is None:
            self.y += BOX

    def wire(self, name: str, points: list[Point], label: Point, role: str | None = None) -> None:
        """A line through points; its name and numbers stand at the right of `label`."""
        line = {"name": name, "points": points, "label": label, "role": role}
        self.wires[name] = line

    def drop(self, name: str, x: float, role: str | None = None, gap: float = GAP) -> None:
        """A wire straight down from where the drawing has come to."""
        self.wire(name, [(x, self.y), (x, self.y + gap)], (x + 7, self.y + gap / 2), role)

    def lanes(self, names: dict[str, str]) -> None:
        """Wires straight down in some of the columns, and the drawing goes on below."""
        for column, name in names.items():
            self.drop(name, COLUMNS[column], ROLES[column])
        self.y += GAP


def block_layout(block: TransformerBlock) -> dict[str, Any]:
    """Lay out the parts that this block has.

    Returns:
        "boxes", "wires" by name, "bar" (the slices of the projection), "panel" (behind
        attention), "frame", "sum", "width" and "height".
    """
    plan = Layout(y=18)
    plan.drop("x", TRUNK, gap=GAP + 22)
    plan.wires["x"]["label"] = (TRUNK + 7, FRAME[1] + 24)  # inside the frame
    plan.y += GAP + 22
    plan.box("norm", "layer norm", PARTS["norm"].lesson, 225, 375)
    plan.drop("normed", TRUNK)
    plan.y += GAP
    plan.box("projection", "one projection", PARTS["projection"].lesson, LEFT, 566)
    plan.drop("fused", TRUNK)
    plan.y += GAP
    bar, split = _slices(block, plan)
    halves = plan.y
    _towards_attention(block, plan)
    panel = _attention(block, plan)
    end = _ends(block, plan, halves, split)
    left, top, width = FRAME
    frame = (left, top, width, end - 20 - top)
    parts = {"bar": bar, "panel": panel, "frame": frame}
    return {
        "boxes": plan.boxes,
        "wires": plan.wires,
        **parts,
        "sum": (SUM[0], plan.y, SUM[1]),
        "width": WIDTH,
        "height": end + 22,
    }


def _slices(block: TransformerBlock, plan: Layout) -> tuple[dict[str, Any], float]:
    """The bar of the slices, each as wide as its share, and the wires that fan out from it."""
    left, width = LEFT, 566 - LEFT
    total = sum(block.fused_dims)
    segments: list[dict[str, Any]] = []
    bar = {"x": left, "y": plan.y, "width": width, "height": BAR, "segments": segments}
    starts: dict[str, float] = {}
    at = float(left)
    for name, size in zip(COLUMNS, block.fused_dims, strict=True):
        share = width * size / total
        segments.append({"x": at, "width": share, "role": ROLES.get(name)})
        starts[name], at = at + share / 2, at + share
    plan.y += BAR
    bottom = plan.y + FAN + GAP
    for name, column in COLUMNS.items():
        turn = plan.y + FAN
        points: list[Point] = [(starts[name], plan.y), (column, turn), (column, bottom)]
        plan.wire(name, points, (column + 7, turn + GAP / 2), ROLES.get(name))
    plan.y = bottom
    return bar, bottom


def _towards_attention(block: TransformerBlock, plan: Layout) -> None:
    tuned = block.finetune_modules
    if any(getattr(tuned, name) is not None for name in ROLES):
        plan.box("lora", "plus LoRA", PARTS["lora"].lesson, LEFT, TO_VALUES)
        plan.lanes({name: f"{name}_tuned" for name in ROLES})
    plan.box("heads", "split heads", PARTS["heads"].lesson, LEFT, TO_VALUES)
    beside = plan.y
    plan.lanes({name: f"{name}_heads" for name in ROLES})
    if block.qk_rmsnorm:
        plan.box("qk_norm", "qk norm", PARTS["qk_norm"].lesson, LEFT, TO_KEYS)
        plan.lanes({name: f"{name}_normed" for name in ("q", "k")})
    plan.box("rotary", "rotary", PARTS["rotary"].lesson, LEFT, TO_KEYS)
    plan.lanes({name: f"{name}_rotated" for name in ("q", "k")})
    plan.wires["v_heads"]["points"][0] = (COLUMNS["v"], beside)


def _attention(block: TransformerBlock, plan: Layout) -> tuple[float, float, float, float]:
    """The steps of attention on their panel; the values come in at the last."""
    top = plan.y
    if block.attend.xpos_scale_base is not None:
        plan.box("xpos", "xPos", PARTS["xpos"].lesson, LEFT, TO_KEYS)
        plan.y += 4
    plan.box("products", "queries · keys", PARTS["attention"].lesson, LEFT, TO_KEYS)
    middle = (LEFT + TO_KEYS) / 2
    plan.drop("scores", middle)
    plan.y += GAP
    plan.box("masks", "mask, softmax", PARTS["masks"].lesson, LEFT, TO_KEYS)
    plan.drop("weights", middle)
    plan.y += GAP
    core = PARTS["flash" if block.attend.flash else "attention"]
    plan.wires["v_heads"]["points"][1] = (COLUMNS["v"], plan.y)
    plan.box("mix", "mix the values", core.lesson, LEFT, TO_VALUES)
    panel = (LEFT - 10, top - 8, TO_VALUES - LEFT + 20, plan.y - top + 16)
    plan.y += 12
    plan.box("merge", "merge heads", PARTS["heads"].lesson, LEFT, TO_VALUES)
    return panel


def _ends(block: TransformerBlock, plan: Layout, halves: float, split: float) -> float:
    """The two ways out, the feed-forward's beside the attention's, and their sum."""
    plan.drop("merged", MERGED, "output")
    plan.y += GAP
    tuned = block.finetune_modules.o is not None
    plan.box("out", "out, plus LoRA" if tuned else "out", PARTS["out"].lesson, 120, 292)
    inner = halves + (plan.y - halves) * 0.46
    column, lesson = COLUMNS["ff"], PARTS["feedforward"].lesson
    plan.wires["ff"]["points"][-1] = (column, inner)
    plan.box("swiglu", "SwiGLU", lesson, 446, 566, inner)
    ends = plan.y - BOX
    below = inner + BOX
    plan.wire("swiglu", [(column, below), (column, ends)], (column + 7, below + GAP / 2))
    plan.box("ff_out", "ff out", lesson, 446, 566, ends)
    at, radius = SUM
    middle = plan.y + GAP + 4
    for name, x, edge in (("attn_out", MERGED, at - radius), ("ff_out_wire", column, at + radius)):
        points: list[Point] = [(x, plan.y), (x, middle), (edge, middle)]
        plan.wire(name.removesuffix("_wire"), points, (x + 7, plan.y + GAP / 2))
    plan.y = middle
    bottom = middle + radius + GAP + 26
    plan.wire("out", [(at, middle + radius), (at, bottom)], (at + 7, middle + radius + GAP / 2))
    return bottom
