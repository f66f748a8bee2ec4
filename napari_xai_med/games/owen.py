"""Owen values over a binary tree of players, coarse to fine."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.games.base import Coalitions, Estimate, Float, Game

_AT_ONCE = 4
"""Groups split together, which takes two evaluations each: as many as a processor is about as fast with as any."""


@dataclass(order=True)
class _Group:
    """A group of players that joins a coalition, in one of the orders of the groups above it."""

    urgency: float
    number: int
    node: int = field(compare=False)
    share: float = field(compare=False)
    before: Coalitions = field(compare=False)
    without: Float = field(compare=False)
    joined: Float = field(compare=False)


def owen(game: Game, linkage: Float, budget: int) -> Iterator[Estimate]:
    """Owen values [1]_, by halving the groups of a tree again and again [2]_.

    The groups whose contribution is largest are split first, so that a small budget goes to where the answer is; what
    the others contribute is spread over their players. Split completely, this is what `shap.PartitionExplainer` gives;
    shap says nothing in between.

    Parameters
    ----------
    game : Game
    linkage : ndarray of float64, shape (players - 1, 2 or more)
        The tree, as from `scipy.cluster.hierarchy.linkage`.
    budget : int
        Evaluations at most.

    Yields
    ------
    Estimate
        After about as many evaluations as there are players, each time. The values sum up to v(N) - v(0); their errors
        are not known until all groups are split. `exact` says that these are the Owen values; they are not the
        Shapley values, unless the game has no interactions across groups.

    Raises
    ------
    InputError
        If the budget is less than 2, or the tree is not one of the players.

    References
    ----------
    .. [1] G. Owen, Values of games with a priori unions, Mathematical Economics and Game Theory, 1977.
    .. [2] S. Lundberg and S.-I. Lee, A unified approach to interpreting model predictions, NeurIPS 2017; shap's
       PartitionExplainer.
    """
    players = game.players
    if budget < 2:
        raise InputError("Owen values need two evaluations at least; allow more.")
    tree = _Tree(linkage, players)
    asked: dict[bytes, Float] = {}
    empty = np.zeros((1, players), dtype=bool)
    without, joined = _worth(game, np.concatenate([empty, ~empty]), asked)
    values = tree.spread[-1] * (joined - without)[:, None]
    waiting = [_Group(0.0, 0, 2 * players - 2, 1.0, empty[0], without, joined)] if players > 1 else []
    number, next_report = 0, 0
    while waiting and len(asked) + 2 <= budget:
        if len(asked) >= next_report:
            yield _estimate(values, len(asked), False)
            next_report = len(asked) + players
        count = min(_AT_ONCE, len(waiting), (budget - len(asked)) // 2)
        groups = [heapq.heappop(waiting) for _ in range(count)]
        for group in groups:
            values = values - tree.spread[group.node] * (group.share * (group.joined - group.without))[:, None]
        for part in _split(game, groups, tree, asked):
            number += 1
            part.number = number
            values = values + tree.spread[part.node] * (part.share * (part.joined - part.without))[:, None]
            if part.node >= players:
                heapq.heappush(waiting, part)
    yield _estimate(values, len(asked), not waiting)


class _Tree:
    """Who is in each node, and how it shares what it gets.

    Attributes
    ----------
    members : ndarray of bool, shape (2 * players - 1, players)
    children : ndarray of int, shape (players - 1, 2)
    spread : ndarray of float64, shape (2 * players - 1, players)
    """

    def __init__(self, linkage: Float, players: int) -> None:
        self.children = np.asarray(linkage)[:, :2].astype(np.intp) if players > 1 else np.empty((0, 2), dtype=np.intp)
        later = self.children >= players + np.arange(len(self.children))[:, None]
        if sorted(self.children.ravel()) != list(range(2 * players - 2)) or later.any():
            raise InputError(f"This tree is not one of {players} segments; make it of the same segments as the image.")
        self.members = np.zeros((2 * players - 1, players), dtype=bool)
        self.members[:players] = np.eye(players, dtype=bool)
        for node, (left, right) in enumerate(self.children, players):
            self.members[node] = self.members[left] | self.members[right]
        self.spread = self.members / self.members.sum(1, keepdims=True)


def _split(game: Game, groups: list[_Group], tree: _Tree, asked: dict[bytes, Float]) -> list[_Group]:
    """Both halves of each group, each as it joins first and as it joins second."""
    halves = [tree.children[group.node - len(tree.children) - 1] for group in groups]
    alone = [group.before | tree.members[each] for group, each in zip(groups, halves, strict=True)]
    worths = iter(_worth(game, np.concatenate(alone), asked))
    parts = []
    for group, pair, rows in zip(groups, halves, alone, strict=True):
        share, worth = group.share / 2, (next(worths), next(worths))
        for k in (0, 1):
            first = (group.before, group.without, worth[k])
            second = (rows[1 - k], worth[1 - k], group.joined)
            for before, without, joined in (first, second):
                urgency = -share * float(abs(joined - without).max())
                parts.append(_Group(urgency, 0, int(pair[k]), share, before, without, joined))
    return parts


def _worth(game: Game, coalitions: Coalitions, asked: dict[bytes, Float]) -> list[Float]:
    """What coalitions are worth; each is asked once."""
    new = [row for row in coalitions if row.tobytes() not in asked]
    if new:
        asked |= {row.tobytes(): worth for row, worth in zip(new, game(np.array(new)), strict=True)}
    return [asked[row.tobytes()] for row in coalitions]


def _estimate(values: Float, evaluations: int, whole: bool) -> Estimate:
    errors = np.zeros_like(values) if whole else np.full_like(values, np.nan)
    return Estimate(values, errors, evaluations, exact=whole, settled=whole)
