from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from napari_xai_med.errors import InputError
from napari_xai_med.models.architectures import Architecture, architectures, build
from napari_xai_med.models.receptive_field import default_layer, trace_layers

DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"

CASES = [
    pytest.param(
        entry,
        {"spatial_dims": dims} if len(entry.spatial_dims) > 1 else {},
        id=f"{name}-{dims}d",
    )
    for name, entry in architectures().items()
    for dims in entry.spatial_dims
]

# Small networks of every family, or small inputs of large ones, which real numbers go through.
SMALL: dict[str, dict[str, Any]] = {
    "densenet121": {"spatial_dims": 3},
    "resnet10": {"spatial_dims": 3, "in_channels": 2, "shortcut_type": "A", "conv1_t_stride": 2},
    "seresnet50": {"spatial_dims": 2, "num_classes": 3},
    "efficientnet_b0": {"spatial_dims": 2, "in_channels": 3},
    "vit": {"image_size": [32, 48, 32], "hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4},
    "swin": {"spatial_dims": 2, "feature_size": 12, "num_heads": [3, 3, 3, 3]},
    "ct_cnn_17": {},
    "pneumonia_separable": {"image_size": [32, 48]},
    "brain_tumor_first": {"image_size": [20, 30]},
    "brain_tumor_final": {"image_size": [30, 37]},
    "histopathology_3_7": {"image_size": [40, 32], "units": [16, 14, 12, 10, 9, 8]},
    "abdominal_lesion_a": {"image_size": [32, 32]},
    "abdominal_lesion_b": {"image_size": [32, 32], "units": []},
    "synthetic_anomaly": {"image_size": [64, 64], "filters": [8, 8, 8, 8], "channels_last": False},
}

# Spatial shapes for those of them whose input may have any.
SHAPES = {
    "densenet121": (32, 32, 32),
    "resnet10": (32, 32, 32),
    "ct_cnn_17": (48, 47, 50),
    "seresnet50": (64, 64),
    "efficientnet_b0": (64, 64),
    "swin": (64, 64),
}


def keras_parameters(network: nn.Module) -> int:
    """Parameters as Keras counts them: with the moving statistics of BatchNorm."""
    statistics = [value for name, value in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sum(value.numel() for value in (*network.parameters(), *statistics))


def without_data(entry: Architecture, **options: Any) -> nn.Module:
    """A network whose weights take no memory, so that the largest ones are tested too."""
    if entry.name == "swin":
        # Its constructor reads numbers out of tensors.
        return entry.build(**options).eval().to("meta")
    with torch.device("meta"):
        return entry.build(**options).eval()


def architectures_table() -> str:
    """The table of docs/architectures.md."""
    rows = ["| name | network | dims | default input | layout | paper |", "|---|---|---|---|---|---|"]
    for name, entry in architectures().items():
        choices = [{"spatial_dims": dims} if len(entry.spatial_dims) > 1 else {} for dims in entry.spatial_dims]
        shapes = " or ".join(" x ".join(map(str, entry.input_shape(**choice))) for choice in choices)
        dims = ", ".join(f"{dims}D" for dims in entry.spatial_dims)
        rows.append(f"| `{name}` | {entry.title} | {dims} | {shapes} | {entry.layout} | {entry.paper} |")
    return "\n".join(rows) + "\n"


def test_the_documented_table_is_the_registry() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{architectures_table()}"), (
        "put what architectures_table() returns at the end of docs/architectures.md"
    )


@pytest.mark.parametrize(("entry", "options"), CASES)
def test_every_architecture_takes_its_default_input(entry: Architecture, options: dict[str, Any]) -> None:
    network = without_data(entry, **options)
    logits = network(torch.empty(1, *entry.input_shape(**options), device="meta"))
    assert logits.shape == (1, entry.chosen(**options).num_classes)


@pytest.mark.parametrize(("entry", "options"), CASES)
def test_every_convolution_can_be_followed(entry: Architecture, options: dict[str, Any]) -> None:
    layers = trace_layers(without_data(entry, **options), entry.input_shape(**options))
    spatial = [layer for layer in layers if layer.is_convolution and max(layer.shape) > 1]
    assert spatial
    assert all(layer.receptive_field.followed for layer in spatial)
    assert default_layer(layers) in spatial


@pytest.mark.parametrize("name", SMALL)
def test_weights_go_out_and_in(name: str) -> None:
    entry, options = architectures()[name], SMALL[name]
    shape = (entry.chosen(**options).in_channels, *SHAPES.get(name, entry.input_shape(**options)[1:]))
    torch.manual_seed(0)
    one, other = (entry.build(**options).eval() for _ in range(2))
    image = torch.rand(2, *shape)
    with torch.inference_mode():
        expected = one(image)
        assert expected.shape == (2, entry.chosen(**options).num_classes)
        assert not torch.equal(other(image), expected)
        other.load_state_dict(one.state_dict())
        torch.testing.assert_close(other(image), expected, rtol=0, atol=0)


# The last number is no published one: Keras counts it for the published layout.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ct_cnn_17", 1_352_897),
        ("brain_tumor_first", 720_897),
        ("brain_tumor_final", 3_040_577),
        ("pneumonia_separable", 104_197_506),
    ],
)
def test_parameter_counts_are_those_of_the_works(name: str, count: int) -> None:
    assert keras_parameters(without_data(architectures()[name])) == count


def test_every_published_network_is_small_here_too() -> None:
    published = {name for name, entry in architectures().items() if entry.layout != "as in MONAI"}
    assert published <= set(SMALL)


def test_histopathology_has_three_convolutions_and_seven_dense_layers() -> None:
    modules = list(without_data(architectures()["histopathology_3_7"]).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == 3
    assert sum(isinstance(module, nn.Linear) for module in modules) == 7


def test_flatten_orders_as_keras_does() -> None:
    keras, torch_order = (build("brain_tumor_first", image_size=(4, 5), channels_last=flag) for flag in (True, False))
    state = keras.state_dict()
    # In Keras' order a row is (Y, X, C); the same weights in PyTorch's order are (C, Y, X).
    state["classifier.0.weight"] = state["classifier.0.weight"].view(1, 4, 5, 32).permute(0, 3, 1, 2).reshape(1, -1)
    torch_order.load_state_dict(state)
    image = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(torch_order(image), keras(image))


def test_same_pooling_of_an_odd_size_keeps_the_end_and_begins_at_the_start() -> None:
    layers = trace_layers(without_data(architectures()["brain_tumor_final"]), (3, 150, 150))
    assert [layer.shape[0] for layer in layers if layer.kind == "MaxPool2d"] == [75, 38, 19]
    # Each 2x2 window begins at an even index: the centres are 0.5, 1.5 and 3.5.
    assert [layer.receptive_field.start[0] for layer in layers if layer.kind == "MaxPool2d"] == [0.5, 1.5, 3.5]


def test_batch_norm_is_that_of_keras() -> None:
    for name in ("ct_cnn_17", "pneumonia_separable"):
        modules = without_data(architectures()[name]).modules()
        norms = [m for m in modules if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        assert len(norms) == 4
        assert {m.eps for m in norms} == {1e-3}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("densenet", {}, r"^There is no architecture 'densenet'; choose one of densenet121, .*\.$"),
        ("densenet121", {"depth": 3}, "DenseNet-121 has no option 'depth'; it has dropout_prob, in_channels, "),
        ("ct_cnn_17", {"spatial_dims": 2}, "has no option 'spatial_dims'"),
        ("resnet18", {"spatial_dims": 4}, "ResNet-18 can't have spatial_dims 4; choose one of 2, 3."),
        ("resnet18", {"shortcut_type": "C"}, "choose one of 'A', 'B'"),
        ("resnet18", {"num_classes": 0}, "ResNet-18 can't have num_classes 0; give it a whole number from 1."),
        ("resnet18", {"num_classes": True}, "can't have num_classes True"),
        ("resnet18", {"bias_downsample": 1}, "give it true or false"),
        ("densenet121", {"dropout_prob": 1.5}, "give it a number from 0 to 1."),
        ("brain_tumor_final", {"image_size": [150]}, "needs 2 numbers as image_size, not 1."),
        ("brain_tumor_final", {"image_size": [150, 0]}, "a list of numbers from 1"),
        ("abdominal_lesion_b", {"image_size": [9, 9]}, "an image of 9x9 is too small for its poolings."),
        ("pneumonia_separable", {"image_size": [224, 15]}, "an image of 224x15 is too small for its poolings."),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(name, **options)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text
