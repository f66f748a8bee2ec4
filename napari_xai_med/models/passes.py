"""Passes through a classifier's network, which leave it as it came and can be stopped on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from napari_xai_med.errors import ModelError, XAIMedError, one_line
from napari_xai_med.job import Job
from napari_xai_med.models.devices import is_lacking, is_out_of_memory
from napari_xai_med.models.endings import Ended, Endings, settings_of
from napari_xai_med.models.size_guard import guarded
from napari_xai_med.models.untouched import constant_weights, is_scripted, restart_random, untouched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_xai_med.models.classifier import Classifier

Hook = Callable[["Tensor"], "Tensor"]

_MOST_REPORTS = 25
"""Modules of a network before which it is asked whether to go on."""


_RUNNING = "Running the network"


class Pass(Protocol):
    """One pass through a network."""

    def __call__(self, inputs: Tensor, job: Job, hooks: dict[str, Hook] | None = None) -> Ended:
        """What the network says, and what its output was before its ending.

        Parameters
        ----------
        inputs : Tensor, shape (N, C, *spatial)
            On the classifier's device and of its type. Some networks change their input in place.
        job : Job
            Asked all along the network whether to go on.
        hooks : dict of str to callable, optional
            Layer names, and what replaces the output of that layer at each of its uses.
        """


@contextmanager
def passes(classifier: Classifier) -> Iterator[Pass]:
    """Make a network ready for many passes, of which none knows of another: random numbers and buffers start anew.

    Getting ready takes a millisecond or two, as long as a pass through a small network.
    """
    network = classifier.network
    now, farthest = Job(), 0.0

    def come_to(share: float) -> None:
        """Modules that are used again don't let the progress go back."""
        nonlocal farthest
        farthest = max(farthest, share)
        now.step(farthest, _RUNNING)

    with (
        untouched(network) as modules,
        _reporting(modules, come_to),
        constant_weights(modules) as restore,
        classifier.precision.context(classifier.device),
    ):
        scripted, settings = is_scripted(modules), settings_of(modules)

        def run(inputs: Tensor, job: Job, hooks: dict[str, Hook] | None = None) -> Ended:
            nonlocal now, farthest
            now, farthest = job, 0.0
            # Before any hook: what is cancelled here must not leave them behind.
            come_to(0.0)
            # So that a network which samples in eval mode answers the same way twice.
            restart_random()
            endings, shape = Endings(), tuple(inputs.shape)
            with (
                guarded(network, shape, always=scripted),
                replacing(modules, hooks or {}, endings),
                endings.watching(network, settings, shape),
            ):
                try:
                    output = _output(classifier, inputs)
                finally:
                    restore()
            # Some networks say what was taken off each of their outputs.
            endings_of: dict[Any, str] = getattr(network, "endings", {})
            stated = endings_of.get(classifier.output, getattr(network, "ending", ""))
            return (Ended.without(output, stated) if stated else endings.end_of(output)).in_float()

        yield run


def _output(classifier: Classifier, inputs: Tensor) -> Tensor:
    """The network's output, or why there is none, in one sentence."""
    shape = tuple(inputs.shape)
    try:
        output = classifier.network(inputs)
    except XAIMedError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_lacking(error, classifier.device):
            raise
        # A network that a file describes fails in any way that its operators can.
        raise ModelError(f"{classifier.name} can't take an input of shape {shape}: {one_line(error)}.") from error
    output = classifier.chosen_output(output)
    if shape[0] == 1 and output.ndim < 2:
        # A network that squeezes what it gives also takes away the axis of the only image.
        output = output.reshape(1, -1)
    return output


@contextmanager
def _reporting(modules: Mapping[str, nn.Module], done: Callable[[float], None]) -> Iterator[None]:
    """Tell which share of a network's modules, in their order, a pass has come to."""
    leaves = [] if is_scripted(modules) else [module for module in modules.values() if not module._modules]
    # Hooks at each of hundreds of modules would take longer than some of them.
    leaves = leaves[:: 1 + len(leaves) // _MOST_REPORTS]
    count = len(leaves) + 1
    handles = [
        module.register_forward_pre_hook(lambda *_, share=k / count: done(share)) for k, module in enumerate(leaves, 1)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replacing(
    modules: Mapping[str, nn.Module], hooks: dict[str, Hook], endings: Endings | None = None
) -> Iterator[None]:
    """Let hooks replace the outputs of modules, and tell `endings` of it."""

    def replaced(output: Tensor, hook: Hook) -> Tensor:
        return hook(output) if endings is None else endings.replace(output, hook(output))

    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, hook=hook: replaced(output, hook))
        for name, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
