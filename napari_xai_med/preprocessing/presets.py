"""Preprocessing that many classifiers share, by name."""

from __future__ import annotations

from collections.abc import Mapping

from napari_xai_med.errors import InputError
from napari_xai_med.preprocessing.base import Step
from napari_xai_med.preprocessing.steps import Equalise, MinMax, Orientation, Standardise, ToColours, Window, ZScore

_RAS = Orientation()
_TO_ONE = Window(a_min=0.0, a_max=255.0, clip=False)

PRESETS: Mapping[str, tuple[str, tuple[Step, ...]]] = {
    "ct": ("CT, -1000 to 400 HU", (_RAS, Window(a_min=-1000.0, a_max=400.0))),
    "ct_lung": ("CT, lung window (level -600, width 1500 HU)", (_RAS, Window(a_min=-1350.0, a_max=150.0))),
    "ct_bone": ("CT, bone window (level 400, width 1800 HU)", (_RAS, Window(a_min=-500.0, a_max=1300.0))),
    "ct_soft_tissue": ("CT, soft tissue (level 40, width 400 HU)", (_RAS, Window(a_min=-160.0, a_max=240.0))),
    "ct_brain": ("CT, brain window (level 40, width 80 HU)", (_RAS, Window(a_min=0.0, a_max=80.0))),
    "mri": ("MRI, z-score of what is not 0", (_RAS, ZScore(nonzero=True, channel_wise=True))),
    "minmax": ("Smallest value 0, largest value 1", (MinMax(),)),
    "picture": ("Picture, 0..255 to 0..1", (_TO_ONE,)),
    "imagenet": ("Picture, as for ImageNet", (ToColours(), _TO_ONE, Standardise())),
    "equalised": ("Picture, histogram equalised", (Equalise(),)),
    "none": ("Nothing", ()),
}
"""For each name how people call it, and its steps. 2D networks leave out the orientation."""


def preset(name: str, spatial_dims: int) -> tuple[Step, ...]:
    """The steps of a preset for 2D or 3D images.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preprocessing preset {name!r}; choose one of {', '.join(PRESETS)}.")
    return tuple(step for step in PRESETS[name][1] if spatial_dims == 3 or not isinstance(step, Orientation))
