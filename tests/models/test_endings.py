from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # as everybody calls it
from helpers import classifier_of, write_bundle
from torch import Tensor, nn

from napari_xai_med import explain, load_model, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.models.bundle_files import format_of
from napari_xai_med.models.classifier import Prediction
from napari_xai_med.models.formats.torchscript import TorchScript
from napari_xai_med.models.head import Head
from napari_xai_med.models.run import forward
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow

IMAGE = Image(
    np.random.default_rng(0).normal(size=(1, 12, 14)).astype(np.float32) * 3, Image.from_array(np.zeros((12, 14))).grid
)


class Ending(nn.Module):
    """A classifier that does something with its logits at the end."""

    def __init__(self, end: Callable[[Tensor], Tensor] | nn.Module, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, classes)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        # A sigmoid on the way is none at the end.
        return self.end(self.head((maps * maps.sigmoid()).mean((2, 3))))


ENDINGS: dict[str, tuple[Head, str, Callable[[Tensor], Tensor]]] = {
    "sigmoid module": (Head.ONE_LOGIT, "sigmoid", nn.Sigmoid()),
    "torch.sigmoid": (Head.ONE_LOGIT, "sigmoid", torch.sigmoid),
    "F.sigmoid": (Head.ONE_LOGIT, "sigmoid", F.sigmoid),
    "method": (Head.ONE_LOGIT, "sigmoid", Tensor.sigmoid),
    "in place": (Head.ONE_LOGIT, "sigmoid", torch.sigmoid_),
    "squeezed": (Head.ONE_LOGIT, "sigmoid", lambda z: torch.sigmoid(z).squeeze(1)),
    "many sigmoids": (Head.MULTI_LABEL, "sigmoid", nn.Sigmoid()),
    "softmax module": (Head.SOFTMAX, "softmax", nn.Softmax(1)),
    "torch.softmax": (Head.SOFTMAX, "softmax", lambda z: torch.softmax(z, 1)),
    "F.softmax": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z, dim=1)),
    "F.log_softmax": (Head.SOFTMAX, "softmax", lambda z: F.log_softmax(z, dim=1)),
    "keyword": (Head.SOFTMAX, "softmax", lambda z: torch.softmax(input=z, dim=1)),
    "special.expit": (Head.MULTI_LABEL, "sigmoid", torch.special.expit),
    "special.softmax": (Head.SOFTMAX, "softmax", lambda z: torch.special.softmax(z, 1)),
    "log_softmax.exp": (Head.SOFTMAX, "softmax", lambda z: F.log_softmax(z, 1).exp()),
    "softmax.log": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z, 1).log()),
    "cloned": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z, 1).clone().contiguous()),
    "indexed": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z[:, None], 2)[:, 0]),
    "reshaped": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z, 1).view(-1, 3, 1).reshape(-1, 3)),
    "flattened by keyword": (Head.SOFTMAX, "softmax", lambda z: torch.flatten(input=F.softmax(z, 1), start_dim=1)),
    "double and back": (Head.MULTI_LABEL, "sigmoid", lambda z: torch.sigmoid(z.to(torch.float64)).float()),
    "joined": (Head.MULTI_LABEL, "sigmoid", lambda z: torch.cat([z[:, k : k + 1].sigmoid() for k in range(3)], 1)),
    "joined by keyword": (
        Head.MULTI_LABEL,
        "sigmoid",
        lambda z: torch.concat(tensors=[z[:, :2].sigmoid(), z[:, 2:].sigmoid()], dim=1),
    ),
    "stacked": (Head.MULTI_LABEL, "sigmoid", lambda z: torch.stack([z[:, k].sigmoid() for k in range(3)], 1)),
    "images joined": (Head.SOFTMAX, "softmax", lambda z: torch.cat([row[None].softmax(1) for row in z])),
    "clamped": (Head.ONE_LOGIT, "sigmoid", lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6)),
    "clamped in place": (Head.MULTI_LABEL, "sigmoid", lambda z: torch.sigmoid(z).clamp_(1e-6, 1 - 1e-6)),
    "softmax clamped": (Head.SOFTMAX, "softmax", lambda z: z.softmax(1).clip(min=1e-6)),
    "dropout": (Head.SOFTMAX, "softmax", nn.Sequential(nn.Softmax(1), nn.Dropout(0.5))),
    "squeezed wholly": (Head.SOFTMAX, "softmax", lambda z: F.softmax(z, 1).squeeze()),
    "input changed afterwards": (Head.MULTI_LABEL, "sigmoid", lambda z: (z.sigmoid(), z.add_(5))[0]),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_network_is_explained_before_its_last_function(name: str) -> None:
    head, ending, end = ENDINGS[name]
    classes = 2 if head is Head.ONE_LOGIT else 3
    logits = 1 if head is Head.ONE_LOGIT else 3
    plain = classifier_of(Ending(nn.Identity(), logits), 2, classes, head=head)
    ended = classifier_of(Ending(end, logits), 2, classes, head=head)
    expected, found = predict(IMAGE, plain), predict(IMAGE, ended)
    # Where the input is gone, it is told from the output, to single precision.
    close = {"rtol": 1e-5, "atol": 1e-6} if name in ("input changed afterwards", "double and back") else {"rtol": 0}
    np.testing.assert_allclose(found.logits, expected.logits, **close)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, **close)
    assert (expected.ending, found.ending) == ("", ending)
    np.testing.assert_allclose(explain(IMAGE, ended).values, explain(IMAGE, plain).values, **close)
    assert explain(IMAGE, ended).record.model["ends_in"] == ending


@pytest.mark.parametrize("name", ["sigmoid module", "many sigmoids", "softmax module", "F.log_softmax"])
def test_torchscript_gives_the_same_probabilities(name: str, tmp_path: Path) -> None:
    head, ending, end = ENDINGS[name]
    logits = 1 if head is Head.ONE_LOGIT else 3
    names = [f"class {k}" for k in range(2 if head is Head.ONE_LOGIT else 3)]
    bundle = write_bundle(
        tmp_path / "scripted",
        {"preprocessing": {"_target_": "Compose", "transforms": []}},
        names,
        spatial_shape=[12, 14],
        head=str(head),
    )
    network = Ending(end, logits).eval()
    torch.jit.trace(network, torch.zeros(1, 1, 12, 14)).save(bundle / "models" / "model.ts")
    found = predict(IMAGE, load_model(bundle))
    expected = predict(IMAGE, classifier_of(network, 2, len(names), head=head))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.ending == ending


def probabilities_of(end: Callable[[Tensor], Tensor], logits: int, head: Head, **changes: Any) -> Prediction:
    classifier = classifier_of(Ending(end, logits), 2, **{"classes": logits, "head": head} | changes)
    return predict(IMAGE, classifier)


def own_output(end: Callable[[Tensor], Tensor], logits: int) -> np.ndarray:
    with torch.no_grad():
        return Ending(end, logits).eval()(torch.from_numpy(IMAGE.data)[None]).numpy()


def test_what_was_changed_behind_a_sigmoid_does_not_end_in_it() -> None:
    def end(z: Tensor) -> Tensor:
        return torch.sigmoid(z).mul_(9).sub_(4)

    found = probabilities_of(end, 3, Head.SOFTMAX)
    assert found.ending == ""
    np.testing.assert_array_equal(found.logits, own_output(end, 3)[0])


def test_a_sigmoid_of_which_much_is_clamped_keeps_the_networks_probabilities() -> None:
    def end(z: Tensor) -> Tensor:
        return torch.sigmoid(z * 9).clamp(0.4, 0.6)

    found = probabilities_of(end, 3, Head.MULTI_LABEL)
    assert set(found.probabilities.round(6)) & {0.4, 0.6}
    assert (found.ending, found.notices) == ("sigmoid", ())
    np.testing.assert_allclose(found.probabilities, own_output(end, 3)[0], rtol=1e-6)


@pytest.mark.parametrize("end", [torch.sigmoid, lambda z: z.softmax(1), lambda z: z * 3])
def test_a_regression_keeps_its_own_values(end: Callable[[Tensor], Tensor]) -> None:
    found = probabilities_of(end, 3, Head.REGRESSION)
    np.testing.assert_array_equal(found.probabilities, own_output(end, 3)[0])
    assert (found.ending, found.notices) == ("", ())


def test_a_regression_keeps_a_sigmoid_that_was_taken_off_its_file() -> None:
    network = Ending(nn.Identity(), 3)
    network.ending = "sigmoid"
    found = predict(IMAGE, classifier_of(network, 2, 3, head=Head.REGRESSION))
    np.testing.assert_allclose(found.probabilities, own_output(torch.sigmoid, 3)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("end", "head", "told"),
    [
        (torch.sigmoid, Head.SOFTMAX, "ends in sigmoid, which the head softmax does not fit; use one_logit or multi_l"),
        (lambda z: z.softmax(1), Head.MULTI_LABEL, "ends in softmax, which the head multi_label does not fit; use sof"),
    ],
)
def test_a_head_that_does_not_fit_the_ending_is_refused(end: Callable[[Tensor], Tensor], head: Head, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        probabilities_of(end, 3, head)


def test_one_class_of_a_softmax_has_its_own_probability() -> None:
    found = probabilities_of(lambda z: z.softmax(1)[:, 1], 2, Head.ONE_LOGIT)
    np.testing.assert_allclose(found.probabilities[1], own_output(lambda z: z.softmax(1), 2)[0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("end", "head", "told"),
    [
        (lambda z: torch.cat([z[:, :4].softmax(1), z[:, 4:].softmax(1)], 1), Head.SOFTMAX, "not over its classes"),
        (lambda z: z.softmax(0), Head.SOFTMAX, "ends in a softmax that is not over its classes"),
        (lambda z: 1 / (1 + torch.exp(-z)), Head.MULTI_LABEL, "lie between 0 and 1, as if it ended in a sigmoid"),
        (lambda z: z.exp() / z.exp().sum(1, keepdim=True), Head.SOFTMAX, "sum to 1, as if it ended in a softmax"),
        (lambda z: z.softmax(1).softmax(1), Head.SOFTMAX, "ends in a softmax of what is a probability already"),
        (lambda z: z.log_softmax(1).softmax(1), Head.SOFTMAX, ""),
    ],
)
def test_what_may_be_an_ending_is_told(end: Callable[[Tensor], Tensor], head: Head, told: str) -> None:
    for result in (
        probabilities_of(end, 9, head),
        explain(IMAGE, classifier_of(Ending(end, 9), 2, 9, head=head)),
    ):
        # A map of zeros is told as well.
        notices = [sentence for sentence in result.notices if "Grad-CAM" not in sentence]
        assert told in " ".join(notices)
        assert len(notices) == bool(told)


def test_few_outputs_between_0_and_1_are_no_evidence_until_there_are_many() -> None:
    classifier = classifier_of(nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1)), 2, head=Head.ONE_LOGIT)
    with torch.no_grad():
        classifier.network[0].weight.fill_(1)
        classifier.network[0].bias.zero_()
    images = [Image.from_array(np.array([[k / 10, k / 10 + 0.05]], np.float32)) for k in range(9)]
    notices = [predict(image, classifier).notices for image in (*images, images[0])]
    assert [len(told) for told in notices] == [0] * 7 + [1] * 3
    assert predict(Image.from_array(np.array([[4.0, 5.0]])), classifier).notices == ()


class Several(Ending):
    """Several outputs, one of which ends in something."""

    def __init__(self, kind: str) -> None:
        super().__init__(nn.Identity(), 3)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        if self.kind == "tuple":
            return logits.mean(), F.softmax(logits, dim=1)
        if self.kind == "dict":
            return {"classes": F.softmax(logits, dim=1), "plain": logits}
        return F.log_softmax(logits, dim=1).exp().squeeze()


@pytest.mark.parametrize(("kind", "output"), [("tuple", 1), ("dict", "classes"), ("squeezed", None)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_output_of_torchscript_tells_its_ending(kind: str, output: str | int | None, tmp_path: Path) -> None:
    network = Several(kind).eval()
    torch.jit.trace(network, torch.zeros(1, 1, 12, 14), strict=False).save(tmp_path / "model.ts")
    loaded = TorchScript().load(tmp_path / "model.ts", nn.Identity)
    found = predict(IMAGE, classifier_of(loaded, 2, 3, output=output))
    np.testing.assert_allclose(found.probabilities, own_output(lambda z: z.softmax(1), 3)[0], rtol=1e-5)
    assert found.ending == "softmax"
    if kind == "dict":
        assert predict(IMAGE, classifier_of(loaded, 2, 3, output="plain")).ending == ""


@pytest.mark.parametrize("suffix", [".ts", ".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda z: z.softmax(1).clone().unsqueeze(2).flatten(1), "softmax"),
        (lambda z: z.log_softmax(1).exp(), "softmax"),
        (lambda z: F.dropout(z.softmax(1), training=False), "softmax"),
        (lambda z: torch.cat([z[:, k : k + 1].sigmoid() for k in range(3)], 1), "sigmoid"),
        (lambda z: torch.stack([z[:, k].sigmoid() for k in range(3)], 1), "sigmoid"),
        (lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6), "sigmoid"),
        (lambda z: z.softmax(0), ""),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_files_tell_their_ending_however_they_are_written(
    end: Callable[[Tensor], Tensor], expected: str, suffix: str, tmp_path: Path
) -> None:
    network, example, path = Ending(end, 3).eval(), torch.rand(1, 1, 12, 14), tmp_path / f"net{suffix}"
    if suffix == ".ts":
        torch.jit.trace(network, example).save(path)
    elif suffix == ".pt2":
        torch.export.save(torch.export.export(network, (example,)), path)
    else:
        pytest.importorskip("onnx")
        torch.onnx.export(network, (example,), path, dynamo=False)
    head = Head.of(3, expected)
    found = predict(IMAGE, classifier_of(format_of(path)().load(path, nn.Identity), 2, 3, head=head))
    assert found.ending == expected
    if expected:
        np.testing.assert_allclose(found.probabilities, own_output(end, 3)[0], rtol=1e-4)
    else:
        # Over one image each is sure of everything.
        np.testing.assert_allclose(found.logits, 1)
        assert "ends in a softmax that is not over its classes" in " ".join(found.notices)


@pytest.mark.parametrize("aggregate", Aggregate)
@pytest.mark.parametrize("end", [F.softmax, F.log_softmax])
def test_windows_of_a_scripted_softmax_answer_as_the_network_or_not_at_all(
    end: Callable[..., Tensor], aggregate: Aggregate, tmp_path: Path
) -> None:
    network = Ending(lambda z: end(z, dim=1), 3).eval()
    torch.jit.trace(network, torch.zeros(1, 1, 6, 7)).save(tmp_path / "model.ts")
    scripted = TorchScript().load(tmp_path / "model.ts", nn.Identity)
    windows = SlidingWindow((6, 7), aggregate, overlap=0)
    plain, other = (classifier_of(each, 2, 3, windows=windows) for each in (network, scripted))
    if aggregate is Aggregate.MEAN:
        np.testing.assert_allclose(predict(IMAGE, other).probabilities, predict(IMAGE, plain).probabilities, rtol=1e-4)
        return
    with pytest.raises(ModelError, match=f"{aggregate} needs to compare .* export it with torch.export or without"):
        predict(IMAGE, other)
    # What a sigmoid was given can be told.
    sigmoids = Ending(torch.sigmoid, 3).eval()
    torch.jit.trace(sigmoids, torch.zeros(1, 1, 6, 7)).save(tmp_path / "sigmoids.ts")
    scripted = TorchScript().load(tmp_path / "sigmoids.ts", nn.Identity)
    pair = (classifier_of(each, 2, 3, windows=windows, head=Head.MULTI_LABEL) for each in (sigmoids, scripted))
    expected, found = (predict(IMAGE, each).probabilities for each in pair)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_network_that_gets_an_ending_later_is_watched_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier, x = classifier_of(network, 2, head=Head.MULTI_LABEL), torch.rand(1, 1, 6, 6)
    plain = [forward(classifier, x, Job()) for _ in range(2)]
    assert [answer.ending for answer in plain] == ["", ""]
    network.append(nn.Sigmoid())
    ended = forward(classifier, x, Job())
    assert ended.ending == "sigmoid"
    torch.testing.assert_close(ended.logits, plain[1].logits)


class Switched(nn.Module):
    """Gives probabilities if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.probabilities = nn.Conv2d(1, 2, 3), False

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x).mean((2, 3))
        return logits.sigmoid() if self.probabilities else logits


def test_a_network_that_is_switched_is_watched_again() -> None:
    classifier, x = classifier_of(Switched(), 2, head=Head.MULTI_LABEL), torch.rand(1, 1, 6, 6)
    assert [forward(classifier, x, Job()).ending for _ in range(2)] == ["", ""]
    classifier.network.probabilities = True
    assert forward(classifier, x, Job()).ending == "sigmoid"
