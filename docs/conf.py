"""The documentation as a site: ``sphinx-build -W docs build/docs`` (extra ``docs``).

The pages are the Markdown files that GitHub shows. Sphinx adds what follows from the code: names and their docstrings
(autodoc) and the commands with their options (``_ext/generated_reference.py``).
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import se_nas  # noqa: E402

project = "se-nas"
author = "The se-nas developers"
copyright = author
version = release = se_nas.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "gallery",
    "generated_reference",
    "links_outside",
]
exclude_patterns = ["_ext", "gallery"]
html_theme = "furo"
html_title = f"se-nas {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# GitHub's rules: anchors of headings, tables that do not scroll, three backticks for every language.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# The tutorial trains networks; tests/test_tutorial.py executes it.
nb_execution_mode = "off"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
copybutton_prompt_text = "$ "
