"""What Sphinx is told about the site. `build.py` puts its sources together."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

project = "zeta_edu"
author = "zeta_edu contributors"
copyright = author
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "zeta_site",
]

# The lessons: their stored outputs, and links as JupyterLab takes them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_heading_slug_func = "zeta_site.notebooks.anchor"
html_math_renderer = "mathml"

# The reference: what is said in the docstrings, in the order of the source.
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "ignore-module-all": True,
    "show-inheritance": True,
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 70
napoleon_numpy_docstring = False
add_module_names = False
default_role = "py:obj"
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True

html_theme = "furo"
html_title = "zeta_edu"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_search_scorer = str(HERE / "scorer.js")
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# Summaries of what was found are fetched, which a browser does not do for pages from disk.
html_show_search_summary = False
pygments_style = "default"
pygments_dark_style = "github-dark"
