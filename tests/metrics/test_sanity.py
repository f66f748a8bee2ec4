from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from forgetful_networks import Scaled, Small, Weighted, same_state, seeded, state_of
from helpers import classifier_of
from scipy.stats import entropy
from torch import Tensor, nn

from napari_xai_med import explain, load_model
from napari_xai_med.cases import case_of
from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.evaluation import panel
from napari_xai_med.figures_metrics import draw_plot
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric, missing
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.efficient_randomisation import RANDOM, complexity
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.metrics.parameter_randomisation import seed_of
from napari_xai_med.metrics.similarity_of_maps import NAMES, similarities
from napari_xai_med.metrics.unrelated import MOVED
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.randomised import weight_layers, with_random_weights
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.samples import embedded_classifiers
from napari_xai_med.training.phantoms import Phantom, make_phantom, make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED


def picture(size: int = 24, seed: int = 0) -> Image:
    return Image.from_array(np.random.default_rng(seed).random((size, size), np.float32) + 0.5)


def asked(method: str, network: nn.Module, image: Image | None = None, **options: Any) -> Case:
    changes = {key: options.pop(key) for key in ("head", "windows", "classes", "dims") if key in options}
    classifier = classifier_of(network, changes.pop("dims", 2), changes.pop("classes", 3), **changes)
    image = image or picture()
    return case_of(explain(image, classifier, method, target="class 1", **options), image=image, classifier=classifier)


def measure(case: Case, name: str, job: Job | None = None, **options: Any) -> Outcome:
    return make_metric(name, options).measure(case, job or Job())


def numbers(outcome: Outcome, subject: str = EXPLANATION, at: str = "") -> dict[str, float]:
    return {each.name: each.value for each in outcome.scores if each.subject == subject and at in each.at}


def test_a_map_made_of_the_weights_passes() -> None:
    outcome = measure(asked("saliency", seeded(Weighted)), "parameter_randomisation")
    assert abs(numbers(outcome)["spearman"]) < 0.1
    assert outcome.verdicts[0].good
    assert "it depends on what the network learnt" in outcome.verdicts[0].sentence


def test_a_map_made_of_the_image_fails() -> None:
    """Whatever the weight, the contributions to the mean of the image are ranked as the image is, or the other way."""
    outcome = measure(asked("integrated_gradients", seeded(Scaled), classes=2), "parameter_randomisation", mode="all")
    found = numbers(outcome)
    assert found["spearman_absolute"] == pytest.approx(1.0, abs=1e-3)
    assert found["ssim"] == pytest.approx(1.0, abs=1e-3)
    sentence = outcome.verdicts[-1].sentence if outcome.verdicts[0].good else outcome.verdicts[0].sentence
    assert "stays alike (rank correlation 1.00" in sentence
    assert "it does not depend on what the network learnt" in sentence


@pytest.mark.slow
@pytest.mark.parametrize(("method", "passes"), [("gradcam", (18, 20)), ("guided_backpropagation", (0, 0))])
@pytest.mark.parametrize(("model", "make"), [("chest_ct_2d", make_slice), ("chest_ct_3d", make_phantom)])
def test_methods_are_told_apart_on_the_embedded_classifiers(
    model: str, make: Callable[[int, str], Phantom], method: str, passes: tuple[int, int]
) -> None:
    """Grad-CAM passes for 18 of these 20 images, and guided backpropagation for none; not all, by chance."""
    classifier = load_model(str(embedded_classifiers()[model]))
    good = 0
    for seed in range(20):
        phantom = make(HELD_OUT_SEED + seed, "ground_glass")
        image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
        attribution = explain(image, classifier, method, target="ground glass")
        case = case_of(attribution, image=image, classifier=classifier, seed=seed)
        good += bool(measure(case, "parameter_randomisation").verdicts[0].good)
    assert passes[0] <= good <= passes[1]


@pytest.mark.parametrize("mode", ["all", "top_down", "bottom_up", "independent"])
def test_modes_make_the_layers_random_that_they_name(mode: str) -> None:
    case = asked("gradcam", seeded(Small))
    outcome = measure(case, "parameter_randomisation", mode=mode, stages=4, draws=1)
    named = {each.at or each.of: each.value for each in outcome.scores if each.subject == EXPLANATION}
    layers = weight_layers(case.asked.classifier.network)
    expected = {
        "all": {"all layers": layers},
        "top_down": {f"last {k} of 4 layers": layers[-k:] for k in (1, 2, 3, 4)},
        "bottom_up": {f"first {k} of 4 layers": layers[:k] for k in (1, 2, 3, 4)},
        "independent": {layer.name: (layer,) for layer in layers},
    }[mode]
    assert named.keys() == expected.keys()
    for name, chosen in expected.items():
        classifier = with_random_weights(case.asked.classifier, chosen, seed_of(0, 0))
        other = case.asked.again(Job(), classifier=classifier)
        hog = similarities(case.values, other)["hog"]
        assert named[name] == pytest.approx(hog, nan_ok=True) if not isinstance(hog, str) else np.isnan(named[name])
    assert bool(outcome.verdicts) == (mode != "independent")


def test_each_similarity_has_a_panel_with_the_map_and_its_control() -> None:
    outcome = measure(asked("saliency", seeded(Small)), "parameter_randomisation", stages=2, draws=1)
    stages = list(dict.fromkeys(score.at for score in outcome.scores))
    figure = draw_plot(outcome.plots[0], paper="#101010", ink="#f0f0f0")
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == list(NAMES)
    for ax in figure.axes:
        for line, subject in zip(ax.get_lines(), (EXPLANATION, MOVED), strict=True):
            values = [numbers(outcome, subject, at)[ax.get_title()] for at in stages]
            np.testing.assert_array_equal(line.get_ydata(), values)
    # One legend, which neither the lines nor the title lie below.
    (inner,) = figure.subfigs
    (legend,) = inner.legends
    assert [text.get_text() for text in legend.get_texts()] == ["the map", f"the map {MOVED}"]
    for text in legend.get_texts():
        box = text.get_window_extent()
        assert not any(box.overlaps(each.get_window_extent()) for each in (*figure.axes, *figure.texts))
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert [f"last {tick} of {ticks[-1]} layers" for tick in ticks] == stages
    assert inner.get_supxlabel() == f"random layers: the last ones of {ticks[-1]}"


def test_smoothing_explains_noisy_copies() -> None:
    case = asked("saliency", seeded(Small))
    plain = measure(case, "parameter_randomisation", mode="all")
    smooth = measure(case, "parameter_randomisation", mode="all", smoothing=3)
    again = measure(case, "parameter_randomisation", mode="all", smoothing=3)
    assert numbers(plain) != numbers(smooth)
    assert numbers(smooth) == numbers(again)


def test_complexity_is_the_entropy_of_the_histogram() -> None:
    values = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    sizes = np.abs(values.astype(np.float64))
    place = np.minimum((sizes - sizes.min()) / np.ptp(sizes) * 100, 99).astype(int)
    shares = np.bincount(place.ravel(), minlength=100) / values.size
    shares = shares[shares > 0]
    assert complexity(values, 100) == pytest.approx(-(shares * np.log(shares)).sum())
    assert complexity(values, 100) == pytest.approx(entropy(np.histogram(np.abs(3 * values), 100)[0]))


def test_a_map_in_one_place_becomes_more_complex() -> None:
    network = seeded(Weighted)
    with torch.no_grad():
        network.head.weight[:, 5:] *= 0.01
    outcome = measure(asked("saliency", network), "efficient_randomisation")
    own, random = numbers(outcome)["complexity"], numbers(outcome, RANDOM)["complexity"]
    assert random > 3 * own
    assert numbers(outcome)["rise"] == pytest.approx((random - own) / own)
    assert outcome.verdicts[0].good


def test_other_classes_have_other_maps_where_their_weights_are_others() -> None:
    outcome = measure(asked("saliency", seeded(Weighted)), "random_logit")
    assert {each.of for each in outcome.scores} == {"class 0", "class 2"}
    assert outcome.verdicts[0].good
    network = seeded(Weighted)
    with torch.no_grad():
        network.head.weight[:] = network.head.weight[:1]
    outcome = measure(asked("saliency", network), "random_logit")
    assert numbers(outcome) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert "it does not tell the classes apart" in outcome.verdicts[0].sentence


def test_one_logit_and_one_class_are_told() -> None:
    one = asked("integrated_gradients", seeded(Weighted, 1), head=Head.ONE_LOGIT, classes=2)
    outcome = measure(one, "random_logit")
    assert numbers(outcome)["spearman"] == pytest.approx(-1)
    assert "one logit" in outcome.notices[0]
    against = asked("integrated_gradients", seeded(Weighted, 2), classes=2, against="class 0")
    assert "no other class" in measure(against, "random_logit").scores[0].reason


def second_case(names: tuple[str, ...]) -> Case:
    case = asked("saliency", seeded(Weighted))
    torch.manual_seed(1)
    second = classifier_of(Weighted(len(names)), 2, len(names), class_names=names)
    values = {"second": second, "asked": case.asked, "intensities": case.intensities}
    return Case(case.values, case.grid, **values)


@pytest.mark.parametrize("names", [("class 0", "class 1", "class 2"), ("a", "b", "c"), ("class 1", "x")])
def test_a_second_classifier_is_asked_about_the_same_class(names: tuple[str, ...]) -> None:
    case = second_case(names)
    outcome = measure(case, "label_randomisation")
    index = names.index("class 1") if "class 1" in names else 1
    weights = case.second.network.head.weight[index].abs().detach().numpy().reshape(24, 24)
    assert numbers(outcome)["spearman"] == pytest.approx(similarities(case.values, weights)["spearman"])
    assert outcome.verdicts[0].good


def test_a_second_classifier_of_other_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no class 'class 1'; give a second classifier of the same classes\."):
        measure(second_case(("a", "b")), "label_randomisation")
    assert "a second classifier" in missing(
        type(make_metric("label_randomisation", {})), asked("saliency", seeded(Weighted))
    )


SANITY = ("parameter_randomisation", "efficient_randomisation", "random_logit")


@pytest.mark.parametrize("metric", SANITY)
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_maps_of_which_nothing_can_be_said(metric: str, value: float) -> None:
    case = asked("saliency", seeded(Small))
    case = Case(np.full_like(case.values, value), case.grid, asked=case.asked, intensities=case.intensities)
    outcome = measure(case, metric)
    assert all(np.isnan(each.value) and each.reason for each in outcome.scores)
    assert outcome.verdicts
    assert all(each.good is None and outcome.scores[0].reason in each.sentence for each in outcome.verdicts)


def test_networks_that_say_nothing_when_random_are_told() -> None:
    """Without its statistics this network's ReLU lets nothing through: all maps are zero."""

    class Silent(Small):
        def forward(self, x: Tensor) -> Tensor:
            y = self.features[1](self.features[0](x))
            return (
                super().forward(x) + 0 * y.mean()
                if bool(self.features[1].running_mean.any())
                else 0 * super().forward(x)
            )

    outcome = measure(asked("saliency", seeded(Silent)), "parameter_randomisation", mode="all")
    assert all(np.isnan(each.value) for each in outcome.scores)
    assert "In 2 of 2 random networks the map was the same everywhere" in outcome.notices[0]
    assert outcome.verdicts[0].good is None
    (verdict,) = measure(asked("saliency", seeded(Silent)), "efficient_randomisation").verdicts
    assert (verdict.good, "With random weights the map is the same everywhere" in verdict.sentence) == (None, True)


@pytest.mark.parametrize("metric", SANITY)
@pytest.mark.parametrize("kind", ["3d", "slice", "windows", "lime", "shapley", "rise"])
def test_every_kind_of_question(metric: str, kind: str) -> None:
    volume = Image.from_array(np.random.default_rng(0).random((16, 14, 12), np.float32), (2.0, 1.0, 1.0))
    few: dict[str, dict[str, Any]] = {
        "lime": {"samples": 60, "segments": {"method": "grid", "number": 9}},
        "shapley": {"evaluations": 40, "segments": {"method": "grid", "number": 9}},
        "rise": {"masks": 24},
    }
    if kind == "3d":
        case = asked("gradcam", seeded(Small, 3), volume, dims=3)
    elif kind == "slice":
        case = asked("saliency", seeded(Small), volume, plane="coronal", slice=5)
    elif kind == "windows":
        case = asked("saliency", seeded(Small), windows=SlidingWindow((16, 16), Aggregate.MEAN))
    else:
        case = asked(kind, seeded(Small), **few[kind])
    before = state_of(case.asked.classifier.network)
    told: list[float] = []
    options = {} if metric == "random_logit" else {"draws": 2}
    first = measure(case, metric, Job(lambda share, _: told.append(share)), **options)
    second = measure(case, metric, **options)
    assert told == sorted(told)
    assert [each.value for each in first.scores] == pytest.approx(
        [each.value for each in second.scores], nan_ok=True, abs=0
    )
    assert np.isfinite([each.value for each in first.scores]).any()
    assert same_state(state_of(case.asked.classifier.network), before)


class After:
    """Stops the work when it was asked so many times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("metric", SANITY)
def test_the_network_stays_as_it_is_when_the_work_stops(metric: str) -> None:
    case = asked("gradcam", seeded(Small))
    network = case.asked.classifier.network
    before = state_of(network)
    for count in (0, 1, 5, 12):
        with pytest.raises(Cancelled):
            measure(case, metric, Job(cancel=After(count)))
        assert same_state(state_of(network), before)
    case.asked.classifier.network.head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ModelError):
        measure(case, metric)
    assert same_state(state_of(network), before)


def test_one_sanity_check_is_in_the_panel() -> None:
    assert "parameter_randomisation" in [metric.name for metric in panel()]


def test_volumes_of_the_embedded_classifier_can_be_checked() -> None:
    classifier: Classifier = load_model(str(embedded_classifiers()["chest_ct_3d"]))
    phantom = make_phantom(HELD_OUT_SEED, "ground_glass")
    image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
    case = case_of(explain(image, classifier, "gradcam", target="ground glass"), image=image, classifier=classifier)
    outcome = measure(case, "parameter_randomisation", mode="all", draws=1)
    assert np.isfinite(list(numbers(outcome).values())).all()
    assert np.isfinite(list(numbers(outcome, MOVED).values())).all()
