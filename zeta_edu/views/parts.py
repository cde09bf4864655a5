"""The parts of the block and the lessons that build them: what the map and the block view share."""

from typing import NamedTuple


class Part(NamedTuple):
    """A box of the map.

    Args:
        label: what is written in it.
        lesson: the number of the lesson that builds it.
        x, y, width, height: its place, in hundredths of the map's width.
    """

    label: str
    lesson: str
    x: float
    y: float
    width: float
    height: float


PARTS = {
    "norm": Part("layer\nnorm", "07", 6, 27, 8.5, 9),
    "projection": Part("one\nprojec-\ntion", "07", 18, 11, 9.5, 41),
    "lora": Part("LoRA on q, k, v, out", "10", 18, 55, 24, 5),
    "heads": Part("split\nheads", "02", 33, 30, 8.5, 22),
    "qk_norm": Part("qk\nnorm", "06", 43.5, 38, 7.5, 14),
    "rotary": Part("rotary", "04", 53.3, 38, 8.2, 14),
    "cache": Part("KV\ncache", "09", 62.2, 30, 7.5, 14),
    "xpos": Part("xPos", "05", 72.4, 38, 7, 14),
    "masks": Part("masks", "03", 84, 46.5, 11.5, 5),
    "attention": Part("attention", "01", 84, 37.5, 11.5, 6.5),
    "flash": Part("flash", "08", 84, 30, 11.5, 5),
    "out": Part("out", "02", 84, 20.5, 11.5, 5),
    "feedforward": Part("feed-forward: SwiGLU", "07", 41, 11, 26, 8),
}
"""Every part that can be lit, except `block`, which is the frame around them (lesson 11)."""

LESSONS = {
    "01": "attention",
    "02": "heads",
    "03": "masks",
    "04": "rotary",
    "05": "xPos",
    "06": "qk norm",
    "07": "feed-forward, and in parallel",
    "08": "flash attention",
    "09": "the KV cache",
    "10": "LoRA",
    "11": "the block",
}
"""The names of the lessons that build the block, by number."""
