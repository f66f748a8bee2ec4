"""Explain what a trained network says about a medical image. Research use only. Not for diagnosis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"
__all__ = [
    "Attribution",
    "Classifier",
    "Image",
    "Prediction",
    "XAIMedError",
    "channel_contributions",
    "check_explanation",
    "choose_slices",
    "classifier_from_module",
    "evaluate",
    "explain",
    "explain_all",
    "explain_slices",
    "feature_maps",
    "load_model",
    "maximise",
    "oblique_section",
    "predict",
    "read_image",
]

if TYPE_CHECKING:
    from napari_xai_med.api import explain, explain_all, feature_maps, maximise, predict
    from napari_xai_med.api_channels import channel_contributions
    from napari_xai_med.api_evaluate import check_explanation, evaluate
    from napari_xai_med.api_slices import choose_slices, explain_slices
    from napari_xai_med.attribution import Attribution
    from napari_xai_med.errors import XAIMedError
    from napari_xai_med.image import Image
    from napari_xai_med.io import read_image
    from napari_xai_med.models import load_model
    from napari_xai_med.models.classifier import Classifier, Prediction
    from napari_xai_med.models.module import classifier_from_module
    from napari_xai_med.oblique import oblique_section

_HOMES = {
    "Attribution": "attribution",
    "Classifier": "models.classifier",
    "Image": "image",
    "Prediction": "models.classifier",
    "XAIMedError": "errors",
    "channel_contributions": "api_channels",
    "check_explanation": "api_evaluate",
    "choose_slices": "api_slices",
    "classifier_from_module": "models.module",
    "evaluate": "api_evaluate",
    "explain": "api",
    "explain_all": "api",
    "explain_slices": "api_slices",
    "feature_maps": "api",
    "load_model": "models",
    "maximise": "api",
    "oblique_section": "oblique",
    "predict": "api",
    "read_image": "io",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch must not slow the start of napari."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
