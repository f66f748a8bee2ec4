"""A classifier: a network in eval mode with its preprocessing and the names of its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.grid import Float
from napari_xai_med.image import Image
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.formats.facts import NetworkFacts
from napari_xai_med.models.head import Head
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.base import AnyStep, transform_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from napari_xai_med.models.batch_sizes import Sizes
    from napari_xai_med.models.endings import Range
    from napari_xai_med.models.receptive_field import Layer, Trace


@dataclass(frozen=True)
class NetworkInput:
    """An image as the network sees it.

    Parameters
    ----------
    tensor : Tensor, shape (1, C, *spatial)
        The preprocessed image.
    to_image : ndarray, shape (ndim + 1, ndim + 1)
        Index of the network's grid to index of the image's grid.
    """

    tensor: Tensor
    to_image: Float


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about an image. Research use only. Not for diagnosis.

    Parameters
    ----------
    logits : ndarray of float, shape (number of logits,)
        The network's output before softmax or sigmoid; see `Answer` for a segmentation.
    probabilities : ndarray of float, shape (number of classes,)
        Of a regression its values, of a segmentation each class's share of the image; see `quantity`.
    class_names : tuple of str
    top : int
        Index of the most probable class; of a segmentation the largest that is not background.
    network_input : NetworkInput
        What the network saw, and where.
    quantity : str
        What `probabilities` are.
    ending : str
        Function that the network ends in and that was taken off, such as "softmax", or nothing.
    notices : tuple of str
        Sentences that the user should read.
    """

    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]
    top: int
    network_input: NetworkInput = field(repr=False)
    quantity: str = "probability"
    ending: str = ""
    notices: tuple[str, ...] = ()

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Class names and probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(self.class_names[k], float(self.probabilities[k])) for k in order]


@dataclass(frozen=True)
class Classifier:
    """A network with everything that is needed to ask it about an image.

    Parameters
    ----------
    name : str
    network : torch.nn.Module
        In eval mode; it takes (N, C, *spatial).
    preprocessing : callable
        MONAI transforms from a channel-first MetaTensor to the network's input, without the batch axis.
    class_names : tuple of str
    head : Head
    spatial_dims : int
        2 or 3.
    channels : int
        Number of channels of the image that the preprocessing takes; 0 for any.
    sha256 : str
        Hash of weights and configuration.
    source : str
        The path it was loaded from, or the name of an embedded classifier.
    output : str or int, optional
        Which of several outputs the logits are: a key of a dict or the index in a sequence.
    facts : mapping
        The bundle's metadata.
    gives : frozenset of Gives
        What the network's format lets a method have.
    trusted : bool
        Whether the user allowed its bundle to run code.
    steps : tuple of Step or Other, optional
        The preprocessing as it can be seen and changed; None if it is code.
    windows : SlidingWindow, optional
        How the network looks at its input by windows; None if it takes all of it at once.
    precision : Precision
        What the network computes in.

    Raises
    ------
    ModelError
        If two classes have the same name, or a sliding window does not fit the rest.
    """

    name: str
    network: nn.Module = field(repr=False)
    preprocessing: Callable[[Tensor], Tensor] = field(repr=False)
    class_names: tuple[str, ...]
    head: Head
    spatial_dims: int
    channels: int
    sha256: str
    source: str
    output: str | int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    gives: frozenset[Gives] = frozenset(Gives)
    trusted: bool = False
    steps: tuple[AnyStep, ...] | None = field(default=None, repr=False)
    windows: SlidingWindow | None = None
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        names = self.class_names
        if twice := [name for k, name in enumerate(names) if name in names[:k]]:
            raise ModelError(f"{self.name} has two classes called {twice[0]!r}; give each class a name of its own.")
        if self.windows is None:
            return
        if self.head is Head.SEGMENTATION:
            raise ModelError(
                f"{self.name} is a segmentation, whose answers can't be put together from windows; "
                "take its sliding window away."
            )
        if len(self.windows.roi_size) != self.spatial_dims:
            raise ModelError(
                f"{self.name} takes {self.spatial_dims}D images and its sliding window is "
                f"{len(self.windows.roi_size)}D; give a roi_size of {self.spatial_dims} numbers."
            )

    def with_steps(self, steps: Sequence[AnyStep]) -> Classifier:
        """The same network behind another preprocessing."""
        result = replace(self, preprocessing=transform_of(steps, self.name), steps=tuple(steps))
        vars(result).update(traces=self.traces, batch_sizes=self.batch_sizes)
        return result

    def prepare(self, image: Image) -> NetworkInput:
        """Preprocess an image and keep track of where its voxels go.

        MONAI's transforms carry an affine along. The quotient of the affines before and after leads from
        the network's grid to the image's in one step, whatever crops, flips and resizes lie between.

        Raises
        ------
        InputError
            If the image has not the axes or channels that this classifier takes.
        ModelError
            If the preprocessing fails, or does not tell where its voxels go.
        """
        import torch
        from monai.data import MetaTensor

        self.check(image)
        if self._misplaces:
            raise ModelError(
                f"The preprocessing of {self.name} moves voxels without telling where to, so that maps would lie at "
                "a wrong place; use transforms of MONAI that carry the affine along, such as Orientationd."
            )
        affine = torch.as_tensor(np.array(image.grid.affine))
        data = torch.from_numpy(np.array(image.data, np.float32, order="C"))
        result = self.preprocessing(MetaTensor(data, affine=affine))
        if not isinstance(result, MetaTensor):
            raise ModelError(f"The preprocessing of {self.name} loses the image's place; use MONAI transforms only.")
        if result.ndim != image.ndim + 1 or result.affine.shape != image.grid.affine.shape:
            raise ModelError(
                f"The preprocessing of {self.name} makes {result.ndim - 1}D images of {image.ndim}D ones, so that maps "
                "would have no place; leave the axes as they are."
            )
        to_image = np.linalg.inv(image.grid.affine) @ result.affine.numpy().astype(float)
        return NetworkInput(result.as_tensor()[None].float(), to_image)

    def check(self, image: Image) -> None:
        """Raise an `InputError` if the image has not the axes or channels that this classifier takes."""
        if image.ndim != self.spatial_dims:
            advice = "choose a slice of it" if image.ndim == 3 else "choose a volume"
            raise InputError(
                f"{self.name} takes {self.spatial_dims}D images and {image.name} is {image.ndim}D; {advice}."
            )
        if self.channels and len(image.data) != self.channels:
            raise InputError(
                f"{self.name} takes images with {self.channels} channel(s) and {image.name} has {len(image.data)}; "
                "choose another image or other axes, or give an image for each channel."
            )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        import torch

        first = next(chain(self.network.parameters(), self.network.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of numbers that the network takes: that of its first weight."""
        import torch

        values = chain(self.network.parameters(), self.network.buffers())
        return next((value.dtype for value in values if value.is_floating_point()), torch.float32)

    def on(self, device: str | torch.device) -> Classifier:
        """The same classifier on a device; a copy of its network, if that is elsewhere."""
        import torch

        from napari_xai_med.models.devices import copy_on

        if self.device == torch.device(device):
            return self
        return replace(self, network=copy_on(self.network, device))

    def chosen_output(self, output: Any) -> Tensor:
        """The output that the classes belong to, in whatever the network returned.

        Raises
        ------
        ModelError
            If it can't be told.
        """
        if self.output is not None:
            if hasattr(output, "shape") and self.output in [each.name for each in self.network_facts.outputs]:
                output = (output,)
            if hasattr(output, "shape"):
                # A single tensor is no list of outputs: indexing it would choose an image.
                raise ModelError(
                    f"The network of {self.name} has a single output; take {self.output!r} out of the bundle."
                )
            try:
                output = output[self._key_of_output(output)]
            except (KeyError, IndexError, TypeError) as error:
                raise ModelError(
                    f"The network of {self.name} has no output {self.output!r}; correct the bundle."
                ) from error
        elif isinstance(output, tuple | list) and len(output) == 1:
            output = output[0]
        if getattr(output, "shape", None) is None:
            names = f" ({', '.join(map(str, output))})" if isinstance(output, dict) else ""
            raise ModelError(
                f"The network of {self.name} has several outputs{names}; name one as 'output' in its metadata.json."
            )
        chosen: Tensor = output
        return chosen

    def _key_of_output(self, outputs: Any) -> str | int | None:
        """The stated output's key; where a network gives a tuple, its file may have names for them."""
        names = [output.name for output in self.network_facts.outputs]
        if isinstance(outputs, tuple | list) and self.output in names:
            return names.index(str(self.output))
        return self.output

    def find_class(self, target: str | int) -> int:
        """Index of the class that a name or an index stands for."""
        if isinstance(target, str) and target in self.class_names:
            return self.class_names.index(target)
        if str(target).isdecimal() and int(target) < len(self.class_names):
            return int(target)
        raise InputError(f"{self.name} has no class {target!r}; choose one of {', '.join(self.class_names)}.")

    @property
    def network_facts(self) -> NetworkFacts:
        """What the network's file says about it; next to nothing for formats that say nothing."""
        facts = getattr(self.network, "facts", None)
        return facts if isinstance(facts, NetworkFacts) else NetworkFacts((), ())

    @cached_property
    def _misplaces(self) -> bool:
        from napari_xai_med.preprocessing.placement import misplaces

        grid = Image.from_array(np.zeros((1,) * self.spatial_dims)).grid
        return misplaces(self.preprocessing, self.channels or 1, grid.affine)

    @cached_property
    def range(self) -> Range:
        """The numbers that the network gave so far, where no ending was found."""
        from napari_xai_med.models.endings import Range

        return Range()

    def at(self, precision: Precision) -> Classifier:
        """The same classifier, of the same network and so with the same layers, computing in a precision."""
        if precision not in self._in_precision:
            self._in_precision[precision] = replace(self, precision=precision)
            vars(self._in_precision[precision])["traces"] = self.traces
        return self._in_precision[precision]

    @cached_property
    def _in_precision(self) -> dict[Precision, Classifier]:
        return {}

    @cached_property
    def rank_correlations(self) -> dict[tuple[object, ...], float]:
        """What was measured of maps in reduced precision; see `napari_xai_med.reduced_precision`."""
        return {}

    @cached_property
    def batch_sizes(self) -> dict[tuple[object, ...], Sizes]:
        """How many images at once are fast, for each kind of input; see `napari_xai_med.models.batch_sizes`."""
        return {}

    @cached_property
    def no_copies(self) -> set[tuple[object, ...]]:
        """Layers behind which the network takes no more copies than it got images, and its input's shape."""
        return set()

    @cached_property
    def traces(self) -> dict[tuple[int, ...], Trace]:
        """What is known of the network by now, for each shape of an input that was asked about."""
        return {}

    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        """Every layer whose output is a feature map, in the order of execution.

        Parameters
        ----------
        input_shape : tuple of int
            (C, *spatial) of the network's input, as `NetworkInput.tensor` has it behind its batch axis. With a
            sliding window the layers are those of one window, whatever the size of the input.
        """
        return self.trace(input_shape).layers

    def trace(self, input_shape: tuple[int, ...]) -> Trace:
        """The layers, and the attentions of a transformer; see `layers`."""
        from napari_xai_med.models.receptive_field import Trace, trace

        if Gives.LAYERS not in self.gives:
            return Trace((), ())
        if self.windows is not None:
            input_shape = (input_shape[0], *self.windows.roi_size)
        if input_shape not in self.traces:
            self.traces[input_shape] = trace(self.network, input_shape)
        return self.traces[input_shape]
