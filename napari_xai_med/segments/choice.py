"""Which segments are to be explained by: how they are made, or where they are drawn, and inside of what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_xai_med.errors import InputError
from napari_xai_med.options import values_of
from napari_xai_med.segments.base import make_segmenter

DRAWN = "labels"
"""As a method: the segments of a label map."""
BODY = "body"
"""As a mask: where the body is found; see `napari_xai_med.segments.body`."""
GIVEN = "given"
"""In place of a path: what is in memory."""

_KINDS: dict[str, Any] = {"method": str, "options": Mapping, "labels": str, "background": bool, "mask": str}


@dataclass(frozen=True)
class SegmentChoice:
    """What segments a request asks for.

    Parameters
    ----------
    method : str
        Name of a segmenter, or ``"labels"``.
    options : mapping
        The segmenter's; those left out have their defaults.
    labels : str
        Path of a label map, for the method ``"labels"``; ``"given"`` for one in memory.
    background : bool
        Whether 0 in the label map is one more segment.
    mask : str
        Where segments may be: path of a mask, ``"body"``, ``"given"`` for one in memory, or everywhere if empty.
    """

    method: str = "slic"
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: str = ""
    background: bool = False
    mask: str = ""

    def __post_init__(self) -> None:
        if (self.method == DRAWN) != bool(self.labels):
            raise InputError("Drawn segments need a label map, and only they take one; choose both or none.")
        if self.method == DRAWN and self.options:
            raise InputError(f"Drawn segments have no {', '.join(self.options)}; leave that out.")
        if self.background and self.method != DRAWN:
            raise InputError("Only drawn segments have a background, where their labels are 0; leave that out.")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return asdict(self) | {"options": dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentChoice:
        """What `to_dict` described.

        Raises
        ------
        InputError
            If something in it is unknown or of another kind.
        """
        for key, value in values.items():
            if key not in _KINDS or not isinstance(value, _KINDS[key]):
                raise InputError(f"Segments can't have {key} {value!r:.80}; correct it.")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in values.get("options", {}).items()}
        return cls(**{**values, "options": options})

    def with_defaults(self) -> SegmentChoice:
        """The same with every option spelled out."""
        if self.method == DRAWN:
            return self
        options = values_of(make_segmenter(self.method, self.options))
        return SegmentChoice(self.method, options, self.labels, self.background, self.mask)

    def as_python(self, labels: str = "", mask: str = "") -> list[str]:
        """Keyword arguments of `napari_xai_med.explain` that say the same.

        Parameters
        ----------
        labels, mask : str
            Python expressions that give what is in memory.
        """
        drawn = labels if self.labels == GIVEN else repr(self.labels)
        if self.method != DRAWN:
            told = repr({"method": self.method, **self.options})
        else:
            told = f"{{'labels': {drawn}, 'background': True}}" if self.background else drawn
        inside = mask if self.mask == GIVEN else repr(self.mask)
        return [f"segments={told}"] + ([f"mask={inside}"] if self.mask else [])

    @classmethod
    def of(cls, segments: str | Mapping[str, Any], mask: str = "") -> SegmentChoice:
        """What scripts and the command line say: a segmenter's name, its name and options in one, or a path of labels.

        Parameters
        ----------
        segments : str or mapping
            Such as ``"slic"``, ``{"method": "slic", "number": 50}`` or ``"organs.nii.gz"``.
        mask : str
        """
        from napari_xai_med.segments.base import segmenters

        if isinstance(segments, str):
            known = not segments or segments in segmenters()
            if not known and not Path(segments).suffix and not Path(segments).exists():
                raise InputError(
                    f"There is no way to make segments named '{segments}', nor a file; known are: "
                    f"{', '.join(sorted(segmenters()))}."
                )
            return cls(segments or cls.method, mask=mask) if known else cls(DRAWN, labels=segments, mask=mask)
        options = {key: value for key, value in segments.items() if key not in ("method", "labels", "background")}
        method = str(segments.get("method", DRAWN if "labels" in segments else "slic"))
        labels, background = str(segments.get("labels", "")), bool(segments.get("background", False))
        return cls(method, options, labels, background, mask)
