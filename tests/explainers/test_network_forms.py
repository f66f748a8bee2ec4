"""The same network written in other ways has the same maps, by every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import small_case
from exported_networks import export, load
from helpers import FEW_MASKED, maps_of, segments_of
from torch import Tensor, nn
from torch.nn import functional

from napari_xai_med import classifier_from_module
from napari_xai_med.explainers.base import explainers, make_explainer
from napari_xai_med.explainers.transformers import AttentionExplainer, TokenGradCAM
from napari_xai_med.options import option_fields

NAMES = [name for name, kind in explainers().items() if not issubclass(kind, AttentionExplainer | TokenGradCAM)]


class Plain(nn.Module):
    """Convolutions with a residual sum, a mean over space and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.last = nn.Conv3d(4, 4, 3, padding=1)
        self.one, self.two = nn.ReLU(), nn.ReLU()
        self.dropout, self.head = nn.Dropout(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(self.norm(self.first(x)))
        return self.end(self.two(self.last(y) + y))

    def end(self, y: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(y).mean((2, 3, 4)))
        return logits


class InPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm(self.first(x)))
        z = self.last(y)
        z += y
        return self.end(functional.relu(z, inplace=True))


class Functional(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        return self.end(functional.relu(self.last(y) + y))


class Shared(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = self.one(self.norm(self.first(x)))
        return self.end(self.one(self.last(y) + y))


class Named(Plain):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # that is the point
        return {"features": self.first(x), "logits": super().forward(x)}


class Mixed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


def trained(build: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    network = build()
    state = Plain()
    state.train()(torch.randn(8, 1, 9, 8, 10))
    network.load_state_dict(state.state_dict())
    return network


def frozen() -> nn.Module:
    return trained(Plain).requires_grad_(False)


def inference() -> nn.Module:
    with torch.inference_mode():
        return trained(Plain)


def half() -> nn.Module:
    return trained(Plain).bfloat16()


FORMS: dict[str, Callable[[], nn.Module]] = {
    "in place": lambda: trained(InPlace),
    "functional": lambda: trained(Functional),
    "shared": lambda: trained(Shared),
    "named": lambda: trained(Named),
    "frozen": frozen,
    "inference": inference,
    "parallel": lambda: nn.DataParallel(trained(Plain)),
    "training": lambda: trained(Plain).train(),
    "mixed": lambda: trained(Mixed),
    "half": half,
}


def values(name: str, network: nn.Module) -> np.ndarray:
    classifier = classifier_from_module(network, ("a", "b", "c"))
    if isinstance(network, Named):
        classifier = replace(classifier, output="logits")
    x = torch.randn(1, 1, 9, 8, 10, generator=torch.Generator().manual_seed(1))
    own = {item.name: item.default for item in option_fields(explainers()[name])}
    quick: dict[str, Any] = {"steps": 4, "noise_samples": 3, "window": 4.0, "stride": 3.0, **FEW_MASKED, "samples": 40}
    # What follows the last sum is no module in all forms.
    quick |= {"layers": ("last",)} if name != "cam" and "layers" in own else {}
    explainer = make_explainer(name, {key: value for key, value in quick.items() if key in own})
    if name == "cam":
        explainer = make_explainer(name, {"layers": ("dropout",)})
    segments = segments_of(x, 9) if explainer.uses_segments else ()
    (raw,), _ = maps_of(explainer, classifier, x, [(0, 1)], spacing=(1.0, 1.0, 1.0), segments=segments)
    return raw.values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_network_in_another_form_has_the_same_map(name: str, form: str) -> None:
    expected, found = values(name, trained(Plain)), values(name, FORMS[form]())
    assert expected.any()
    top = np.abs(expected).max()
    if form in ("mixed", "half"):
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.97
        return
    np.testing.assert_allclose(found, expected, atol=1e-5 * top)


@pytest.mark.parametrize("name", explainers())
def test_several_images_in_a_network_from_a_file_that_takes_one(name: str, tmp_path: Path) -> None:
    classifier, inputs = small_case(name, "2d softmax")
    program = load(export(classifier.network.eval(), tmp_path / "one.pt2", (1, *inputs.shape[1:])))
    assert program.batch == 1
    from_file = replace(classifier, network=program.eval())
    quick: dict[str, Any] = {"steps": 4, "noise_samples": 3, "window": 6.0, "stride": 4.0, **FEW_MASKED, "samples": 40}
    own = [item.name for item in option_fields(explainers()[name])]
    explainer = make_explainer(name, {key: value for key, value in quick.items() if key in own})
    targets: list[tuple[int, int | None]] = [(2, 0), (0, 1), (2, None)]
    segments = segments_of(inputs, 9) if explainer.uses_segments else ()
    found, expected = (
        maps_of(explainer, each, inputs, targets, segments=segments)[0] for each in (from_file, classifier)
    )
    assert any(raw.values.any() for raw in expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.to_input, other.to_input)
        np.testing.assert_allclose(one.values, other.values, atol=1e-4 * max(np.abs(other.values).max(), 1e-6))
