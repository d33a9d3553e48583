"""Sphinx configuration; the reference pages are generated from the code before each build."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from generate import write_reference

import brats_tf
from brats_tf.runtime.tensorflow import import_tensorflow

import_tensorflow()

project = "brats_tf"
author = "the brats_tf developers"
copyright = author
version = release = brats_tf.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
default_role = "code"
html_theme = "furo"
html_title = f"brats_tf {version}"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_copy_source = False


def quote_code(app, what, name, obj, options, lines):
    """Docstrings quote code in single backticks, also before a plural s: `Case`s."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(s?)(?!`)", r"``\1``\\ \2", line) for line in lines]


def setup(app):
    """Writes the generated pages before Sphinx reads its sources."""
    write_reference(HERE / "reference" / "generated")
    app.connect("autodoc-process-docstring", quote_code)
