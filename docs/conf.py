"""How the site is built: `make docs`, or ``sphinx-build -W docs docs/_build/html``. No network is needed."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import site_notebooks  # noqa: E402

from refsnn import __version__  # noqa: E402

project = "refsnn"
author = "The refsnn developers"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "site_parts",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
highlight_language = "text"
default_role = "py:obj"
html_math_renderer = "mathml"

# Pages are Markdown. specification.md#s-7 leads to requirement S-7, here as in every other view of the file.
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
myst_heading_slug_func = "site_parts.slug"

# Notebooks keep their outputs and lie beside this folder: they are copied into it, and never executed.
nb_execution_mode = "off"
nb_merge_streams = True
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
site_notebooks.write_site(HERE / "notebooks")

# A page for every module, from its docstrings, whose numpydoc sections say the types.
autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"refsnn {__version__}"
html_static_path = ["_static"]
html_css_files = ["refsnn.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
