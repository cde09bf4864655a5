"""How a token is written so that one sees all of it, white space and controls included."""

import functools
import unicodedata

from matplotlib import font_manager

_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "→", " ": "·"}
# Letters that cannot be seen, or that would turn the text around them.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def visible(token: str) -> str:
    r"""Write a token so that blanks, newlines and control characters show.

    Args:
        token: the token's text.

    Returns:
        The text with `·` for a blank, `⏎` for a newline, `→` for a tab and `⟨U+200B⟩` for a
        character that has no picture; `∅` for the empty token.

    Examples:
        >>> visible("\n    return"), visible("\u202e")
        ('⏎····return', '⟨U+202E⟩')
    """
    return "".join(_seen(letter) for letter in token) or "∅"


def _seen(letter: str) -> str:
    if letter in _VISIBLE:
        return _VISIBLE[letter]
    if unicodedata.category(letter) in _UNSEEN:
        return f"⟨U+{ord(letter):04X}⟩"
    return letter


def drawable(label: str, most: int = 12) -> str:
    """Shorten a label for a figure, with `□` for what matplotlib's own font cannot draw."""
    short = label if len(label) <= most else label[: most - 1] + "…"
    return "".join(letter if ord(letter) in _letters() else "□" for letter in short)


@functools.cache
def _letters() -> frozenset[int]:
    path = font_manager.findfont("DejaVu Sans Mono")
    return frozenset(font_manager.get_font(path).get_charmap())
