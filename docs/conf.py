"""The site: ``make docs``. Every ``{code-cell}`` runs while it is built, and every warning is an error."""

import inspect
import os
import re

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import captum_alignment

project = "captum-alignment"
author = "the captum-alignment authors"
project_copyright = "2026, the captum-alignment authors"
version = release = captum_alignment.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "figures"]
default_role = "py:obj"
add_module_names = False

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
os.environ["PYTHONWARNINGS"] = "ignore"  # of the cells' kernels: the hosts' own deprecations
os.environ.setdefault("OMP_NUM_THREADS", "1")

autodoc_inherit_docstrings = False  # the hooks of Lightning and skorch are theirs to document
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"captum-alignment {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def _write(translator: object, node: math | math_block) -> None:
    block = isinstance(node, math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))  # pyright: ignore
    raise SkipNode


def _escape(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """In docstrings a bar is one of a formula, |<x, g>|, and no substitution."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = re.split(r"(``.*?``)", line)
            lines[i] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def _skip(_app: object, _what: str, _name: str, member: object, _skip: bool, _options: object) -> bool | None:
    """The fields of a named tuple, which its docstring describes."""
    return True if (inspect.getdoc(member) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw themselves: the site needs no network and no script for them."""
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _escape)
    app.add_html_math_renderer("mathml", (_write, None), (_write, None))


html_math_renderer = "mathml"
