from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import classifier_of
from PIL import Image as Picture
from torch import nn

from napari_xai_med import Image, load_model, maximise
from napari_xai_med.activation_maximisation import cost, draw
from napari_xai_med.cli import main
from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.job import Job
from napari_xai_med.maximisation import Maximisation
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.steps import Orientation, Window

SHAPE = (1, 4, 5)


class Linear(nn.Module):
    """Logits are plus and minus w x."""

    def __init__(self, size: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.Parameter(torch.randn(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = (x * self.weights).flatten(1).sum(1)
        return torch.stack([-logit, logit], 1)


def drawn(classifier: Any, target: int = 1, **options: Any) -> Any:
    shape = options.pop("shape", SHAPE)
    return maximise(classifier, target, shape=shape, **{"total_variation": 0.0, "norm_weight": 0.0} | options)


@pytest.mark.parametrize("power", [2.0, 4.0])
@pytest.mark.parametrize("target", [0, 1])
def test_a_linear_network_has_the_optimum_of_the_formula(power: float, target: int) -> None:
    """Of w x - a mean(|x|^p) over n voxels the maximum is at sign(w) (n |w| / (a p))^(1 / (p - 1))."""
    network = Linear()
    found = drawn(
        classifier_of(network, 2), target, norm_weight=20.0, norm_power=power, steps=3000, learning_rate=0.005
    )
    weights = network.weights.detach().numpy() * (2 * target - 1)
    expected = np.sign(weights) * (weights.size * np.abs(weights) / (20 * power)) ** (1 / (power - 1))
    np.testing.assert_allclose(found.image.data, expected, atol=0.02)
    assert found.score_after == pytest.approx(float((weights * found.image.data).sum()), rel=1e-4)


def test_the_cost_by_hand() -> None:
    values = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]])
    # Lengths of (down, right): (4, 3), (-3, 0), (0, -4), (0, 0).
    assert float(cost(values, Maximisation(total_variation=2.0, norm_weight=0.0))) == pytest.approx(
        2 * 12 / 4, rel=1e-4
    )
    only_norm = Maximisation(total_variation=0.0, norm_weight=3.0, norm_power=2.0)
    assert float(cost(values, only_norm)) == pytest.approx(3 * 25 / 4)


def test_total_variation_makes_it_smoother() -> None:
    classifier = classifier_of(Linear((1, 8, 8)), 2)
    found = [drawn(classifier, shape=(1, 8, 8), norm_weight=50.0, total_variation=w).image.data for w in (0.0, 50.0)]
    rough, smooth = (float(np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=2)).mean()) for x in found)
    assert smooth < 0.5 * rough


@pytest.mark.parametrize("model", ["chest_ct_3d", "chest_ct_2d"])
def test_embedded_classifiers_are_sure_of_what_they_draw_of_each_class(model: str) -> None:
    classifier = load_model(model, device="cpu")
    steps = 60 if classifier.spatial_dims == 3 else 200
    for name in classifier.class_names:
        found = maximise(classifier, name, steps=steps, quantity="log_odds")
        assert found.probabilities[name] > 0.99
        assert found.score_after > found.score_before
        assert found.image.data.min() >= 0
        assert found.image.data.max() <= 1
        assert name in found.sentence
        assert "no patient" in found.sentence


def test_equal_seeds_give_equal_bits() -> None:
    classifier = load_model("chest_ct_2d", device="cpu")
    first, second, other = (maximise(classifier, 0, steps=5, seed=seed).image.data for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_callers_may_have_switched_gradients_off(switched_off: Any) -> None:
    classifier = classifier_of(Linear(), 2)
    with switched_off():
        found = drawn(classifier, steps=3)
    np.testing.assert_array_equal(found.image.data, drawn(classifier, steps=3).image.data)


def test_values_leave_the_range_only_if_that_is_allowed() -> None:
    classifier = load_model("chest_ct_2d", device="cpu")
    free = maximise(classifier, 2, steps=40, norm_weight=0.0, clamp=False).image.data
    assert free.max() > 1


@pytest.mark.parametrize("start", ["zero", "image", "noise"])
def test_it_starts_where_it_is_told_to_and_lies_on_the_image(start: str) -> None:
    """One step of Adam moves each voxel by the learning rate, with the sign of the gradient."""
    network = Linear()
    image = Image.from_array(np.random.default_rng(0).random(SHAPE[1:]), (3, 2))
    classifier = classifier_of(network, 2)
    options = Maximisation(steps=1, learning_rate=0.1, total_variation=0.0, norm_weight=0.0, start=start)
    found = draw(classifier, 1, options, Job(), image=image)
    begun = found.image.data - 0.1 * np.sign(network.weights.detach().numpy())
    if start == "noise":
        expected = 0.1 * torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(0))[0]
    else:
        expected = {"zero": np.zeros(SHAPE), "image": image.data}[start]
    np.testing.assert_allclose(begun, expected, atol=1e-5)
    np.testing.assert_array_equal(found.image.grid.affine, image.grid.affine)


def test_another_preprocessing_makes_another_start() -> None:
    network, image = Linear(), Image.from_array(np.random.default_rng(0).random(SHAPE[1:]))
    how = {"steps": 1, "learning_rate": 0.1, "total_variation": 0.0, "norm_weight": 0.0, "start": "image"}
    steps = [Window(a_min=0, a_max=2)]
    found = maximise(classifier_of(network, 2), 1, image=image, preprocessing=steps, **how)
    begun = found.image.data - 0.1 * np.sign(network.weights.detach().numpy())
    np.testing.assert_allclose(begun, image.data / 2, atol=1e-5)


@pytest.mark.parametrize(("steps", "codes"), [((Orientation(axcodes="LPS"),), "LPS"), ((), "RAS")])
def test_without_an_image_it_lies_as_the_network_sees_patients(steps: Any, codes: str) -> None:
    classifier = classifier_of(Linear((1, 4, 5, 6)), 3).with_steps(steps)
    found = drawn(classifier, shape=(1, 4, 5, 6), steps=1)
    assert nibabel.aff2axcodes(found.image.grid.affine) == tuple(codes)


def test_a_network_of_windows_draws_one_window() -> None:
    windows = SlidingWindow.from_dict({"roi_size": SHAPE[1:], "aggregate": "mean"})
    found = maximise(classifier_of(Linear(), 2, windows=windows), 1, image=np.zeros((20, 20)), steps=2)
    assert found.image.data.shape == SHAPE


@pytest.mark.parametrize("stops", [True, False])
def test_the_network_is_left_as_it_came(stops: bool) -> None:
    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return stops and self.asked > 30

    classifier = load_model("chest_ct_2d", device="cpu")
    network = classifier.network.train()
    modes = [m.training for m in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    needs = [p.requires_grad for p in network.parameters()]
    random = torch.get_rng_state()
    told: list[float] = []
    if stops:
        with pytest.raises(Cancelled):
            maximise(classifier, 1, steps=20, cancel=Token())
    else:
        maximise(classifier, 1, steps=3, progress=lambda done, _: told.append(done))
        assert told == sorted(told)
        assert told[-1] == 1
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == needs
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("changes", "options", "error", "sentence"),
    [
        ({}, {"shape": ()}, InputError, "does not say how large its input is"),
        ({}, {"shape": (4, 5)}, InputError, r"can't draw in the shape \(4, 5\)"),
        ({}, {"start": "image"}, InputError, "Give an image to start from"),
        ({}, {"steps": 0}, InputError, "steps 0"),
        ({}, {"target": "cat"}, InputError, "no class 'cat'"),
        ({"gives": frozenset({Gives.LAYERS})}, {}, ModelError, "gives no gradients"),
    ],
)
def test_what_can_not_be_is_one_sentence(changes: Any, options: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        drawn(classifier_of(Linear(), 2, **changes), **options)


def test_gradients_that_are_not_finite_are_told() -> None:
    class Root(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward((x * 0).sqrt() + x)

    with pytest.raises(ModelError, match="not finite at step 1"):
        drawn(classifier_of(Root(), 2))


def test_files_tell_that_it_is_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["maximise", "--model", "chest_ct_3d", "--target", "normal", "--steps", "4", "--seed", "7"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "and no patient" in out
    (values,) = tmp_path.glob("*.nii.gz")
    told = json.loads(next(tmp_path.glob("*.json")).read_text())
    again = maximise("chest_ct_3d", "normal", steps=4, seed=7, device="cpu")
    np.testing.assert_array_equal(nibabel.load(values).get_fdata(), again.image.data[0])
    assert told["method"]["seed"] == 7
    assert told["result"]["logit_after"] == pytest.approx(again.score_after)
    assert "no patient" in told["what"]
    assert Picture.open(next(tmp_path.glob("*.png"))).size[0] > 800
    assert main(["maximise", "--target", "x"]) == 2
    assert "Give --model" in capsys.readouterr().err
