"""What asking about masked images costs beside the plain network: evaluations per second, and the network's share.

``python benchmarks/engine.py``
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from measure import THREADS, peak_megabytes, seconds, table
from torch import Tensor, nn

from napari_xai_med.explainers.base import Question, make_explainer
from napari_xai_med.games.engine import Composer, ImageGame
from napari_xai_med.job import Job
from napari_xai_med.models import load_model
from napari_xai_med.models.architectures import build
from napari_xai_med.models.batch_sizes import REFERENCE
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.module import classifier_from_module
from napari_xai_med.models.target import Target
from napari_xai_med.segments.base import make_segmenter
from napari_xai_med.windows import asking

CASES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "chest_ct_2d": ((1, 96, 96), 50, 512),
    "chest_ct_3d": ((1, 64, 64, 32), 50, 256),
    "densenet121": ((1, 224, 224), 50, 32),
}
"""Classifiers with the shape of their input, a number of segments and a number of evaluations."""
VOLUME = 200, (1, 128, 128, 64)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Timed(nn.Module):
    """A network that counts the seconds spent in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.spent = network, 0.0

    def forward(self, x: Tensor) -> Any:
        """As the network."""
        start = time.perf_counter()
        result = self.network(x)
        self.spent += time.perf_counter() - start
        return result


def made(case: str) -> Classifier:
    """The classifier of a case."""
    if case.startswith("chest"):
        return load_model(case)
    torch.manual_seed(0)
    network = build(case, spatial_dims=2, num_classes=3).eval()
    return classifier_from_module(network, ["a", "b", "c"])


@contextmanager
def game_of(classifier: Classifier, shape: tuple[int, ...], players: int, **options: Any) -> Iterator[ImageGame]:
    """A game on a random image, cut into equal parts."""
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    voxels = image[0].numel()
    labels = (torch.arange(voxels, dtype=torch.int32) * players // voxels + 1).reshape(shape[1:])
    compose = Composer(image, torch.zeros_like(image), labels)
    with torch.no_grad(), asking(classifier) as ask:
        yield ImageGame(classifier, ask, compose, shape, players, [Target(0)], **options)


def forward(network: nn.Module, x: Tensor, times: int = 1) -> Callable[[], None]:
    """Plain passes of a batch."""

    def call() -> None:
        with torch.inference_mode():
            for _ in range(times):
                network(x)

    return call


def playing(classifier: Classifier, case: str, **options: Any) -> Callable[[], None]:
    """A new game, with coalitions that all differ."""
    shape, players, count = CASES[case]
    coalitions = np.unique(np.random.default_rng(0).random((2 * count, players)) < 0.5, axis=0)[:count]

    def call() -> None:
        with game_of(classifier, shape, players, **options) as game:
            game(coalitions)

    return call


def memory_of(count: int) -> Callable[[], Any]:
    """What `peak_megabytes` measures: eight plain passes at once, or a game with so many supervoxels and samples."""
    classifier, (segments, shape) = made("chest_ct_3d"), VOLUME

    def call(voxels: tuple[int, ...], wanted: int, samples: int) -> None:
        image = torch.rand(voxels)
        if not count:
            forward(classifier.network, image.expand(REFERENCE, *voxels).contiguous())()
            return
        labels = make_segmenter("grid", {"number": wanted}).segments(image.numpy(), (1.0, 1.0, 1.0))
        question = Question(classifier, image[None], ((0, Target(0)),), (1.0, 1.0, 1.0), segments=(labels,))
        explainer = make_explainer("lime", {"samples": samples, "batch_size": REFERENCE})
        explainer.attribute(question, Job())

    # So that what is imported does not count.
    call((1, 32, 32, 32), 8, 20)
    return partial(call, shape, segments, count)


def memory() -> None:
    """Print how much memory explanations of a volume need beside the network's own."""
    volume = 4 * prod(VOLUME[1]) / 1e6
    plain = peak_megabytes(partial(memory_of, 0))
    rows = {}
    for count in (300, 600, 2400):
        peak = peak_megabytes(partial(memory_of, count))
        rows[f"LIME, {count} samples"] = [f"{peak:.0f}", f"{(peak - plain) / volume:.1f}"]
    title = f"Memory: {VOLUME[0]} supervoxels of {VOLUME[1]}; a plain batch of {REFERENCE} needs {plain:.0f} MB"
    table(title, ["", "MB", "volumes more than the network"], rows)


def main() -> None:
    """Print tables."""
    memory()
    rows: dict[str, list[str]] = {}
    torch.set_num_threads(THREADS)
    for case, (shape, _, count) in CASES.items():
        classifier = made(case)
        sizes = [size for size in SIZES if size <= count // 2]
        calls = {str(size): forward(classifier.network, torch.rand(size, *shape), count // size) for size in sizes}
        calls["engine"] = playing(classifier, case)
        times = seconds(calls, 11)
        best = min(sizes, key=lambda size: times[str(size)])
        chosen = next(iter(classifier.batch_sizes.values()))
        timed = Timed(classifier.network)
        watched = replace(classifier, network=timed)
        watched.batch_sizes.update(classifier.batch_sizes)
        shares = []
        for size in sorted(chosen.seconds):
            play = playing(watched, case, limit=size)
            play()
            timed.spent, start = 0.0, time.perf_counter()
            play()
            shares.append(f"{size}: {timed.spent / (time.perf_counter() - start):.1%}")
        rows[case] = [
            f"{best}",
            f"{count / times[str(best)]:.0f}",
            f"{chosen.best(0)}",
            f"{count / times['engine']:.0f}",
            f"{times[str(best)] / times['engine']:.2f}",
            ", ".join(shares),
        ]
    heads = ["", "best batch", "images/s", "engine's batch", "images/s", "ratio", "share inside the network by batch"]
    table("Masked images", heads, rows)


if __name__ == "__main__":
    main()
