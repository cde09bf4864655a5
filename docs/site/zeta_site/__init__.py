"""What the site adds to Sphinx: MathML, links between lessons and reference, mended pages."""

from typing import Any

from sphinx.application import Sphinx

from zeta_site import access, mathml, reference


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the parts; called by Sphinx."""
    access.setup(app)
    mathml.setup(app)
    reference.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
