"""The documentation site: `make docs` builds it into docs/_build/html."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.abspath(".."))
from sphinx.pycode import ModuleAnalyzer

from ssim_fused import __version__

project, author, copyright = "ssim_fused", "the ssim_fused maintainers", "the ssim_fused maintainers"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ssim_fused {version}"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the notebook's results are in it; a test runs it
nb_merge_streams = True
html_static_path, html_css_files = ["_static"], ["site.css"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what torch.nn.Module says of `forward` says nothing
napoleon_google_docstring, napoleon_numpy_docstring = True, False


def links_as_paths(app, name, source):
    """Links out of docs/, for which the site has no page, become the path that they point to."""
    folder = Path(app.env.doc2path(name)).parent
    docs = Path(app.srcdir)

    def path_of(link):
        text, path = link.groups()
        place = (folder / path.partition("#")[0]).resolve()
        if "://" in path or path.startswith("#") or place.is_relative_to(docs):
            return link[0]
        shown = place.relative_to(docs.parent)
        return f"`{shown}`" if text.strip("`/") in str(shown) else f"{text} (`{shown}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]*)\)", path_of, source[0])


def setup(app):
    """Sphinx' hook."""
    overloaded = ModuleAnalyzer.for_module("ssim_fused.functional")
    overloaded.analyze()
    overloaded.overloads.clear()  # one signature is shown, not two that differ in a word
    app.connect("source-read", links_as_paths)
