"""Explain what a trained network says about a medical image. Research use only. Not for diagnosis."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
