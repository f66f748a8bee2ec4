from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import exported_networks
import numpy as np
import pytest
import torch
from helpers import classifier_of
from scipy.stats import entropy
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from napari_xai_med import explain, load_model
from napari_xai_med.cases import case_of
from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.evaluation import panel
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric, missing
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.efficient_randomisation import RANDOM, complexity
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.metrics.parameter_randomisation import seed_of
from napari_xai_med.metrics.similarity_of_maps import MOST, NAMES, moved_copies, similarities
from napari_xai_med.metrics.unrelated import MOVED, Likeness
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.randomised import weight_layers, with_random_weights
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.samples import embedded_classifiers
from napari_xai_med.training.phantoms import make_phantom, make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED


class Weighted(nn.Module):
    """Logits are sums of the pixels, each with a weight of its own."""

    def __init__(self, classes: int = 3, size: int = 24) -> None:
        super().__init__()
        self.head = nn.Linear(size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


class Scaled(nn.Module):
    """Logits are the mean of the image times a weight for each class: maps of input x gradient are the image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True) * self.scale


class Small(nn.Module):
    """A convolutional network for two or three axes."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
        self.features = nn.Sequential(
            convolution(1, 6, 3, padding=1), norm(6), nn.ReLU(), convolution(6, 6, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(2).mean(2))
        return logits


def seeded(kind: type[nn.Module], *arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network = kind(*arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            # Statistics that are not those of a fresh network.
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


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


def state_of(network: nn.Module) -> dict[str, Any]:
    modes = {name: module.training for name, module in network.named_modules()}
    grads = {name: value.requires_grad for name, value in network.named_parameters()}
    return {"modes": modes, "grads": grads, **{k: v.clone() for k, v in network.state_dict().items()}}


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
        for key, value in one.items()
    )


def test_similarities_equal_plain_ones() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 32, 40)).astype(np.float32)
    found = similarities(one, other)
    a, b = (np.abs(each) / np.abs(each).max() for each in (one, other))
    assert found["ssim"] == pytest.approx(structural_similarity(a, b, data_range=1.0), abs=1e-6)
    ranks = [each.ravel().argsort().argsort() for each in (one, other)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    sizes = [each.ravel().argsort().argsort() for each in (a, b)]
    assert found["spearman_absolute"] == pytest.approx(np.corrcoef(*sizes)[0, 1], abs=1e-9)


@pytest.mark.parametrize("shape", [(24, 30), (12, 10, 14), (16, 1, 16), (1, 20, 20)])
def test_a_map_is_like_itself_and_its_opposite_is_not(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert similarities(values, values) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    expected = {"ssim": 1.0, "spearman": -1.0, "spearman_absolute": 1.0, "hog": 1.0}
    assert similarities(values, -3 * values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0 everywhere"), (2.5, "2.5 everywhere"), (np.nan, "576 voxels .* not finite")]
)
def test_why_maps_can_t_be_compared(value: float, words: str) -> None:
    good, bad = picture().data[0], np.full((24, 24), value, np.float32)
    for pair in ((good, bad), (bad, good)):
        for reason in similarities(*pair).values():
            assert isinstance(reason, str)
            assert re.search(words, reason)


def test_small_maps_have_no_structure_but_ranks() -> None:
    one, other = np.random.default_rng(0).random((2, 2, 9), np.float32)
    found = similarities(one, other)
    assert isinstance(found["ssim"], str)
    assert isinstance(found["hog"], str)
    assert isinstance(found["spearman"], float)


def test_only_what_is_known_counts() -> None:
    one = picture(32).data[0]
    inside = np.zeros((32, 32), bool)
    inside[8:24, 8:24] = True
    # Nothing that is outside is looked at, not even where it is not finite.
    other = np.where(inside, one, np.nan)
    assert similarities(one, other, inside) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert isinstance(similarities(one, other)["ssim"], str)
    assert isinstance(similarities(one, other, ~inside & inside)["ssim"], str)


def test_large_maps_are_thinned() -> None:
    large = np.random.default_rng(0).random((128, 96, 64), np.float32)
    assert large.size > MOST
    assert similarities(large, large)["spearman"] == pytest.approx(1.0)


def test_moved_copies_keep_values_and_lose_the_place() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1, 30)).astype(np.float32)
    for copy in moved_copies(values, 5, 3):
        np.testing.assert_array_equal(np.sort(copy, axis=None), np.sort(values, axis=None))
        assert abs(similarities(values, copy)["spearman"]) < 0.2
    again = zip(moved_copies(values, 5, 3), moved_copies(values, 5, 3), strict=True)
    assert all(np.array_equal(a, b) for a, b in again)


def test_smooth_maps_that_have_nothing_in_common_pass_as_often_as_they_should() -> None:
    """Of maps that are unrelated, 5 of 100 are beyond the limit; of 200, 18 at most with a chance of 99 %."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    beyond = 0
    for k in range(200):
        one, other = (gaussian_filter(random.normal(size=(32, 32)), 4, mode="wrap") for _ in range(2))
        likeness = Likeness(one.astype(np.float32), [other.astype(np.float32)], k)
        beyond += likeness.correlation > likeness.limit
    assert 3 <= beyond <= 18


def networks(tmp_path: Path) -> dict[str, nn.Module]:
    network = exported_networks.small()
    path = exported_networks.export(network, tmp_path / "n.pt2", (2, 1, 16, 16, 16))
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv3d(1, 2, 3)), nn.Flatten(2))
    with torch.inference_mode():
        constant = exported_networks.Small()
    return {
        "module": network,
        "export": exported_networks.load(path),
        "script": torch.jit.script(exported_networks.small()),
        "trace": torch.jit.trace(exported_networks.small(), torch.rand(1, 1, 16, 16, 16)),
        "half": exported_networks.small().half(),
        "parametrised": normed,
        "inference": constant,
    }


def onnx_network(tmp_path: Path) -> nn.Module:
    pytest.importorskip("onnxruntime", reason="ONNX files are run with it")
    from napari_xai_med.models.formats.onnx import Onnx

    options: dict[str, Any] = {"dynamo": False, "verbose": False}
    torch.onnx.export(exported_networks.small(), (torch.rand(1, 1, 16, 16, 16),), tmp_path / "n.onnx", **options)
    return Onnx().load(tmp_path / "n.onnx", nn.Identity)


def keras_network(tmp_path: Path) -> nn.Module:
    import keras_networks

    return keras_networks.load_keras(keras_networks.saved(keras_networks.small(), tmp_path / "n.keras"))


FORMS = ("module", "export", "script", "trace", "half", "parametrised", "inference", "onnx", "keras")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("form", FORMS)
def test_copies_forget_and_the_network_does_not(form: str, tmp_path: Path) -> None:
    others = {"onnx": onnx_network, "keras": keras_network}
    network = others[form](tmp_path) if form in others else networks(tmp_path)[form]
    classifier, before, random = classifier_of(network, 3), state_of(network), torch.random.get_rng_state()
    layers = weight_layers(network)
    first, again = (with_random_weights(classifier, layers, 4).network.state_dict() for _ in range(2))
    second = with_random_weights(classifier, layers, 5).network.state_dict()
    assert same_state(state_of(network), before)
    assert torch.equal(torch.random.get_rng_state(), random)
    matrices = [key for key, value in first.items() if sum(n > 1 for n in value.shape) > 1]
    assert matrices
    for key, value in first.items():
        assert value.isfinite().all()
        assert torch.equal(value, again[key])
        if key in matrices:
            assert not torch.equal(value, before[key])
            assert not torch.equal(value, second[key])


def test_statistics_of_images_are_forgotten() -> None:
    network = seeded(Small)
    classifier = classifier_of(network, 2, 3)
    norm = with_random_weights(classifier, weight_layers(network), 0).network.get_submodule("features.1")
    assert torch.equal(norm.running_mean, torch.zeros(6))
    assert torch.equal(norm.running_var, torch.ones(6))


def test_each_layer_is_drawn_by_itself() -> None:
    network = seeded(Small)
    classifier, layers = classifier_of(network, 2, 3), weight_layers(network)
    assert [layer.name for layer in layers] == ["features.0", "features.1", "features.3", "head"]
    whole = with_random_weights(classifier, layers, 1).network.state_dict()
    part = with_random_weights(classifier, layers[-1:], 1).network.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(part[key], whole[key] if key.startswith("head") else value)


def test_weights_that_are_out_of_reach_are_told() -> None:
    frozen = torch.jit.freeze(torch.jit.script(exported_networks.small()))
    with pytest.raises(ModelError, match="out of reach and can't be made random; load it from another format"):
        with_random_weights(classifier_of(frozen, 3), (), 0)

    class Stubborn(Small):
        def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
            return self

    network = seeded(Stubborn).eval()
    before = state_of(network)
    with pytest.raises(ModelError, match="shares its weights"):
        with_random_weights(classifier_of(network, 2, 3), weight_layers(network), 0)
    assert same_state(state_of(network), before)


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
def test_methods_are_told_apart_on_the_embedded_classifier(method: str, passes: tuple[int, int]) -> None:
    """Grad-CAM passes for 19 of these 20 images and guided backpropagation for none; see the documentation."""
    classifier = load_model(str(embedded_classifiers()["chest_ct_2d"]))
    good = 0
    for seed in range(20):
        phantom = make_slice(HELD_OUT_SEED + seed, "ground_glass")
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
    assert not outcome.verdicts


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
    case = asked("gradcam", seeded(Small))
    assert "parameter_randomisation" in [metric.name for metric in panel(case)]


def test_volumes_of_the_embedded_classifier_can_be_checked() -> None:
    classifier: Classifier = load_model(str(embedded_classifiers()["chest_ct_3d"]))
    phantom = make_phantom(HELD_OUT_SEED, "ground_glass")
    image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
    case = case_of(explain(image, classifier, "gradcam", target="ground glass"), image=image, classifier=classifier)
    outcome = measure(case, "parameter_randomisation", mode="all", draws=1)
    assert np.isfinite(list(numbers(outcome).values())).all()
    assert np.isfinite(list(numbers(outcome, MOVED).values())).all()
