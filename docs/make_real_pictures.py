"""Make the pictures of docs/real_networks.md: ``python docs/make_real_pictures.py DATA``.

DATA is a folder with the images and weights that the page names. Only images that may be published are shown.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from napari_xai_med import Attribution, Classifier, Image, explain, predict, read_image
from napari_xai_med.figures import three_views
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.preprocessing.files import read_preprocessing

DOCS = Path(__file__).parent


@dataclass(frozen=True)
class Network:
    """A network's file in DATA, and what the page says of it."""

    weights: str
    preprocessing: str
    classes: tuple[str, ...]
    dims: int = 2
    output: str = ""

    def packed(self, data: Path, folder: Path) -> Classifier:
        """As `napari-xai-med pack` makes it."""
        steps = read_preprocessing(str(DOCS / "real_networks" / f"{self.preprocessing}.json"), self.dims)
        packing = Packing(
            weights=data / self.weights,
            class_names=self.classes,
            head="one_logit",
            output=self.output,
            preprocessing=steps,
            name=self.preprocessing,
        )
        return pack(packing, folder / self.preprocessing)


BRAIN = Network("weights_brain_tumor_2d/original_keras.h5", "brain_tumour", ("no tumour", "tumour"))
NODULE = Network("weights_luna_nodule_3d/original_keras12.h5", "lung_nodule", ("malignant",), 3, "o_mal")
COVID = Network("weights_extra_keras/covid_ct_2d.h5", "covid_ct", ("covid",))
SKULL = Network("weights_extra_keras/skullstrip_quality_3d.h5", "skullstrip", ("face recognisable",), 3)


def read_nrrd(path: Path) -> NDArray[np.float32]:
    """Values of a gzipped NRRD of whole numbers, shape (slices, rows, columns)."""
    header, _, content = path.read_bytes().partition(b"\n\n")
    lines = [line.split(": ", 1) for line in header.decode().splitlines() if ": " in line]
    fields = {line[0]: line[1] for line in lines}
    kind = {"short": "<i2", "int": "<i4"}[fields["type"]]
    shape = [int(n) for n in fields["sizes"].split()][::-1]
    return np.frombuffer(gzip.decompress(content), kind).reshape(shape).astype(np.float32)


def head_with_tumour(data: Path) -> tuple[Image, NDArray[np.bool_]]:
    """Head MR and the outline of its tumour; slices from head to feet, rows to the back, columns to the left."""
    folder = data / "pyradiomics_lesions"
    # Stored with axes to the head, to the front and to the left.
    values, mask = (read_nrrd(folder / f"brain1_{kind}.nrrd")[::-1, ::-1] for kind in ("image", "label"))
    return replace(Image.from_array(values, (6.5, 0.78125, 0.78125)), name="brain1"), mask > 0


def outlined(figure: Figure, mask: NDArray[np.bool_]) -> Figure:
    """With the tumour's outline in the only view."""
    figure.axes[0].contour(mask, levels=[0.5], colors="lime", linewidths=1)
    return figure


def told(name: str, attribution: Attribution, mask: NDArray[np.bool_] | None = None) -> None:
    """Print what the page says about a map."""
    values = attribution.values
    peak = np.unravel_index(int(values.argmax()), values.shape)
    text = f"{name}: {attribution.class_name} {dict(attribution.prediction.ranked)}, cells {attribution.raw.shape}, "
    text += f"zero at {(values <= 0).mean():.0%}, peak at {tuple(map(int, peak))} of {values.shape}"
    if mask is not None:
        inside, area = values[mask].sum() / values.sum(), mask.mean()
        text += f", {inside:.1%} of the map in the outline, which has {area:.1%} of the image"
        text += f", peak {'inside' if mask[peak] else 'outside'}"
    print(text)


def painted_over(slice_: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """With the tumour as grey as what is around it."""
    within = binary_dilation(mask, iterations=3)
    around = binary_dilation(within, iterations=6) & ~within
    return np.where(within, np.median(slice_[around]), slice_)


def brain(data: Path, folder: Path) -> Figure:
    """The slice in which the tumour is largest."""
    volume, masks = head_with_tumour(data)
    index = int(masks.sum((1, 2)).argmax())
    # The network knows pictures of bytes.
    brightest = np.percentile(volume.data, 99.8)
    slice_ = np.clip(volume.data[0, index] / brightest * 255, 0, 255)
    image = replace(Image.from_array(slice_, volume.grid.spacing[1:]), name=f"brain1, slice {index}")
    classifier = BRAIN.packed(data, folder)
    attribution = explain(image, classifier, target="tumour")
    told("brain_tumour", attribution, masks[index])
    without = predict(Image.from_array(painted_over(slice_, masks[index]), image.grid.spacing), classifier)
    before, after = attribution.prediction.logits[0], without.logits[0]
    print(f"brain_tumour: logit {before:.2f}, with the tumour painted over {after:.2f}")
    return outlined(three_views(image, attribution), masks[index])


def covid(data: Path, folder: Path) -> Figure:
    """Through the lungs of somebody of whom no infection is known."""
    image = read_image(data / "ct_totalsegmentator" / "aorta_case" / "ct_cropped.nii.gz")
    attribution = explain(image, COVID.packed(data, folder), target="covid", slice=52)
    told("covid_ct", attribution)
    return three_views(image, attribution)


def skull(data: Path, folder: Path) -> Figure:
    """A head that was never stripped."""
    image, _ = head_with_tumour(data)
    attribution = explain(image, SKULL.packed(data, folder), target="face recognisable")
    told("skullstrip", attribution)
    return three_views(image, attribution)


def nodule(data: Path, folder: Path) -> Figure:
    """The patch with a nodule, as a scan in Hounsfield units."""
    patch = np.load(data / "luna_patches" / "positive_patch.npy")
    path = folder / "nodule.nii.gz"
    # Axes of the patch lead to the head, the back and the left; a bare array's first axis leads to the feet.
    image = Image.from_array(patch[::-1] * 1400 - 1000)
    save_nifti(path, image.data[0], image.grid)
    attribution = explain(path, NODULE.packed(data, folder), target="malignant")
    told("lung_nodule", attribution)
    return three_views(read_image(path), attribution)


PICTURES = {"brain_tumour": brain, "lung_nodule": nodule, "covid_ct": covid, "skullstrip": skull}


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    for name, make in PICTURES.items():
        with TemporaryDirectory() as folder:
            make(data, Path(folder)).savefig(DOCS / "images" / f"real_{name}.png", dpi=75)


if __name__ == "__main__":
    main()
