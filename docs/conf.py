"""Sphinx (`make docs`): the pages of this folder, an API reference from the docstrings, the examples."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ise_fast  # noqa: E402

project = "ise_fast"
author = "The ise_fast maintainers"
version = release = ise_fast.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ise_fast {version}"
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_enable_extensions = ["fieldlist"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
nitpicky = False
# Links from pages to files of the repository that are no pages, and records that are pictures elsewhere.
suppress_warnings = ["myst.xref_missing", "image.not_readable"]


def _plain_bars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """|R| is a size in our docstrings; reStructuredText would look for a substitution."""
    lines[:] = [line if ">>>" in line or "`" in line else line.replace("|", r"\|") for line in lines]


def _skip_inherited(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool:
    """scikit-learn's own methods about metadata, whose docstrings refer to pages of its manual."""
    return skip or (name.startswith("set_") and name.endswith("_request")) or name == "get_metadata_routing"


def setup(app: object) -> None:
    app.connect("autodoc-process-docstring", _plain_bars)  # type: ignore[attr-defined]
    app.connect("autodoc-skip-member", _skip_inherited)  # type: ignore[attr-defined]
