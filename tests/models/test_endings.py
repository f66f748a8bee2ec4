from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # as everybody calls it
from helpers import classifier_of, write_bundle
from torch import Tensor, nn

from napari_xai_med import explain, load_model, predict
from napari_xai_med.image import Image
from napari_xai_med.models.head import Head

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
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_network_is_explained_before_its_last_function(name: str) -> None:
    head, ending, end = ENDINGS[name]
    classes = 2 if head is Head.ONE_LOGIT else 3
    logits = 1 if head is Head.ONE_LOGIT else 3
    plain = classifier_of(Ending(nn.Identity(), logits), 2, classes, head=head)
    ended = classifier_of(Ending(end, logits), 2, classes, head=head)
    expected, found = predict(IMAGE, plain), predict(IMAGE, ended)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert (expected.ending, found.ending) == ("", ending)
    np.testing.assert_array_equal(explain(IMAGE, ended).values, explain(IMAGE, plain).values)
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
    assert found.ending == ("" if name == "F.log_softmax" else ending)
