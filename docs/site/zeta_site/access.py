"""Two faults in the HTML that Sphinx writes, mended for readers who listen to a page."""

import re
from typing import Any

from sphinx.application import Sphinx

SIGNATURE = re.compile(r'<dt class="sig\b.*?</dt>', re.DOTALL)


def setup(app: Sphinx) -> None:
    """Mend each page before it is written."""
    app.connect("html-page-context", mend, priority=900)  # after the theme has drawn its sidebar


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend a page: its text, and the list of all pages beside it."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = SIGNATURE.sub(lines_of_a_signature, levelled(context[part]))


def levelled(html: str) -> str:
    """Captions are headings; a heading must say of which level."""
    return html.replace('role="heading">', 'role="heading" aria-level="2">')


def lines_of_a_signature(found: re.Match[str]) -> str:
    """Arguments on lines of their own are written as definitions without a term: not allowed."""
    html = re.sub(r"<(/?)dl>", r"<\1span>", found[0])
    return re.sub(r"<dd>(.*?)</dd>", r'<span class="argument">\1</span>', html, flags=re.DOTALL)
