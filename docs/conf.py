"""Sphinx settings: ``sphinx-build -W docs build/docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

from synapse_onnx import __version__

project = "synapse-onnx"
author = "the synapse-onnx authors"
copyright = "the synapse-onnx authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["pictures.py"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # annotations such as `complex` are Python's own

html_theme = "furo"
html_title = f"synapse-onnx {__version__}"
html_show_copyright = False
html_show_sphinx = False
templates_path: list[str] = []

# pages from the registry, the command line and the docstrings
generated.write_pages(Path(__file__).parent / "reference" / "generated")
