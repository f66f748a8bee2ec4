"""What every registered method has to do, on small networks of every head, in 2D and 3D."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import NETWORKS, SHAPES, SMALL, fitting, real_case, small_case
from helpers import FEW_MASKED, classifier_of, maps_of, segments_of
from torch import Tensor, nn

from napari_xai_med.errors import Cancelled, ModelError
from napari_xai_med.explainers.base import Explainer, RawMap, explainers, make_explainer
from napari_xai_med.explainers.layer_maps import LayerExplainer
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput
from napari_xai_med.on_image import on_image
from napari_xai_med.options import option_fields, shared_options, values_of

OF_LAYERS = [name for name, kind in explainers().items() if issubclass(kind, LayerExplainer)]
# Token Grad-CAM is for other networks.
OF_CONVOLUTIONS = [name for name in OF_LAYERS if name != "token_gradcam"]
_NORMALISING = nn.BatchNorm2d | nn.BatchNorm3d | nn.LayerNorm
TARGETS: list[tuple[int, int | None]] = [(0, 1), (1, 0), (2, None), (0, 0)]


def made(name: str, **options: Any) -> Explainer:
    """A method in batches so small that there are several, and with few passes through large networks."""
    own = [item.name for item in option_fields(explainers()[name])]
    small = {"batch_size": 5, "channels": 4 if "layers" not in options else 0, **FEW_MASKED, "samples": 40}
    return make_explainer(name, {key: value for key, value in small.items() if key in own} | options)


def explained(
    name: str, classifier: Classifier, inputs: Tensor, targets: list[tuple[int, int | None]], job: Job | None = None
) -> list[RawMap]:
    spacing = (1.0,) * (inputs.ndim - 2)
    segments = segments_of(inputs, 9) if explainers()[name].uses_segments else ()
    return maps_of(made(name), classifier, inputs, targets, job, spacing=spacing, segments=segments)[0]


def close(ours: RawMap, theirs: RawMap) -> None:
    np.testing.assert_array_equal(ours.to_input, theirs.to_input)
    top = max(float(np.abs(theirs.values).max()), 1e-12)
    # Occlusion is a difference of answers of about 1, which float32 rounds at 1e-7.
    np.testing.assert_allclose(ours.values, theirs.values, atol=max(1e-5 * top, 1e-7), rtol=1e-5)


@pytest.mark.parametrize("name", explainers())
def test_every_method_says_what_it_is(name: str) -> None:
    kind = explainers()[name]
    assert kind.title
    assert kind.paper
    assert "References\n" in (kind.__doc__ or "")
    assert kind.caution == "" or kind.caution.endswith(".")
    assert all(item.metadata["text"].endswith(".") for item in option_fields(kind))


@pytest.mark.parametrize("name", explainers())
def test_presets_are_options_that_the_method_can_have(name: str) -> None:
    for preset in explainers()[name].presets.values():
        assert values_of(make_explainer(name, preset)).items() >= preset.items()


@pytest.mark.parametrize("name", explainers())
def test_what_one_method_shares_with_another_is_what_that_can_have(name: str) -> None:
    values = values_of(make_explainer(name, {}))
    for other, kind in explainers().items():
        shared = shared_options(kind, values)
        assert values_of(make_explainer(other, shared)).items() >= shared.items()
        assert other != name or shared == values


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("name", explainers())
def test_maps_are_finite_and_each_that_of_its_own_row_and_class(name: str, case: str) -> None:
    classifier, inputs = small_case(name, case)
    before = inputs.clone()
    together = explained(name, classifier, inputs, TARGETS)
    assert torch.equal(inputs, before)
    assert any(raw.values.any() for raw in together)
    for (row, target), raw in zip(TARGETS, together, strict=True):
        assert raw.values.dtype == np.float32
        assert raw.values.ndim == inputs.ndim - 2
        assert np.isfinite(raw.values).all()
        assert explainers()[name].signed or raw.values.min() >= 0
        # The last cell of the method's grid is one of the input's voxels.
        last = (raw.to_input @ (*(np.array(raw.values.shape) - 1), 1))[:-1]
        assert (last >= 0).all()
        assert (last <= np.array(inputs.shape[2:]) - 1).all()
        (alone,) = explained(name, classifier, inputs[row : row + 1], [(0, target)])
        close(raw, alone)


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("name", OF_CONVOLUTIONS)
def test_on_real_networks_a_batch_of_mixed_classes_equals_single_images(name: str, case: str) -> None:
    classifier, inputs = real_case(case)
    inputs, targets = inputs[:2], TARGETS[:2]
    for (row, target), ours in zip(targets, explained(name, classifier, inputs, targets), strict=True):
        close(ours, explained(name, classifier, inputs[row : row + 1], [(0, target)])[0])


@pytest.mark.parametrize("case", ["2d softmax", "3d one logit"])
@pytest.mark.parametrize("name", OF_LAYERS)
def test_several_layers_are_the_mean_of_each_by_its_maximum_or_one_by_one(name: str, case: str) -> None:
    # CAM explains what is pooled only.
    others = {"cam": ("features.5", "features.6"), "token_gradcam": ("inner.blocks.0.norm1", "inner.blocks.1.norm1")}
    layers = others.get(name, ("features.2", "features.5"))
    classifier, inputs = small_case(name, case)
    (mean,), _ = maps_of(made(name, layers=layers), classifier, inputs, [(1, 1)])
    assert [told["layer"] for told in mean.facts["layers"]] == list(layers)
    each = made(name, layers=layers, separate=True).each()
    alone = [maps_of(one, classifier, inputs, [(1, 1)])[0][0] for one in each]
    assert [raw.facts["layer"] for raw in alone] == list(layers)
    shape = tuple(inputs.shape[2:])
    placed = [on_image(raw, NetworkInput(inputs, np.eye(len(shape) + 1)), shape) for raw in alone]
    tops = [np.abs(raw.values).max() for raw in alone]
    assert all(tops)
    expected = sum(values / top for values, top in zip(placed, tops, strict=True)) / 2
    np.testing.assert_allclose(mean.values, expected, atol=1e-5)


@pytest.mark.parametrize("name", explainers())
def test_equal_seeds_give_equal_bits(name: str) -> None:
    classifier, inputs = small_case(name, "3d softmax")
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # what a method must not use
        random.seed(seed)
        runs.append(explained(name, classifier, inputs, TARGETS))
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.values, second.values)
        assert first.facts == second.facts


class Failing(nn.Module):
    """A network that fails in the pass for which it is set to."""

    left = 1 << 30

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken on purpose")
        return logits


def state_of(network: nn.Module) -> list[Any]:
    """All that a method must leave as it is: weights, buffers, modes, hooks, and the states of random numbers."""
    values = [*network.named_parameters(), *network.named_buffers()]
    tensors = [
        (name, id(value), value.requires_grad, value.grad, value.detach().numpy().tobytes()) for name, value in values
    ]
    hooks = [
        (key, dict(kept))
        for module in network.modules()
        for key, kept in vars(module).items()
        if "hooks" in key and kept
    ]
    modes = [module.training for module in network.modules()]
    numbers = (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())  # noqa: NPY002
    return [tensors, hooks, modes, numbers, torch.is_grad_enabled(), torch.is_inference_mode_enabled()]


class Counting:
    """Asked whether to stop; says so at the given time."""

    def __init__(self, stop: int = 1 << 30) -> None:
        self.asked, self.stop = 0, stop

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked >= self.stop


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def failing(request: pytest.FixtureRequest, name: str) -> tuple[Failing, Callable[..., Any]]:
    """A network in mixed modes with a weight that is not trained, and what explains it with a method and a job."""
    torch.manual_seed(6)
    network = Failing(fitting(explainers()[name], request.param, 3))
    classifier = classifier_of(network, request.param, 3, channels=2)
    inputs = torch.randn(2, *SHAPES[request.param])
    # Traced before, and the fastest batches found: the passes that are counted are the method's own.
    classifier.layers(tuple(inputs.shape[1:]))
    explained(name, classifier, inputs, [(0, 1), (1, 2)])
    network.train()
    next(module for module in network.modules() if isinstance(module, _NORMALISING)).eval()
    next(network.parameters()).requires_grad_(False)
    return network, lambda job=None: explained(name, classifier, inputs, [(0, 1), (1, 2)], job)


@pytest.mark.parametrize("name", explainers())
def test_the_network_is_left_as_it_came(failing: tuple[Failing, Callable[..., Any]]) -> None:
    network, explain = failing
    before, passes = state_of(network), network.left
    explain()
    passes -= network.left
    assert state_of(network) == before
    assert passes > 0
    for broken in {0, passes // 2, passes - 1}:
        network.left = broken
        with pytest.raises(ModelError, match="broken on purpose"):
            explain()
        assert state_of(network) == before


@pytest.mark.parametrize("name", explainers())
def test_cancelling_stops_at_any_time_and_leaves_the_network_as_it_came(
    failing: tuple[Failing, Callable[..., Any]],
) -> None:
    network, explain = failing
    before, whole = state_of(network), Counting()
    shares: list[float] = []
    explain(Job(lambda share, _: shares.append(share), whole))
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    # At least at each of the network's modules.
    assert whole.asked > len(list(network.inner.children()))
    for stop in {1, whole.asked // 2, whole.asked}:
        token = Counting(stop)
        with pytest.raises(Cancelled):
            explain(Job(cancel=token))
        assert token.asked == stop
        assert state_of(network) == before
