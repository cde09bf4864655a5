"""Formulas of markdown as MathML, which browsers draw by themselves."""

import re

from latex2mathml.converter import convert

# Code is left alone: fenced, inside a pre element, or between backticks.
_CODE = r"```.*?```|~~~.*?~~~|<pre>.*?</pre>|(?P<ticks>`+).+?(?P=ticks)"
_DISPLAY = r"(?<![\\$])\$\$(?P<display>.+?)\$\$"
_INLINE = r"(?<![\\$])\$(?P<inline>[^\s$](?:(?:[^$\n]|\n(?!\s*\n))*[^\s$\\])?)\$(?![\d$])"
_PIECES = re.compile(f"{_CODE}|{_DISPLAY}|{_INLINE}", flags=re.DOTALL)
# Characters for private use, which no text has: markdown is made into HTML around them.
_PLACE = re.compile("\ue000(\\d+)\ue001")


class Formulas:
    """Takes the formulas out of markdown before it becomes HTML, and puts them in afterwards.

    A formula that cannot be converted stays as it was written: it can still be read.

    >>> formulas = Formulas()
    >>> text = formulas.take_out("the width $d$, not `$d$`")
    >>> formulas.put_in(text)
    'the width <math ...><mrow><mi>d</mi></mrow></math>, not `$d$`'
    """

    def __init__(self) -> None:
        self.made: list[str] = []

    def take_out(self, markdown: str) -> str:
        """Put a mark in the place of every formula, `$...$` or `$$...$$`, that is not in code."""
        return _PIECES.sub(self._mark, _PLACE.sub("", markdown))

    def put_in(self, html: str) -> str:
        """Put the formulas in the places of their marks."""
        return _PLACE.sub(lambda found: self.made[int(found[1])], html)

    def _mark(self, found: re.Match[str]) -> str:
        display = found["display"]
        formula = display if display is not None else found["inline"]
        if formula is None:
            return found[0]
        how = "inline" if display is None else "block"
        try:
            self.made.append(convert(formula.strip(), display=how))
        except Exception:  # of many kinds, none of them documented
            return found[0]
        return f"\ue000{len(self.made) - 1}\ue001"
