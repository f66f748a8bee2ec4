"""Make a bundle of a network's file, its preprocessing and its class names."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import InputError, XAIMedError
from napari_xai_med.job import Job
from napari_xai_med.models.architectures import Architecture, find
from napari_xai_med.models.bundle import load_bundle
from napari_xai_med.models.bundle_files import format_of
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.facts import sizes
from napari_xai_med.models.head import Head
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.base import AnyStep, Other, config_of
from napari_xai_med.preprocessing.steps import CropToBody, Orientation, PadOrCrop, Resize, Spacing, ToColours, ToGrey

if TYPE_CHECKING:
    from napari_xai_med.models.endings import Ended
    from napari_xai_med.models.formats.facts import NetworkFacts

AUTO = "auto"

_NOISE = (*(1.0,) * 8, *(2.0**k for k in range(1, 9)))
"""Standard deviations of the noise that tells whether outputs always lie in between 0 and 1.

Global pooling gives nearly the same for all noise of one strength, and that may lie there by chance; stronger noise
takes it out of there. At the weaker a sigmoid isn't so sure that it gives 0 and 1 only.
"""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What a bundle is made of.

    Parameters
    ----------
    weights : Path
        The network's file, of any format that can be loaded.
    class_names : tuple of str
        In the order of the network's outputs; for one logit one name or two.
    architecture : str
        Name of the network, for a file that holds weights only.
    options : mapping
        Of the architecture. `num_classes` is told by the class names, unless it is given.
    preprocessing : tuple of Step or Other
    head : str
        See `Head`; "auto" takes the one that fits the network's number of outputs and what it ends in.
    output : str
        Which of several outputs the classes belong to; empty for the only one.
    input_shape : tuple of int
        (C, *spatial) of the network's input, 2D or 3D. If empty it is told by the architecture and the preprocessing.
    name : str
        Of the classifier; that of the file if empty.
    modality : str
        Such as CT or MR, for people to read; CT in Hounsfield units warns of images that are not.
    windows : SlidingWindow, optional
        For a network of patches: how it looks at larger images.
    value_range : tuple of float
        Smallest and largest value of the network's input, behind the preprocessing; inputs that leave it get a
        warning. None if empty.
    spacing : tuple of float
        Smallest and largest millimetres between the voxels of images that it is meant for; others get a warning.
        None if empty.

    Raises
    ------
    InputError
        If one of these can't be.
    """

    weights: Path
    class_names: tuple[str, ...]
    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: tuple[AnyStep, ...] = ()
    head: str = AUTO
    output: str = ""
    input_shape: tuple[int, ...] = ()
    name: str = ""
    modality: str = ""
    windows: SlidingWindow | None = None
    value_range: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shape, limits = self.input_shape, self.value_range
        if shape and (len(shape) not in (3, 4) or min(shape) < 1):
            raise InputError(
                f"A network can't take inputs of shape {shape}; give the number of channels and the 2 or 3 lengths in "
                "voxels, such as 1, 64, 64."
            )
        if limits and not (len(limits) == 2 and -math.inf < limits[0] < limits[1] < math.inf):
            raise InputError(f"{limits} is no range of values; give the smallest and the largest, such as 0 and 1.")
        if self.spacing and not (len(self.spacing) == 2 and 0 < self.spacing[0] <= self.spacing[1] < math.inf):
            raise InputError(
                f"{self.spacing} is no range of millimetres between voxels; give the smallest and the largest, such as "
                "0.7 and 5."
            )

    @property
    def spatial_dims(self) -> int:
        """Spatial axes that the network takes, as far as they are told."""
        return len(_input_shape(self)) - 1


def pack(packing: Packing, folder: str | Path, job: Job | None = None) -> Classifier:
    """Write a bundle, and load it to see that everything fits.

    Parameters
    ----------
    packing : Packing
    folder : str or Path
        Of the new bundle; it may not exist yet, or must be empty.
    job : Job, optional
        Told how far it is, and asked whether to go on.

    Returns
    -------
    Classifier
        The packed one; `Classifier.range` tells if it seems to end in a function that was not recognised.

    Raises
    ------
    InputError
        If something is missing, or the folder can't be written or is in use.
    ModelError
        If the parts do not fit each other; then nothing is left behind.
    Cancelled
        If the job was; nothing is left behind either.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already; give a new folder.")
    _facts(packing)
    if not packing.class_names or not all(name.strip() for name in packing.class_names):
        raise InputError("Give the class names, in the order of the network's outputs.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that moving it there is one step.
        with TemporaryDirectory(prefix=".packing-", dir=target.parent) as temporary:
            made = Path(temporary) / target.name
            classifier = _made(packing, made, str(target), job or Job())
            if target.exists():
                target.rmdir()
            made.rename(target)
    except OSError as error:
        raise InputError(f"The bundle can't be written to {target}: {error.strerror or error}.") from error
    return classifier


def _made(packing: Packing, folder: Path, source: str, job: Job) -> Classifier:
    """The classifier in a new bundle, which was asked to see that everything fits."""
    from napari_xai_med.models.run import read

    try:
        _check_size(packing)
        job.step(0.0, "Writing the bundle")
        _write(packing, folder)
        job.step(0.2, "Loading it")
        classifier = load_bundle(folder)
        end = _ended(classifier, packing, job.part(0.6, 0.9))
        if packing.head == AUTO:
            # Before the network was asked, the class names and options had to tell its head.
            fitting = Head.of(end.output.shape[1], end.ending)
            if fitting is not _head(packing):
                shutil.rmtree(folder)
                _write(replace(packing, head=str(fitting)), folder)
                classifier = load_bundle(folder)
        # Before it is asked: what it answers is remembered with it.
        classifier = replace(classifier, source=source)
        read(classifier, end, _input_shape(packing))
        _look_at_range(classifier, packing, job.part(0.9, 1.0))
    except XAIMedError as error:
        # Nobody knows the folder where the bundle is made, and afterwards it is gone.
        copy = folder / "models" / f"model{packing.weights.suffix.lower()}"
        told = str(error).replace(str(copy), str(packing.weights)).replace(str(folder), folder.name)
        raise type(error)(told) from error
    return classifier


def _ended(classifier: Classifier, packing: Packing, job: Job) -> Ended:
    """Give the network something to see, and tell what it gives and ends in."""
    import torch

    from napari_xai_med.models.run import ended

    with torch.no_grad():
        return ended(classifier, torch.zeros(1, *_input_shape(packing)), job)


def _look_at_range(classifier: Classifier, packing: Packing, job: Job) -> None:
    """Ask about noise until an output tells that the network ends in no function that was not recognised.

    One image after another, as some files take no more: most networks leave the range of probabilities at once.
    """
    import torch

    from napari_xai_med.models.run import ended, read

    shape, generator = _input_shape(packing), torch.Generator().manual_seed(0)
    for k, strength in enumerate(_NOISE):
        if not classifier.range.inside or classifier.head is Head.REGRESSION:
            return
        noise = torch.randn(1, *shape, generator=generator) * strength
        with torch.no_grad():
            end = ended(classifier, noise, job.part(k / len(_NOISE), (k + 1) / len(_NOISE)))
        if end.ending or end.elsewhere or not bool(end.logits.isfinite().all()):
            return
        read(classifier, end, shape)


def _write(packing: Packing, folder: Path) -> None:
    shape = _input_shape(packing)
    head, options = _head(packing), _options(packing)
    inference: dict[str, Any] = {"preprocessing": config_of(packing.preprocessing)}
    if not format_of(packing.weights).has_architecture:
        target = "napari_xai_med.models.architectures.build"
        network = {"_target_": target, "name": packing.architecture, **options}
        inference = {"network_def": network, **inference}
    for name, content in (("inference", inference), ("metadata", _metadata(packing, shape, head))):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    main, *others = format_of(packing.weights)().files(packing.weights)
    (folder / "models").mkdir()
    shutil.copyfile(main, folder / "models" / f"model{main.suffix.lower()}")
    for file in others:
        copy = folder / "models" / file.relative_to(main.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _architecture(packing: Packing) -> Architecture | None:
    return find(packing.architecture) if packing.architecture else None


def _facts(packing: Packing) -> NetworkFacts | None:
    """What the file says of its network; an `InputError` if it needs an architecture that is not named."""
    kind = format_of(packing.weights)
    facts = kind().facts(packing.weights)
    if not kind.has_architecture and not packing.architecture:
        raise InputError(f"{packing.weights.name} holds weights only; name the architecture that they belong to.")
    return facts


def _options(packing: Packing) -> dict[str, Any]:
    """The architecture's options, with as many logits as the class names tell."""
    architecture = _architecture(packing)
    if architecture is None:
        return {}
    logits = 1 if _head(packing) is Head.ONE_LOGIT else len(packing.class_names)
    chosen = {"num_classes": logits, **packing.options}
    known = vars(architecture.chosen(**chosen))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


def _head(packing: Packing) -> Head:
    if packing.head == AUTO:
        one = len(packing.class_names) == 1 or packing.options.get("num_classes") == 1
        return Head.ONE_LOGIT if one else Head.SOFTMAX
    try:
        return Head(packing.head)
    except ValueError as error:
        raise InputError(f"There is no head {packing.head!r}; choose one of {', '.join((AUTO, *Head))}.") from error


def _input_shape(packing: Packing) -> tuple[int, ...]:
    """Given, or the size that the preprocessing makes, or the architecture's own."""
    if packing.input_shape:
        return packing.input_shape
    architecture = _architecture(packing)
    if architecture is not None:
        own: tuple[int | None, ...] = architecture.input_shape(**_options(packing))
    else:
        facts = _facts(packing)
        own = facts.input_shape if facts else ()
    if packing.windows and own:
        return (own[0] or 1, *packing.windows.roi_size)
    sizes = [step.spatial_size for step in packing.preprocessing if isinstance(step, Resize | PadOrCrop)]
    if sizes and len(sizes[-1]) == len(own) - 1 and min(sizes[-1]) > 0:
        own = (own[0], *sizes[-1])
    shape = tuple(n for n in own if n is not None)
    if not shape or len(shape) < len(own):
        raise InputError(
            f"Give the shape of the input that {packing.weights.name} takes, channels first (--input-shape on the "
            "command line)."
        )
    return shape


def _check_size(packing: Packing) -> None:
    """Refuse a preprocessing that does not make the one size of image that the network's file allows."""
    kind = format_of(packing.weights)
    facts = kind().facts(packing.weights) if kind.has_architecture else None
    wanted = facts.input_shape[1:] if facts else ()
    if not any(wanted):
        return
    if packing.windows is not None:
        made: tuple[int, ...] | None = packing.windows.roi_size
    elif any(isinstance(step, Resize | PadOrCrop | Spacing | CropToBody | Other) for step in packing.preprocessing):
        made = _size_made(packing.preprocessing, len(wanted))
    else:
        # The images have to fit by themselves.
        return
    if made is None or (
        # A length that depends on the image is told when it is there.
        len(made) == len(wanted) and all(n is None or m in (n, -1) for n, m in zip(wanted, made, strict=True))
    ):
        return
    what = "its windows do" if packing.windows is not None else "the preprocessing does"
    fixed = ",".join("-1" if n is None else str(n) for n in wanted)
    way = (
        f"give windows of {fixed}"
        if packing.windows is not None
        else f"end it with Resize to {fixed}, as --resize does"
    )
    raise InputError(
        f"{packing.weights.name} takes images of {sizes(wanted)} voxels only, which {what} not make; {way}."
    )


def _size_made(steps: tuple[AnyStep, ...], axes: int) -> tuple[int, ...] | None:
    """Lengths that a preprocessing makes, -1 for those that depend on the image; None if that can't be told."""
    made: tuple[int, ...] | None = (-1,) * axes
    for step in steps:
        if isinstance(step, Resize | PadOrCrop):
            size = step.spatial_size * axes if len(step.spatial_size) == 1 else step.spatial_size
            before = made or (-1,) * axes
            if made is None and -1 in size:
                return None
            made = tuple(before[k] if n == -1 and k < axes else n for k, n in enumerate(size))
        elif isinstance(step, Spacing | CropToBody) or (isinstance(step, Orientation) and len(set(made or ())) > 1):
            made = (-1,) * axes
        elif isinstance(step, Other):
            made = None
    return made


def _metadata(packing: Packing, shape: tuple[int, ...], head: Head) -> dict[str, Any]:
    import monai
    import torch

    names = {str(index): name for index, name in enumerate(packing.class_names)}
    image: dict[str, Any] = {
        "type": "image",
        "format": "hounsfield" if packing.modality.upper() == "CT" else "magnitude",
        "modality": packing.modality or "n/a",
        "num_channels": shape[0],
        "spatial_shape": list(shape[1:]),
        "dtype": "float32",
        "is_patch_data": packing.windows is not None,
        "channel_def": {str(k): f"channel {k}" for k in range(shape[0])},
    }
    if packing.value_range:
        image["value_range"] = list(packing.value_range)
    prediction = {"type": str(head), "format": "classes", "num_channels": len(names), "channel_def": names}
    own: dict[str, Any] = {"head": str(head), "spatial_dims": len(shape) - 1}
    if packing.output:
        own["output"] = int(packing.output) if packing.output.isdecimal() else packing.output
    if packing.spacing:
        own["spacing"] = list(packing.spacing)
    if packing.windows is not None:
        own["sliding_window"] = packing.windows.to_dict()
    if any(isinstance(step, ToColours | ToGrey) for step in packing.preprocessing):
        # These take grey pictures and colours.
        own["image_channels"] = 0
    return {
        "version": "0.1.0",
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "name": packing.name or packing.weights.stem,
        "intended_use": DISCLAIMER,
        "network_data_format": {
            "inputs": {"image": image},
            "outputs": {"pred": prediction},
        },
        "napari_xai_med": own,
    }
