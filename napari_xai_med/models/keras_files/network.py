"""The networks that come out of Keras files, and what they say about themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models.formats.facts import ENDINGS, NetworkFacts, Output, sizes
from napari_xai_med.models.keras_files import files
from napari_xai_med.models.keras_files.build import FAILURES, Built, build, measure, order_of_calls
from napari_xai_med.models.keras_files.config import read_model
from napari_xai_med.models.keras_files.convert import NotConvertible, channels_are_last, converted
from napari_xai_med.models.keras_files.spec import Model, Ref, take_off_ending


@dataclass(frozen=True)
class _Step:
    """One call of a module: what it takes, and which of that nobody needs afterwards."""

    module: str
    takes: tuple[Ref, ...]
    call: tuple[str, int]
    done: tuple[Ref, ...]


class Graph(nn.Module):
    """Modules called one after the other, each with results of others."""

    def __init__(self, spec: Model, built: Built, last: bool) -> None:
        super().__init__()
        self.inputs, self.outputs = spec.inputs, spec.outputs
        order = list(order_of_calls(spec))
        names = {name: self._add(name, spec, built, last) for name in dict.fromkeys(layer.name for layer, _ in order)}
        needed: set[Ref] = set(spec.outputs)
        steps: list[_Step] = []
        for layer, number in reversed(order):
            takes = tuple(layer.calls[number])
            done = tuple(ref for ref in dict.fromkeys(takes) if ref not in needed)
            needed.update(takes)
            steps.append(_Step(names[layer.name], takes, (layer.name, number), done))
        self.steps = tuple(reversed(steps))

    def _add(self, name: str, spec: Model, built: Built, last: bool) -> str:
        """Make a layer's module known under its name, or one that PyTorch allows; return that."""
        layer = spec.layer(name)
        shapes = [[built.shapes[ref] for ref in call] for call in layer.calls]
        if any([len(s) for s in call] != [len(s) for s in shapes[0]] for call in shapes):
            raise NotConvertible(f"layer {name} takes tensors with different numbers of axes")
        if layer.model is not None:
            module: nn.Module = Graph(layer.model, built.inner[name], last)
        else:
            module = converted(built.layers[name], layer, shapes[0], last)
        allowed = name.replace(".", "_") or "_"
        while hasattr(self, allowed):
            allowed += "_"
        self.add_module(allowed, module)
        return allowed

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs."""
        there: dict[Ref, Tensor] = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            result = self.get_submodule(step.module)(*(there[ref] for ref in step.takes))
            for position, tensor in enumerate(result if isinstance(result, tuple) else (result,)):
                there[(*step.call, position)] = tensor
            for ref in step.done:
                del there[ref]
        return tuple(there[ref] for ref in self.outputs)

    def forward(self, *inputs: Tensor) -> Any:
        """The output, or a tuple of several."""
        outputs = self.run(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs


class KerasNetwork(nn.Module):
    """A network from a Keras file. It takes (N, C, *spatial) and gives logits, several outputs by name.

    Attributes
    ----------
    facts : NetworkFacts
    ending : str
        The sigmoid or softmax that was taken off, if the only output ended in one; else nothing.
    endings : dict of str to str
        The same for every output.
    """

    facts: NetworkFacts
    ending: str
    endings: dict[str, str]

    def describe(self, facts: NetworkFacts, taken_off: list[bool]) -> None:
        """Keep what is known of the network."""
        self.facts = facts
        # An ending that other layers use as well is left on.
        self._left_on = [out.ending in ENDINGS and not off for out, off in zip(facts.outputs, taken_off, strict=True)]
        pairs = zip(facts.outputs, taken_off, strict=True)
        self.endings = {output.name: output.ending if taken else "" for output, taken in pairs}
        self.ending = next(iter(self.endings.values())) if len(self.endings) == 1 else ""

    def check(self, x: Tensor) -> None:
        """Refuse images of another shape than the file says, which only some layers would notice by themselves."""
        wanted, found = self.facts.input_shape, tuple(x.shape[1:])
        if len(found) != len(wanted) or any(n not in (None, m) for n, m in zip(wanted, found, strict=True)):
            raise ModelError(
                f"The network takes images of {sizes(wanted[1:])} with {sizes(wanted[:1])} channel(s), not "
                f"{sizes(found[1:])} with {found[0]}; add Resize or Pad or crop to its preprocessing."
            )

    def named(self, outputs: tuple[Tensor, ...]) -> Any:
        """The only output, or a dict by name."""
        # Under another identity, what an output ends in is not looked for once more.
        pairs = zip(outputs, self._left_on, strict=True)
        outputs = tuple(tensor if left else torch.ops.aten.alias(tensor) for tensor, left in pairs)
        if len(outputs) == 1:
            return outputs[0]
        return {output.name: tensor for output, tensor in zip(self.facts.outputs, outputs, strict=True)}


class ConvertedKeras(Graph, KerasNetwork):
    """A Keras network made of PyTorch's modules, named as Keras' layers."""

    def forward(self, *inputs: Tensor) -> Any:
        """Logits."""
        self.check(inputs[0])
        return self.named(self.run(*inputs))


class WrappedKeras(KerasNetwork):
    """A Keras network that Keras runs: it can be asked and has gradients, but its layers can't be reached."""

    def __init__(self, model: Any, last: bool) -> None:
        super().__init__()
        self.model, self.last = model, last

    def forward(self, x: Tensor) -> Any:
        """Logits."""
        import keras

        self.check(x)
        with keras.device(str(x.device)):
            result = self.model(x.movedim(1, -1) if self.last else x, training=False)
        outputs = tuple(result) if isinstance(result, list | tuple) else (result,)
        return self.named(tuple(out.movedim(-1, 1) if self.last and out.ndim > 2 else out for out in outputs))


def load_keras(path: Path) -> KerasNetwork:
    """Load a network that Keras saved, without running code that its file could bring.

    Parameters
    ----------
    path : Path
        A file of Keras 3, or HDF5 of any version from 1 on; the suffix does not matter.

    Raises
    ------
    ModelError
        If it is damaged, holds code, or is no network that takes images.
    """
    with files.opened(path) as content, _old_versions_named(content.version):
        spec = read_model(content.config, str(path), content.version)
        shape = _input_shape(spec, path)
        limit, last = "", not _all_first(spec)
        measured = measure(spec, content, path)
        endings = [take_off_ending(spec, measured, last, k) for k in range(len(spec.outputs))]
        built = build(spec, content, path)
    network: KerasNetwork
    try:
        last = channels_are_last(spec)
        network = ConvertedKeras(spec, built, last)
    except NotConvertible as error:
        limit = str(error)
        network = WrappedKeras(built.model, last)
    except FAILURES as error:
        raise ModelError(f"The network in {path} can't be converted: {one_line(error)}.") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    facts = NetworkFacts(
        (shape[-1], *shape[:-1]) if last else shape,
        _outputs(spec, built, [ending for ending, _ in endings], last),
        f"Keras {content.version}".strip(),
        limit,
        _notices(spec, content),
    )
    network.describe(facts, [taken and ending in ENDINGS for ending, taken in endings])
    return network.eval()


@contextmanager
def _old_versions_named(version: str) -> Iterator[None]:
    """What is refused in an old file can't be saved again by today's Keras, so that another way is told."""
    try:
        yield
    except ModelError as error:
        if not version.startswith(("1.", "2.")) or version in str(error):
            raise
        way = f"Keras {version} wrote it, and its weights can be loaded as a state dict of a network rebuilt in PyTorch"
        raise type(error)(f"{str(error).removesuffix('.')}; {way}.") from error


def _all_first(spec: Model) -> bool:
    formats = {layer.config.get("data_format") for layer in spec.layers if layer.kind != "Flatten"} - {None}
    return formats == {"channels_first"}


def _input_shape(spec: Model, path: Path) -> tuple[int | None, ...]:
    if len(spec.inputs) != 1:
        raise ModelError(f"The network in {path} takes {len(spec.inputs)} inputs; only one image can be given.")
    shape = tuple(spec.layer(spec.inputs[0][0]).config["shape"])
    if len(shape) not in (3, 4):
        raise ModelError(
            f"The network in {path} takes inputs of shape {shape}; it has to take images with channels, in 2D or 3D."
        )
    return shape


def _outputs(spec: Model, built: Built, endings: list[str], last: bool) -> tuple[Output, ...]:
    outputs: list[Output] = []
    for ref, ending in zip(spec.outputs, endings, strict=True):
        name, shape = ref[0], built.shapes[ref]
        while any(name == other.name for other in outputs):
            name += "_"
        outputs.append(Output(name, shape[-1] if last or len(shape) == 2 else shape[1], ending))
    return tuple(outputs)


def _notices(spec: Model, content: files.Content) -> tuple[str, ...]:
    first = any(layer.config.get("data_format") == "channels_first" for layer in spec.layers)
    if content.version.startswith("1.") and first and not content.backend:
        return (
            "The file does not say whether Theano trained it, which turns kernels round; they are taken as they are. "
            "If the answers look wrong, give the image turned round along every axis.",
        )
    return ()
