"""The documentation site: `make docs` builds it into docs/_build/html, without a network."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.abspath(".."))
from docutils.nodes import SkipNode
from docutils.utils.math import latex2mathml
from sphinx.pycode import ModuleAnalyzer

from ssim_fused import __version__

project, author, copyright = "ssim_fused", "the ssim_fused maintainers", "the ssim_fused maintainers"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ssim_fused {version}"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_search_scorer = str(Path(__file__).with_name("search_scorer.js"))
html_math_renderer = "mathml"

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the notebook's results are in it; a test runs it
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch.nn.Module's docstring of `forward` does not describe ours
napoleon_google_docstring, napoleon_numpy_docstring = True, False

# The inventories have the few names that our pages link to, so that a build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.txt"),
    "torch": ("https://docs.pytorch.org/docs/stable", "inventories/torch.txt"),
    "numpy": ("https://numpy.org/doc/stable", "inventories/numpy.txt"),
}


def links_as_paths(app, name, source):
    """Show links to files outside docs/, for which the site has no page, as paths."""
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


def paths_as_links(app, what, name, obj, options, lines):
    """Link to a page if a docstring names its file, as in ``docs/masks.md``."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?:``)?\bdocs/([\w/]+)\.md\b(?:``)?", r":doc:`/\1`", line)


def visit_math(translator, node):
    """Write a formula as MathML, which browsers show without a script."""
    is_block = node.tagname == "math_block"
    formula = latex2mathml.tex2mathml(node.astext(), as_block=is_block)
    translator.body.append(f'<div class="math">{formula}</div>\n' if is_block else formula)
    raise SkipNode


def setup(app):
    """Sphinx' hook."""
    overloaded = ModuleAnalyzer.for_module("ssim_fused.functional")
    overloaded.analyze()
    overloaded.overloads.clear()  # one signature is shown, not two that differ in a word
    app.connect("source-read", links_as_paths)
    app.connect("autodoc-process-docstring", paths_as_links)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
