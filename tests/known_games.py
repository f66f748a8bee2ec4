"""Games whose Shapley values are known, and networks' games that are small enough to be enumerated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from napari_xai_med.games.base import Coalitions, Float
from napari_xai_med.games.exact import numbered


@dataclass
class Played:
    """A game that remembers what it was asked."""

    players: int
    worth: Callable[[Coalitions], Float]
    asked: list[Coalitions] = field(default_factory=list)

    def __call__(self, coalitions: Coalitions) -> Float:
        self.asked.extend(coalitions)
        worth = np.asarray(self.worth(coalitions), dtype=np.float64)
        return worth if worth.ndim == 2 else worth[:, None]


def additive(players: int) -> tuple[Played, Float]:
    """Each player adds what it adds, in two targets."""
    shares = np.random.default_rng(7).normal(size=(2, players))
    return Played(players, lambda s: s @ shares.T + 3), shares


def voting(players: int) -> tuple[Played, Float]:
    """A majority wins; all are alike."""
    return Played(players, lambda s: s.sum(1) > players / 2), np.full((1, players), 1 / players)


def unanimity(players: int) -> tuple[Played, Float]:
    """The first three, or all, win only together, and share it."""
    few = min(players, 3)
    return Played(players, lambda s: s[:, :few].all(1)), (np.arange(players) < few)[None] / few


def gloves(players: int) -> tuple[Played, Float]:
    """One has the left glove, the others a right one each: one of these counts only where it is second after it."""
    right = 1 / players / max(players - 1, 1)
    return Played(players, lambda s: s[:, 0] & s[:, 1:].any(1)), np.array([[1 - 1 / players] + [right] * (players - 1)])


def airport(players: int) -> tuple[Played, Float]:
    """The longest runway that is needed is paid; those who need a stretch share its cost."""
    costs = np.arange(1, players + 1) ** 1.5
    stretches = np.diff(costs, prepend=0) / np.arange(players, 0, -1)
    return Played(players, lambda s: (s * costs).max(1)), np.cumsum(stretches)[None]


CLOSED = {game.__name__: game for game in (additive, voting, unanimity, gloves, airport)}


def tabulated(players: int, worth: Callable[[Coalitions], Float]) -> Played:
    """A game whose worths are all known beforehand."""
    table = np.asarray(worth(numbered(np.arange(2**players), players)))
    return Played(players, lambda s: table[s @ (1 << np.arange(players))])


def perceptron(players: int, seed: int = 0) -> Played:
    """Two logits of a random multilayer perceptron."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(players, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    with torch.inference_mode():
        return tabulated(players, lambda s: network(2 * torch.from_numpy(s).double()).numpy())


def convolutional(seed: int = 0) -> Played:
    """A logit of a random network in float32, for an image of 3 x 4 squares."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)
    )
    image = torch.rand(12, 16)

    def worth(coalitions: Coalitions) -> Float:
        shown = torch.from_numpy(coalitions).float().reshape(-1, 3, 4)
        shown = shown.repeat_interleave(4, 1).repeat_interleave(4, 2)
        with torch.inference_mode():
            return network((shown * image)[:, None]).double().numpy()

    return tabulated(12, worth)
