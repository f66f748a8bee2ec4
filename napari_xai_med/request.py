"""One request object for scripts, command line and widget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from napari_xai_med.errors import InputError
from napari_xai_med.image import PLANES
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.target import Quantity
from napari_xai_med.options import values_of
from napari_xai_med.segments.choice import SegmentChoice

_KINDS: dict[str, Any] = {
    "method": str,
    "options": Mapping,
    "target": str | int | None,
    "against": str | int | None,
    "quantity": str,
    "opposite": bool,
    "minus": str,
    "precision": str,
    "plane": str,
    "slice": int | None,
    "preprocessing": list | tuple | None,
    "segments": Mapping,
}
"""What a record may say, with its types."""


@dataclass(frozen=True)
class ExplainRequest:
    """What is to be explained, and how.

    Parameters
    ----------
    method : str
        Name of the explainer.
    options : mapping
        Its options; those left out have their defaults.
    target : str or int, optional
        Class by name or index; the most probable one if None.
    against : str or int, optional
        Another class: what is explained is by how much the target's logit is larger than its.
    quantity : {"logit", "log_odds", "probability"}
        In which form the answer is explained; see `Quantity`.
    opposite : bool
        Whether to explain what speaks against the class instead.
    minus : str
        Name of another method whose map is taken off, made with the same options where it has them; none by default.
    precision : {"float32", "bfloat16", "float16"}
        What the network computes in. Less than float32 is used only where it was measured to give the same map; see
        `napari_xai_med.reduced_precision`.
    plane : {"axial", "coronal", "sagittal"}
        Direction of the slice, for a 2D classifier and a 3D image.
    slice : int, optional
        Number of that slice, from head, front or the patient's right on; needed for a 2D classifier and a
        3D image.
    preprocessing : tuple of mapping, optional
        Entries of a MONAI configuration that stand in for the classifier's own preprocessing.
    segments : SegmentChoice, optional
        By which parts of the image methods explain that use segments; superpixels or supervoxels by SLIC if None.
    """

    method: str = "gradcam"
    options: Mapping[str, Any] = field(default_factory=dict)
    target: str | int | None = None
    against: str | int | None = None
    quantity: str = "logit"
    opposite: bool = False
    minus: str = ""
    precision: str = "float32"
    plane: str = "axial"
    slice: int | None = None
    preprocessing: tuple[Mapping[str, Any], ...] | None = None
    segments: SegmentChoice | None = None

    def __post_init__(self) -> None:
        if self.preprocessing is not None:
            # A record brings lists.
            object.__setattr__(self, "preprocessing", tuple(self.preprocessing))
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in self.options.items()}
        object.__setattr__(self, "options", options)
        if self.plane not in PLANES:
            raise InputError(f"There is no plane {self.plane!r}; choose one of {', '.join(PLANES)}.")
        for name, kinds in (("quantity", Quantity), ("precision", Precision)):
            if getattr(self, name) not in list(kinds):
                raise InputError(f"There is no {name} {getattr(self, name)!r}; choose one of {', '.join(kinds)}.")

    def to_dict(self) -> dict[str, Any]:
        """The request as plain values, for a record."""
        told = asdict(self) | {"options": dict(self.options)}
        if self.preprocessing is None:
            del told["preprocessing"]
        if self.segments is None:
            del told["segments"]
        else:
            told["segments"] = self.segments.to_dict()
        return told

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExplainRequest:
        """The request that `to_dict` described.

        Raises
        ------
        InputError
            If something in it is unknown or of another kind.
        """
        for key, value in values.items():
            if key not in _KINDS:
                raise InputError(f"A request has no {key!r}; take it away.")
            if not isinstance(value, _KINDS[key]) or isinstance(value, bool) != (_KINDS[key] is bool):
                raise InputError(f"A request can't have {key} {value!r:.80}; correct it.")
        steps = values.get("preprocessing") or ()
        if not all(isinstance(step, Mapping) for step in steps):
            raise InputError("A request's preprocessing has to be a list of steps; correct it.")
        segments = values.get("segments")
        return cls(**{**values, "segments": None if segments is None else SegmentChoice.from_dict(segments)})

    def with_defaults(self) -> ExplainRequest:
        """The same request with every option of the method spelled out."""
        from napari_xai_med.explainers.base import make_explainer

        return replace(self, options=values_of(make_explainer(self.method, self.options)))

    def as_python(self, image: str, model: str, labels: str = "", mask: str = "") -> str:
        """The Python call that computes the same again.

        Parameters
        ----------
        image : str
            Python expression that gives the image.
        model : str
            Path or name of the classifier.
        labels, mask : str
            Python expressions that give the drawn segments and the mask where these are in memory.
        """
        arguments = [repr(self.method)] + [f"{key}={value!r}" for key, value in self.options.items()]
        for key in ("target", "against", "quantity", "opposite", "minus", "precision"):
            if getattr(self, key) != type(self).__dataclass_fields__[key].default:
                arguments.append(f"{key}={getattr(self, key)!r}")
        if self.slice is not None:
            arguments.append(f"plane={self.plane!r}, slice={self.slice}")
        if self.preprocessing is not None:
            arguments.append(f"preprocessing={[dict(entry) for entry in self.preprocessing]!r}")
        if self.segments is not None:
            arguments += self.segments.as_python(labels, mask)
        names = ["explain", "load_model", *(name for name in ("oblique_section", "read_image") if f"{name}(" in image)]
        imports = f"from napari_xai_med import {', '.join(names)}\n"
        if "stack_channels(" in image:
            imports += "from napari_xai_med.channels import stack_channels\n"
        if any("LayerView(" in argument for argument in (image, *arguments)):
            imports += "from napari_xai_med.layers import LayerView\n"
        return (
            f"{imports}\n"
            f"image = {image}\n"
            f"classifier = load_model({model!r})\n"
            f"attribution = explain(image, classifier, {', '.join(arguments)})\n"
        )
