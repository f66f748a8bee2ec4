"""Sphinx settings: ``sphinx-build docs docs/_build``."""

from __future__ import annotations

project = "napari-xai-med"
author = "napari-xai-med developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
numpydoc_class_members_toctree = False
myst_heading_anchors = 2
