"""Run a classifier's network: what it says about its input, and where it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_xai_med.errors import ModelError
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput, Prediction
from napari_xai_med.models.endings import Ended
from napari_xai_med.models.guards import doubts
from napari_xai_med.models.head import Answer, Head
from napari_xai_med.models.passes import Hook, passes, replacing
from napari_xai_med.models.sliding_window import Aggregate
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.models.untouched import constant_weights, is_scripted, untouched

if TYPE_CHECKING:
    from torch import Tensor


def forward(classifier: Classifier, inputs: Tensor, job: Job, hooks: dict[str, Hook] | None = None) -> Answer:
    """One pass through the network.

    Weights take part as constants: no gradient is kept for them, nor for anything that does not come
    after a tensor which a hook marks as requiring one.

    Parameters
    ----------
    classifier : Classifier
    inputs : Tensor, shape (N, C, *spatial)
        On any device; they are brought to the network's.
    job : Job
        Asked all along the network whether to go on.
    hooks : dict of str to callable, optional
        Layer names, and what replaces the output of that layer at each of its uses.

    Returns
    -------
    Answer

    Raises
    ------
    ModelError
        If the logits are not finite, with the layer where that began; if they do not fit the head; or if a hook
        is at the function that the network ends in or behind it.
    RuntimeError, MemoryError, TypeError
        If the device has not enough memory, or lacks an operator; see `is_out_of_memory` and `is_lacking` in
        `napari_xai_med.models.devices`.
    """
    with answering(classifier) as ask:
        # A copy: some networks change their input in place.
        return ask(inputs.to(classifier.device, classifier.dtype, copy=True), job, hooks)


@contextmanager
def answering(classifier: Classifier) -> Iterator[Callable[..., Answer]]:
    """Many passes through one network, for which it is made ready only once.

    Gives a function like `forward`, of inputs, a job and hooks, to which the inputs belong from then on: some networks
    change them in place.
    """
    with passes(classifier) as run:

        def ask(inputs: Tensor, job: Job, hooks: dict[str, Hook] | None = None) -> Answer:
            end = run(inputs.to(classifier.device, classifier.dtype), job, hooks)
            answer = read(classifier, end, tuple(inputs.shape[1:]), hooks)
            if not bool(answer.logits.isfinite().all()):
                raise ModelError(_not_finite(classifier, inputs))
            return answer

        yield ask


def ended(classifier: Classifier, inputs: Tensor, job: Job, hooks: dict[str, Hook] | None = None) -> Ended:
    """One pass through the network, and what its output was before its ending; see `forward`."""
    with passes(classifier) as run:
        # A copy: some networks change their input in place.
        return run(inputs.to(classifier.device, classifier.dtype, copy=True), job, hooks)


def read(
    classifier: Classifier, end: Ended, input_shape: tuple[int, ...], hooks: dict[str, Hook] | None = None
) -> Answer:
    """What a network's output says by the classifier's head.

    The only place that decides what counts, the output or what it was before its ending.

    Parameters
    ----------
    classifier : Classifier
    end : Ended
    input_shape : tuple of int
        (C, *spatial) of what the network was given.
    hooks : dict of str to callable, optional
        Those that were used.

    Raises
    ------
    ModelError
        See `forward`.
    """
    count = len(classifier.class_names)
    if classifier.head is Head.REGRESSION:
        # A sigmoid here keeps a value in its range: the value is what the network was made to give.
        return classifier.head.answer(end.output, count)
    if end.replaced:
        convolutions = [layer.name for layer in classifier.layers(input_shape) if layer.is_convolution]
        raise ModelError(
            f"Layer {', '.join(hooks or {})} is the {end.ending} that {classifier.name} ends in, or comes behind it; "
            f"choose a layer before it, such as {', '.join(convolutions)}."
        )
    if end.normalised and classifier.windows is not None and classifier.windows.aggregate is not Aggregate.MEAN:
        # The mean alone leaves what was added to all logits of a window out of the probabilities.
        raise ModelError(
            f"The network of {classifier.name} gives each window's probabilities and not its logits, of which "
            f"{classifier.windows.aggregate} needs to compare those of all windows; export it with torch.export or "
            "without its softmax, or choose the aggregate mean."
        )
    answer = classifier.head.answer(end.logits, count, end.ending)
    if not (end.ending or end.elsewhere):
        classifier.range.note(end.logits)
    return replace(answer, notices=(*end.notices(classifier.name), *classifier.range.notices(classifier.name)))


def _not_finite(classifier: Classifier, inputs: Tensor) -> str:
    """A sentence with the first layer whose output is not finite."""
    if not bool(inputs.isfinite().all()):
        return f"The preprocessing of {classifier.name} gives values that are not finite; check it."
    first: list[str] = []

    def watch(name: str) -> Hook:
        def look(output: Tensor) -> Tensor:
            if not first and isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
                first.append(name)
            return output

        return look

    network = classifier.network
    modules = dict(network.named_modules())
    if is_scripted(modules):
        return f"{classifier.name} gives values that are not finite for this image; check its weights."
    leaves = {name: watch(name) for name, module in modules.items() if name and not module._modules}
    with (
        torch.no_grad(),
        untouched(network),
        replacing(modules, leaves),
        constant_weights(modules),
        classifier.precision.context(classifier.device),
    ):
        network(inputs.to(classifier.device, classifier.dtype, copy=True))
    where = f", first in layer {first[0]}" if first else ""
    return f"{classifier.name} gives values that are not finite for this image{where}; check its weights."


def gradient_sentence(classifier: Classifier, inputs: Tensor, targets: Sequence[tuple[int, AnyTarget]]) -> str:
    """What to say of gradients that are not finite: on the way back, the first layer whose output has such a one.

    Parameters
    ----------
    classifier : Classifier
    inputs : Tensor, shape (N, C, *spatial)
    targets : sequence of (int, Target)
        Rows, and what the gradients are of.
    """
    first: list[str] = []

    def watching(name: str) -> Hook:
        def check(gradient: Tensor) -> None:
            if not first and not bool(gradient.isfinite().all()):
                first.append(name)

        def watch(output: Tensor) -> Tensor:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                output.register_hook(check)
            return output

        return watch

    modules = dict(classifier.network.named_modules())
    names = [] if is_scripted(modules) else [name for name in modules if name]
    with torch.enable_grad():
        start = inputs.detach().clone().requires_grad_()
        answer = forward(classifier, start, Job(), {name: watching(name) for name in names})
        torch.autograd.grad(torch.stack([target.of(answer)[row] for row, target in targets]).sum(), start)
    where = f", first at layer {first[0]}" if first else ""
    return f"The gradient of {classifier.name} is not finite for this image{where}; choose a method without gradients."


def predict(image: Image, classifier: Classifier, job: Job | None = None) -> Prediction:
    """Ask a classifier about an image; see `napari_xai_med.predict`."""
    # Imported here: the windows need this file to run the network on each of them.
    from napari_xai_med.windows import answer_of

    job = job or Job()
    job.step(0.0, "Preprocessing")
    network_input = classifier.prepare(image)
    with torch.no_grad():
        answer, told = answer_of(classifier, network_input.tensor, job.part(0.3, 1.0))
    notices = (*image.notices, *doubts(classifier, image, network_input), *told)
    return prediction_from(classifier, network_input, answer, notices)


def prediction_from(
    classifier: Classifier, network_input: NetworkInput, answer: Answer, notices: tuple[str, ...]
) -> Prediction:
    """The prediction that the first row of an answer stands for."""
    return Prediction(
        logits=answer.logits[0].detach().cpu().double().numpy(),
        probabilities=answer.probabilities[0].detach().cpu().double().numpy(),
        class_names=classifier.class_names,
        top=int(answer.top[0]),
        network_input=network_input,
        quantity=classifier.head.quantity,
        ending=answer.ending,
        notices=notices,
    )
