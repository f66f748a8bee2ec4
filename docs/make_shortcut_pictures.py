"""Make tables and pictures of docs/shortcuts.md: ``python docs/make_shortcut_pictures.py DATA`` (some minutes).

DATA is a folder with the images and weights that the page names. Pictures are of phantoms and of images that may be
published; of all others only numbers are told. Networks are trained here on the data themselves, since no weights
exist; they are small and serve this page only.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from make_real_pictures import BRAIN, head_with_tumour
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from napari_xai_med import Classifier, Image, classifier_from_module, explain, load_model, predict, read_image
from napari_xai_med.cases import case_of
from napari_xai_med.evaluation import Evaluation, evaluate_case
from napari_xai_med.job import Job
from napari_xai_med.metrics.attribution_by_region import AttributionByRegion
from napari_xai_med.metrics.counterfactual_regions import CounterfactualRegions
from napari_xai_med.metrics.regions import NOT_PATIENT, find_regions
from napari_xai_med.preprocessing.base import read_steps, transform_of
from napari_xai_med.training.phantoms import make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED, ReferenceRecipe, fit, train, write_bundle
from napari_xai_med.training.shortcut import CLEAN, MARKED, with_marker

DOCS = Path(__file__).parent
SIZE = 96
STEPS = (
    {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
    {"_target_": "Resized", "keys": "image", "spatial_size": [SIZE, SIZE], "mode": "bilinear", "align_corners": False},
)
METRICS = (AttributionByRegion(), CounterfactualRegions())
LONGEST = 640
"""Pixels of a picture: larger ones are halved until they are not longer, which the network does not see."""


@dataclass(frozen=True)
class Sample:
    """A picture with its class, and an expert's mask where there is one."""

    path: Path
    label: int
    mask: Path | None = None

    def read(self) -> tuple[Image, NDArray[np.bool_] | None]:
        """Grey, not larger than is needed."""
        image = read_image(self.path)
        step = -(-max(image.grid.shape) // LONGEST)
        grey = image.data.mean(0)[::step, ::step]
        mask = None if self.mask is None else read_image(self.mask).data[0][::step, ::step] > 0
        return replace(Image.from_array(grey), name=self.path.stem), mask


def quiet(line: str) -> None:
    """Take a report: nothing is told of single epochs."""


def chest_x_rays(data: Path) -> tuple[list[Sample], list[Sample]]:
    """Adults with COVID-19 from many hospitals against healthy children from one: to train on, and held out."""
    folder = data / "covid_cxr_lungmask"
    sick = [Sample(path, 1, folder / "masks" / f"{path.stem}.png") for path in sorted((folder / "images").iterdir())]
    healthy = [Sample(path, 0) for path in sorted((data / "cxr_kermany_test" / "NORMAL").iterdir())[:: 234 // 88]]
    # By name and not by chance: pictures of one patient follow one another.
    halves = [(each[: len(each) // 2], each[len(each) // 2 :]) for each in (sick, healthy)]
    return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]


def breast_ultrasound(data: Path) -> tuple[list[Sample], list[Sample]]:
    """Benign against malignant lesions: to train on, and held out."""
    first, second = [], []
    for label, kind in enumerate(("benign", "malignant")):
        folder = data / "busi" / kind
        found = [Sample(path, label, folder / "masks" / path.name) for path in sorted((folder / "images").iterdir())]
        first += found[: 2 * len(found) // 3]
        second += found[2 * len(found) // 3 :]
    return first, second


def trained(names: tuple[str, str], samples: Sequence[Sample], epochs: int) -> Classifier:
    """The network of the embedded classifiers, trained by their recipe."""
    recipe = ReferenceRecipe(
        " and ".join(names), "", 2, names, (SIZE, SIZE), len(samples), 0, epochs=epochs, batch=16, learning_rate=5e-3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConfigParser({"network": recipe.network}).get_parsed_content("network")
        classifier = classifier_from_module(
            network, names, preprocessing=transform_of(read_steps(STEPS), recipe.name), head=recipe.head
        )
        inputs = torch.cat([classifier.prepare(sample.read()[0]).tensor for sample in samples])
        fit(recipe, network, inputs, torch.tensor([sample.label for sample in samples]), quiet)
    return classifier


def accuracy(classifier: Classifier, samples: Sequence[Sample]) -> float:
    """Mean of the accuracies of both classes."""
    with torch.inference_mode():
        inputs = torch.cat([classifier.prepare(sample.read()[0]).tensor for sample in samples])
        answers = (classifier.network(inputs)[:, 0] > 0).numpy().astype(int)
    labels = np.array([sample.label for sample in samples])
    return float(np.mean([(answers[labels == k] == k).mean() for k in (0, 1)]))


def judged(image: Image, classifier: Classifier, target: str, masks: Mapping[str, NDArray[np.bool_]]) -> Evaluation:
    """Both checks of a Grad-CAM map."""
    attribution = explain(image, classifier, target=target)
    return evaluate_case(case_of(attribution, dict(masks), image, classifier), METRICS, Job())


def table(evaluations: Sequence[Evaluation]) -> str:
    """Medians over images, by region, as a table of Markdown."""
    numbers: dict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    flags: Counter[tuple[str, str]] = Counter()
    for each in evaluations:
        own = each.frame[(each.frame["subject"] == "explanation") & each.frame["value"].notna()]
        for row in own.itertuples():
            numbers[row.of][row.score].append(row.value)
        for metric, outcome in each.outcomes.items():
            bad = " ".join(verdict.sentence for verdict in outcome.verdicts if verdict.good is False)
            flags.update((metric.name, name) for name in NOT_PATIENT if f"{name} " in bad.replace(",", " "))
    lines = [
        "| region | images | of the image | of what speaks for it | times its share | leans | logit change | used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(numbers.items(), key=lambda item: -len(item[1]["volume_share"])):
        if not found["volume_share"]:
            continue
        median = {score: float(np.median(values)) for score, values in found.items() if values}
        lines.append(
            f"| {name} | {len(found['volume_share'])} | {median['volume_share']:.1%} | "
            f"{median.get('positive_share', np.nan):.0%} | {median.get('positive_density', np.nan):.1f} | "
            f"{flags['attribution_by_region', name]} | {median.get('logit_change', np.nan):+.2f} | "
            f"{flags['counterfactual_regions', name]} |"
        )
    return "\n".join(lines)


def real(title: str, names: tuple[str, str], split: tuple[list[Sample], list[Sample]], mask: str) -> None:
    """Train, and tell of all held-out images of the second class that it finds."""
    first, second = split
    classifier = trained(names, first, 40)
    print(f"\n### {title}\n")
    print(f"{len(first)} images to train on, {len(second)} held out. Balanced accuracy of the held-out ones: ", end="")
    print(f"{accuracy(classifier, second):.2f} (of those it was trained on: {accuracy(classifier, first):.2f}).")
    found = []
    for sample in second:
        image, drawn = sample.read()
        if sample.label == 1 and predict(image, classifier).top == 1:
            found.append(judged(image, classifier, names[1], {} if drawn is None else {mask: drawn}))
    print(f"Of the {len(found)} held-out images that it rightly calls {names[1]}:\n")
    print(table(found))


def outlines(image: Image, attribution: NDArray[np.float32], regions: Mapping[str, NDArray[np.bool_]]) -> Figure:
    """The image with its regions, and with the map."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(image.data[0], "gray", vmin=np.percentile(image.data, 1), vmax=np.percentile(image.data, 99.5))
        axes.axis("off")
    for k, (name, mask) in enumerate(regions.items()):
        left.contour(mask, levels=[0.5], colors=f"C{k}", linewidths=1)
        left.plot([], [], color=f"C{k}", label=name)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    shown = right.imshow(attribution, "turbo", alpha=0.5)
    figure.colorbar(shown, ax=right, shrink=0.8, label="Grad-CAM")
    return figure


def phantoms(folder: Path) -> None:
    """The phantom that both networks see, one of which learnt the letter."""
    print("\n### Phantoms\n")
    image = Image.from_array(with_marker(make_slice(HELD_OUT_SEED + 1000, "ground_glass")).data)
    for recipe, name in ((CLEAN, "clean"), (MARKED, "marked")):
        made = train(recipe, quiet)
        write_bundle(made, folder / name)
        classifier = load_model(folder / name)
        found = judged(image, classifier, "ground glass", {})
        print(f"\n{recipe.name}: held-out accuracy {made.accuracy:.2f}\n")
        for outcome in found.outcomes.values():
            print("\n".join(f"- {verdict.sentence}" for verdict in outcome.verdicts))
        attribution = explain(image, classifier, target="ground glass")
        regions = find_regions(case_of(attribution, image=image)).masks
        outlines(image, attribution.values, regions).savefig(DOCS / "images" / f"shortcut_{name}.png", dpi=75)


def brain(data: Path, folder: Path) -> None:
    """The slice in which the tumour is largest, and a published network."""
    print("\n### Brain MR\n")
    volume, masks = head_with_tumour(data)
    index = int(masks.sum((1, 2)).argmax())
    slice_ = np.clip(volume.data[0, index] / np.percentile(volume.data, 99.8) * 255, 0, 255)
    image = replace(Image.from_array(slice_, volume.grid.spacing[1:]), name=f"brain1, slice {index}")
    classifier = BRAIN.packed(data, folder)
    found = judged(image, classifier, "tumour", {"tumour": masks[index]})
    for outcome in found.outcomes.values():
        print("\n".join(f"- {verdict.sentence}" for verdict in outcome.verdicts))
    print()
    print(table([found]))
    attribution = explain(image, classifier, target="tumour")
    case = case_of(attribution, {"tumour": masks[index]}, image)
    regions = find_regions(case).masks
    outlines(image, attribution.values, regions).savefig(DOCS / "images" / "shortcut_brain.png", dpi=75)


def main() -> None:
    """Print the tables and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    with TemporaryDirectory() as folder:
        phantoms(Path(folder))
        brain(data, Path(folder))
    real("Chest X-rays", ("healthy", "covid"), chest_x_rays(data), "lungs")
    real("Breast ultrasound", ("benign", "malignant"), breast_ultrasound(data), "lesion")


if __name__ == "__main__":
    main()
