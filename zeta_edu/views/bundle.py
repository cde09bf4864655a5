"""From the files in js/ to one script and one page, without a build step.

The files are ES modules that import each other by name, as editors and readers expect. To send
them as one script they are joined in the given order; a line that starts with `import` is
dropped, and so is the word `export` in front of a declaration. That is sound because an import
stands on one line, brings in names unchanged, and no two files declare the same name at their top
level (a test holds them to it). Comments and indentation stay behind.
"""

import functools
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from zeta_edu.views import style

_EXPORT = re.compile(r"^export (?=(async |function |const |class ))")


@functools.cache
def script(modules: tuple[str, ...]) -> str:
    """Join modules of `js/`, in order, into one ES module; the last one has the default export."""
    folder = files("zeta_edu.views") / "js"
    sheets = ("view.css", *(name for name in modules if name.endswith(".css")))
    css = " ".join(" ".join((folder / name).read_text("utf-8").split()) for name in sheets)
    lines = [f"const STYLE = {to_json(_colours())};", f"const CSS = {to_json(css)};"]
    for module in modules:
        if module in sheets:
            continue
        for line in (folder / module).read_text("utf-8").splitlines():
            code = line.strip()
            if code and not code.startswith(("//", "import ")):
                lines.append(_EXPORT.sub("", code))
    return "\n".join(lines) + "\n"


def _colours() -> dict[str, Any]:
    light = {**style.LIGHT, "stops": style.STOPS_LIGHT, "signed": style.SIGNED_LIGHT}
    dark = {**style.DARK, "stops": style.STOPS_DARK, "signed": style.SIGNED_DARK}
    return {"roles": dict(style.ROLES), "light": light, "dark": dark}


def to_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: no tag, comment or entity can begin in it.

    Examples:
        >>> to_json("</script>")
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def fragment(modules: Sequence[str], state: dict[str, Any], still: str) -> str:
    """The HTML of one view: its picture, its state, and the script that brings it to life.

    Args:
        modules: the view's files in `js/`, in order.
        state: what the script draws.
        still: an `<img>` for readers without scripts.
    """
    code = script(tuple(modules))
    name = f"zeta-view-{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    return (
        f'<{name} style="display:block">{still}'
        f'<script type="application/json">{to_json(state)}</script></{name}>\n'
        f'<script type="module">\n{code}define("{name}", widget);\n</script>'
    )


def page(title: str, body: str) -> str:
    """A whole HTML page around a view."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>body {{ margin: 16px auto; max-width: 1080px; padding: 0 12px; }}</style>
</head>
<body>
{body}
</body>
</html>
"""
