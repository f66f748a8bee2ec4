"""What class activation maps share whose weights are found by asking the network again for each channel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.layer_maps import LayerExplainer, LayerMap, outputs_at, weighted_sum
from napari_xai_med.job import Job
from napari_xai_med.models.devices import in_batches
from napari_xai_med.models.head import Answer
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.models.run import answering
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import option

_FEWER = "The memory was not enough for {} passes of {} at once; they were computed in batches of {}."


@dataclass(frozen=True)
class AtLayer:
    """What is known before the weights of one layer's channels are asked for.

    Parameters
    ----------
    question : Question
    layer : Layer
    outputs : list of Tensor, shape (N, K, *layer)
        What the layer gave at each of its uses; the last one counts.
    chosen : dict of int to list of int
        The channels to ask about, for each row that is explained.
    wanted : sequence of (int, Target)
        Rows, and what is explained of them.
    answer : Answer
        To the images as they are.
    ask : callable
        One of many passes; see `answering`.
    """

    question: Question
    layer: Layer
    outputs: list[Tensor]
    chosen: dict[int, list[int]]
    wanted: Sequence[tuple[int, AnyTarget]]
    answer: Answer
    ask: Callable[..., Answer]

    def scores(self, answer: Answer) -> Tensor:
        """What each target is about in another answer, shape (number of targets, rows of the answer)."""
        return torch.stack([target.of(answer) for _, target in self.wanted]).cpu().double()


@dataclass(frozen=True)
class Weights:
    """The weights of one layer's channels for one target.

    Parameters
    ----------
    values : Tensor of float64, shape (number of channels asked about,)
    facts : dict
        For the record.
    notices : tuple of str
    """

    values: Tensor
    facts: dict[str, float]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class ScoredCAM(LayerExplainer):
    """A method that asks the network once for each channel of a layer; needs no gradient."""

    channels: int = option(
        0, "How many channels to ask about, those with the largest values; 0 for all.", limits=(0, None)
    )
    batch_size: int = option(
        8, "How many passes through the network at once; fewer if the memory is not enough.", limits=(1, None)
    )

    def layer_maps(self, question: Question, layers: Sequence[Layer], job: Job) -> tuple[list[list[LayerMap]], Answer]:
        """One forward pass, and then those for the channels of each layer; see `LayerExplainer`."""
        outputs, answer = outputs_at(question, [layer.name for layer in layers], job.part(0.0, 0.02))
        wanted = question.resolved(answer)
        maps: list[list[LayerMap]] = [[] for _ in wanted]
        for k, layer in enumerate(layers):
            last = outputs[layer.name][-1]
            chosen = {row: self.choose(last[row]) for row, _ in wanted}
            part = job.part(0.02 + 0.98 * k / len(layers), 0.02 + 0.98 * (k + 1) / len(layers))
            with torch.no_grad(), answering(question.classifier) as ask:
                at = AtLayer(question, layer, outputs[layer.name], chosen, wanted, answer, ask)
                found = self.weights(at, part)
            for made, (row, _), weights in zip(maps, wanted, found, strict=True):
                facts = {"channels": last.shape[1], "channels_asked": len(chosen[row]), **weights.facts}
                values = weighted_sum(weights.values[None].to(last), last[row, chosen[row]][None])[0].relu()
                made.append(LayerMap(values, facts, weights.notices))
        return maps, answer

    def choose(self, activations: Tensor) -> list[int]:
        """Channels to ask about, of feature maps (K, *layer): all, or the most active in order of their index."""
        size = activations.flatten(1).abs().mean(1)
        order = size.argsort(descending=True, stable=True)
        return sorted(order[: self.channels or None].tolist())

    @abstractmethod
    def weights(self, at: AtLayer, job: Job) -> list[Weights]:
        """The weights of the chosen channels, for each target.

        Parameters
        ----------
        at : AtLayer
        job : Job
        """

    def in_parts(
        self, items: Tensor, size: int, compute: Callable[[Tensor, Job], Tensor], job: Job
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Compute something for items in batches, smaller ones where the memory is not enough.

        Parameters
        ----------
        items : Tensor, shape (number of items, ...)
        size : int
            How many at once.
        compute : callable
            Of some of the items and their part of the job; its result has these items along its last axis.
        job : Job

        Returns
        -------
        (Tensor, tuple of str)
            All results, joined along their last axis, and a notice if batches had to be smaller.
        """
        sizes: list[int] = []
        done = 0

        def one(part: Tensor) -> Tensor:
            nonlocal done
            after = done + len(part)
            result = compute(part, job.part(done / len(items), after / len(items)))
            done = after
            return result

        results = in_batches(items, size, one, sizes.append)
        return torch.cat(results, -1), tuple(_FEWER.format(size, self.title, fewer) for fewer in sizes[-1:])
