from __future__ import annotations

from pathlib import Path
from typing import Any

import exported_networks
import pytest
import torch
from forgetful_networks import Small, same_state, seeded, state_of
from helpers import classifier_of
from torch import nn

from napari_xai_med.errors import ModelError
from napari_xai_med.models.randomised import weight_layers, with_random_weights


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
