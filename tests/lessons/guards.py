"""What a stored lesson must and must not hold: each guard yields its complaints as sentences."""

import re
import statistics
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

SHORTEST_ALT = 20
MEDIAN_LINES, MOST_LINES = 6, 30
PICTURES = ("image/png", "image/jpeg", "image/gif")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(<?([^)\s>]+)>?[^)]*\)")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}|/tmp/ipykernel|/(?:home|root|Users)/\w+")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            yield number, output


def texts(output: NotebookNode) -> Iterator[str]:
    """Yield an output's texts, without the pictures and packed numbers inside them."""
    stored = [output.get("text", ""), output.get("evalue", "")]
    stored += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    for text in stored:
        yield re.sub(r"[A-Za-z0-9+/=]{60,}", "", text)


def unfaithful(notebook: NotebookNode, source: NotebookNode) -> Iterator[str]:
    """The notebook is its source, executed: same cells, same tags, same order."""
    for key in ("id", "cell_type", "source", "metadata"):
        stored = [cell[key] for cell in notebook.cells]
        if stored != [cell[key] for cell in source.cells]:
            yield f"the {key} of a cell differs from the source; run make lessons"


def miscounted(notebook: NotebookNode) -> Iterator[str]:
    """All cells were run once, in order, in one fresh kernel (nbval skips those never run)."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}"


def failing(notebook: NotebookNode) -> Iterator[str]:
    """Errors stand where they are announced, and only there; nothing goes to stderr."""
    for number, cell in enumerate(notebook.cells):
        kinds = [output.output_type for output in cell.get("outputs", [])]
        if ("error" in kinds) != ("raises-exception" in tags(cell)):
            yield f"cell {number}: an error without the tag raises-exception, or the other way"
    for number, output in outputs(notebook):
        if output.get("name") == "stderr":
            yield f"cell {number} writes to stderr"


def changeable(notebook: NotebookNode) -> Iterator[str]:
    """Nothing stored hangs on the run or the machine."""
    if set(notebook.metadata) != {"kernelspec", "language_info"}:
        yield f"the notebook's metadata holds {sorted(notebook.metadata)}"
    if set(notebook.metadata.get("language_info", {})) != {"name"}:
        yield "language_info tells more than the language's name"
    for number, output in outputs(notebook):
        for text in texts(output):
            for found in ADDRESS.findall(text):
                yield f"cell {number} shows an address or a path of the machine: {found}"
        for kind in output.get("data", {}):
            if "jupyter.widget" in kind:
                yield f"cell {number} stores a widget ({kind}), dead without its kernel"


def uncompared(notebook: NotebookNode) -> Iterator[str]:
    """A cell whose output is not compared says why in its first line."""
    for number, cell in enumerate(notebook.cells):
        if "NBVAL_" in cell.source or "nbval-skip" in tags(cell):
            yield f"cell {number} turns the comparison off; use the tag nbval-ignore-output"
        if "nbval-ignore-output" in tags(cell) and not cell.source.startswith("# "):
            yield f"cell {number} is not compared, and its first line does not say why"


class Alternatives(HTMLParser):
    """Collects what a reader who sees no pictures is not told about."""

    def __init__(self) -> None:
        super().__init__()
        self.untold: list[str] = []
        self.drawing: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img" and len((given.get("alt") or "").strip()) < SHORTEST_ALT:
            self.untold.append("<img>")
        labelled = given.get("aria-hidden") == "true" or (given.get("aria-label") or "").strip()
        if tag == "canvas" and not labelled:
            self.untold.append("<canvas>")
        if tag == "svg" and not labelled:
            self.drawing = tag
        if tag == "title":
            self.drawing = None

    def handle_endtag(self, tag: str) -> None:
        if tag == self.drawing:
            self.untold.append(f"<{tag}>")
            self.drawing = None


def untold_in(html: str) -> list[str]:
    parser = Alternatives()
    parser.feed(html)
    parser.close()
    return parser.untold


def undescribed(notebook: NotebookNode) -> Iterator[str]:
    """Every picture has alternative text."""
    for number, output in outputs(notebook):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        for kind in PICTURES:
            alt: Any = metadata.get(kind, {}).get("alt", "")
            if kind in data and len(alt.strip()) < SHORTEST_ALT:
                yield f"cell {number}: {kind} has no alternative text in its metadata"
        for kind in ("text/html", "image/svg+xml"):
            for what in untold_in(data.get(kind, "")):
                yield f"cell {number}: a picture without alternative text: {what} in {kind}"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for alt, _ in PICTURE.findall(cell.source):
            if len(alt.strip()) < SHORTEST_ALT:
                yield f"cell {number}: a picture without alternative text: ![{alt}]"
        for what in untold_in(cell.source):
            yield f"cell {number}: a picture without alternative text: {what}"


def headings(notebook: NotebookNode) -> set[str]:
    """Return the anchors that JupyterLab gives to the headings."""
    found = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            plain = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            lines = re.findall(r"^#{1,6}\s+(.+?)\s*$", plain, flags=re.MULTILINE)
            found |= {re.sub(r"[*_`]", "", line).replace(" ", "-") for line in lines}
    return found


def dangling(
    notebook: NotebookNode, folder: Path, others: dict[str, NotebookNode]
) -> Iterator[str]:
    """Every link to a lesson, a heading or a picture leads somewhere."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for target in LINK.findall(cell.source) + [
            path for _, path in PICTURE.findall(cell.source)
        ]:
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            if path and not (folder / path).exists():
                yield f"cell {number} links to {path}, which is not there"
                continue
            page = others.get(path) if path else notebook
            if anchor and page is not None and anchor not in headings(page):
                yield f"cell {number} links to #{anchor}, which is no heading of {path or 'it'}"


def long_winded(notebook: NotebookNode) -> Iterator[str]:
    """Cells are small: half of them at most 6 lines, none over 30."""
    lengths = [
        sum(bool(line.strip()) for line in cell.source.splitlines())
        for cell in code_cells(notebook)
    ]
    if lengths and statistics.median(lengths) > MEDIAN_LINES:
        yield f"the median cell has {statistics.median(lengths)} lines, more than {MEDIAN_LINES}"
    for number, length in enumerate(lengths, start=1):
        if length > MOST_LINES:
            yield f"code cell {number} has {length} lines, more than {MOST_LINES}"


def unproved(notebook: NotebookNode, name: str) -> Iterator[str]:
    """Every lesson that builds something proves it: a cell tagged proof that asserts equality."""
    if not re.match(r"\d\d-", name) or name.startswith("00-"):
        return
    proofs = [cell.source for cell in code_cells(notebook) if "proof" in tags(cell)]
    if not any("assert_close" in proof for proof in proofs):
        yield "no cell tagged proof calls assert_close"
