"""The documentation site: `make docs` builds it into docs/_build/html."""

import os
import sys

sys.path.insert(0, os.path.abspath(".."))
from ssim_fused import __version__

project, author, copyright = "ssim_fused", "the ssim_fused maintainers", "the ssim_fused maintainers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ssim_fused {version}"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# Links of the pages to files of the source are links on the forge, not on the site.
suppress_warnings = ["myst.xref_missing"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
