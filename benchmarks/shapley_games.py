"""Games of networks whose coalitions are all known, so that every estimate can be held to the exact Shapley values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import DenseNet
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from napari_xai_med.io import read_image
from napari_xai_med.models import load_model
from napari_xai_med.samples import sample_files

BATCH = 64
CACHE = Path(tempfile.gettempdir()) / "napari-xai-med-shapley"
PLAYERS = (11, 12, 14, 16)


@dataclass(frozen=True)
class Table:
    """A game whose coalitions are all known.

    Parameters
    ----------
    worth : ndarray of float64, shape (2 ** players, T)
        Of the coalition whose bits are the row's index, the first player's the lowest.
    players : int
    """

    worth: NDArray[np.float64]
    players: int

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What they are worth, shape (K, T)."""
        return self.worth[np.asarray(coalitions, dtype=np.int64) @ (1 << np.arange(self.players))]


def trained_densenet() -> tuple[nn.Module, Tensor, Tensor]:
    """A small DenseNet that learned for a moment how many bright discs of which kind lie in noise.

    With a picture and its mean, which the noise varies about.
    """
    torch.manual_seed(0)
    network = DenseNet(2, 1, 3, init_features=16, growth_rate=8, block_config=(2, 4, 2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    axis = torch.arange(64.0)
    for _ in range(80):
        kinds = torch.randint(3, (32,))
        centres, radii = 12 + 40 * torch.rand(2, 32, 2, 1, 1), 4 + 5 * torch.rand(2, 32, 1, 1)
        far = ((axis[:, None] - centres[:, :, 0]) ** 2 + (axis - centres[:, :, 1]) ** 2).sqrt() / radii
        discs = far[0].lt(1).float()
        # Rings, and two discs, are the other kinds.
        discs[kinds == 1] -= far[0].lt(0.6).float()[kinds == 1]
        discs[kinds == 2] = torch.maximum(discs, far[1].lt(1).float())[kinds == 2]
        pictures = (0.25 * torch.randn(32, 64, 64) + 0.25 + 0.6 * discs)[:, None]
        loss = cross_entropy(network(pictures), kinds)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    picture = pictures[kinds == 2][:1]
    return network.eval(), picture, picture.mean()


def embedded(name: str, sample: str, *, mean: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """An embedded classifier's network, a sample as it sees it, and a baseline: zero or the sample's mean."""
    classifier = load_model(name, device="cpu")
    x = classifier.prepare(read_image(sample_files(sample)[0])).tensor
    return classifier.network, x, x.mean() if mean else torch.zeros(())


def segments_of(x: Tensor, count: int) -> Tensor:
    """SLIC segments from 0 to count - 1, shape (*spatial)."""
    for wanted, compactness in product(range(count - 4, count * 4, 2), np.geomspace(0.04, 0.3, 9)):
        labels = slic(x[0, 0].numpy(), wanted, compactness=compactness, channel_axis=None, start_label=0)
        if labels.max() + 1 == count:
            return torch.from_numpy(labels)
    raise SystemExit(f"SLIC finds no {count} segments in this image.")


def tabulated(network: nn.Module, x: Tensor, baseline: Tensor, players: int) -> NDArray[np.float64]:
    """The logits with every coalition of segments shown, the others at the baseline; shape (2 ** players, T)."""
    labels = segments_of(x, players)
    rows = []
    with torch.inference_mode():
        for first in range(0, 2**players, BATCH):
            index = torch.arange(first, min(first + BATCH, 2**players))
            shown = (index[:, None] >> torch.arange(players) & 1).bool()[:, labels]
            rows.append(network(torch.where(shown[:, None], x, baseline)))
    return torch.cat(rows).double().numpy()


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor, Tensor]]] = {
    "chest_ct_2d": lambda: embedded("chest_ct_2d", "slice_nodule", mean=False),
    "chest_ct_3d": lambda: embedded("chest_ct_3d", "chest_ct_lesion", mean=False),
    "DenseNet": trained_densenet,
    "chest_ct_2d, mean": lambda: embedded("chest_ct_2d", "slice_nodule", mean=True),
    "chest_ct_3d, mean": lambda: embedded("chest_ct_3d", "chest_ct_lesion", mean=True),
}
"""The embedded classifiers with their default baseline, and with their image's mean, which is harder to estimate."""


def games(players: tuple[int, ...] = PLAYERS) -> dict[tuple[str, int], Table]:
    """A game for each network and number of players: the logit that is largest for the whole image.

    The tables take minutes and are kept among the temporary files, for as long as this file stays as it is.
    """
    CACHE.mkdir(exist_ok=True)
    version = sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    found = {}
    for name, make in NETWORKS.items():
        for count in players:
            path = CACHE / f"{name}-{count}-{version}.npy"
            if not path.exists():
                np.save(path, tabulated(*make(), count))
            worth = np.load(path)
            found[name, count] = Table(worth[:, [worth[-1].argmax()]], count)
    return found
