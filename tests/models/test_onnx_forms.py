"""ONNX files of other forms than PyTorch's exporter writes answer as in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of
from torch import Tensor, nn

from napari_xai_med import Image, explain, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats import onnx as onnx_format
from napari_xai_med.models.formats.onnx import Onnx, OnnxNetwork
from napari_xai_med.models.graphs.program import Program
from napari_xai_med.models.head import Head

onnx = pytest.importorskip("onnx", reason="ONNX files are made and read with it")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX files are run with it")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
node = helper.make_node

# The older of PyTorch's two exporters, which made most of the files that there are, is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def free(rank: int) -> tuple[str, ...]:
    """A shape of which only the number of axes is known."""
    return tuple(f"axis {k}" for k in range(rank))


def weight(name: str, *shape: int, kind: Any = np.float32) -> Any:
    values = np.random.default_rng(len(name)).normal(size=shape)
    return numpy_helper.from_array(np.abs(values).astype(kind), name)


def numbers(name: str, values: Any, kind: Any = np.int64) -> Any:
    return numpy_helper.from_array(np.array(values, kind), name)


def file(
    path: Path,
    nodes: list[Any],
    *weights: Any,
    shape: tuple[Any, ...] = ("n", 1, 8, 8),
    outputs: dict[str, Any] | None = None,
    opset: int = 17,
    kind: int = FLOAT,
) -> Path:
    """A graph from x to its outputs, y by default."""
    ends = [helper.make_tensor_value_info(n, kind, s) for n, s in (outputs or {"y": ("n", 3)}).items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], ends, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def in_onnxruntime(path: Path, images: Tensor, kind: Any = np.float32) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(np.float32(y)) for y in session.run(None, {"x": images.numpy().astype(kind)})]


def load(path: Path) -> Any:
    return Onnx().load(path, nn.Identity)


ROW = [
    node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], name="conv"),
    node("GlobalAveragePool", ["c"], ["p"]),
    node("Flatten", ["p"], ["f"]),
]
KERNEL = weight("k", 3, 1, 3, 3)


# --- Resizing, also at other lengths than those that are tried on loading


def resize(path: Path, opset: int, scales: Any, sizes: Any, **kind: Any) -> Path:
    shape = ("n", 1, *["abc"[k] for k in range(len(scales or sizes))])
    inputs = ["x", "", "s"] if scales else ["x", "", "", "z"]
    weights = [numbers("s", [1, 1, *scales], np.float32) if scales else numbers("z", [1, 1, *sizes])]
    if opset < 11:
        inputs.remove("")
    # The sizes hold for one image at a time.
    shape = shape if scales else (1, *shape[1:])
    return file(
        path,
        [node("Resize", inputs, ["y"], **kind)],
        *weights,
        shape=shape,
        outputs={"y": free(len(shape))},
        opset=opset,
    )


def linear(place: str) -> dict[str, str]:
    return {"mode": "linear", "coordinate_transformation_mode": place}


def nearest(place: str, rounding: str = "floor") -> dict[str, str]:
    return {"mode": "nearest", "coordinate_transformation_mode": place, "nearest_mode": rounding}


@pytest.mark.parametrize(
    ("scales", "sizes"),
    [((2.3, 0.7), None), ((3.0, 2.0), None), (None, (17, 5)), (None, (64, 33)), ((1.5, 0.5, 2.0), None)],
    ids=str,
)
@pytest.mark.parametrize(
    "kind",
    [
        *map(linear, ("half_pixel", "align_corners", "pytorch_half_pixel")),
        nearest("asymmetric"),
        nearest("half_pixel", "round_prefer_ceil"),
        nearest("pytorch_half_pixel", "round_prefer_ceil"),
    ],
    ids=lambda kind: " ".join(kind.values()),
)
def test_resizing_is_that_of_onnxruntime_at_every_length(
    kind: dict[str, str], scales: Any, sizes: Any, tmp_path: Path
) -> None:
    path = resize(tmp_path / "a.onnx", 17, scales, sizes, **kind)
    network = load(path)
    assert isinstance(network, Program)
    for lengths in ((7, 5, 6), (8, 16, 3), (13, 9, 4), (31, 64, 5)):
        images = torch.rand(1, 1, *lengths[: len(scales or sizes)])
        torch.testing.assert_close(network(images), *in_onnxruntime(path, images))


@pytest.mark.parametrize(
    ("opset", "scales", "kind", "converted"),
    [
        (10, (2.0, 3.0), {"mode": "nearest"}, True),
        (10, (0.5, 2.0), {"mode": "nearest"}, False),
        (10, (2.0, 2.0), {"mode": "linear"}, False),
        (13, (2.0, 3.0), nearest("half_pixel", "round_prefer_floor"), True),
        (13, (0.5, 2.0), nearest("half_pixel", "round_prefer_floor"), False),
        (13, (3.0, 2.0), nearest("asymmetric", "round_prefer_floor"), False),
        (13, (2.0, 3.0), linear("asymmetric"), False),
        (13, (2.0, 3.0), linear("half_pixel") | {"mode": "cubic"}, False),
        (18, (0.5, 0.5), linear("half_pixel") | {"antialias": 1}, False),
    ],
)
def test_rare_kinds_of_resizing_are_left_to_onnxruntime(
    opset: int, scales: Any, kind: dict[str, Any], converted: bool, tmp_path: Path
) -> None:
    path = resize(tmp_path / "a.onnx", opset, scales, None, **kind)
    network, images = load(path), torch.rand(1, 1, 12, 9)
    assert isinstance(network, Program if converted else OnnxNetwork)
    torch.testing.assert_close(network(images), *in_onnxruntime(path, images))


def test_a_length_at_which_both_differ_is_refused(tmp_path: Path) -> None:
    """A single voxel has its own rule in ONNX, which only shows with an image of that length."""
    network = load(resize(tmp_path / "a.onnx", 17, (0.125, 1.0), None, **linear("pytorch_half_pixel")))
    image = Image.from_array(np.random.default_rng(0).random((8, 9)))
    with pytest.raises(ModelError, match=r"\(1, 1, 8, 9\): Resize of the kind pytorch_half_pixel to a length of 1\.$"):
        predict(image, classifier_of(network, 2, 2, head=Head.SEGMENTATION))


def test_layers_before_a_resizing_by_scales_have_maps(tmp_path: Path) -> None:
    nodes = [ROW[0], node("Resize", ["c", "", "s"], ["r"], **linear("half_pixel")), node("GlobalMaxPool", ["r"], ["p"])]
    nodes += [node("Flatten", ["p"], ["y"])]
    network = load(file(tmp_path / "a.onnx", nodes, KERNEL, numbers("s", [1, 1, 2.0, 2.0], np.float32)))
    image = Image.from_array(np.random.default_rng(0).random((8, 8)))
    assert explain(image, classifier_of(network, 2, 3), layers="conv").raw.shape == (8, 8)


# --- Files exported in training mode


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop, self.fc = (
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.Linear(4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_training_mode_changes_nothing(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path, images = Trained().train(), tmp_path / "a.onnx", torch.rand(2, 1, 8, 8)
    options: Any = {"dynamo": False, "verbose": False, "input_names": ["x"], "do_constant_folding": False}
    training = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(network, (images,), path, opset_version=opset, training=training, **options)
    expected = network.eval()(images)
    # As it is, the file takes the statistics of the images.
    assert float((in_onnxruntime(path, images)[0] - expected).abs().max()) > 0.1
    converted = load(path)
    assert isinstance(converted, Program)
    torch.testing.assert_close(converted(images), expected)
    model, *_ = onnx_format._read(path)
    runtime = OnnxNetwork(onnx_format._session(model, path), converted.facts, 2)
    torch.testing.assert_close(runtime(images), expected.detach())


def test_statistics_that_are_an_output_are_refused(tmp_path: Path) -> None:
    names = ["scale", "bias", "mean", "variance"]
    nodes = [ROW[0], node("BatchNormalization", ["c", *names], ["y", "m", "v"], training_mode=1, name="bn")]
    path = file(tmp_path / "a.onnx", nodes, KERNEL, *(weight(n, 3) for n in names), outputs={"y": free(4), "m": (3,)})
    with pytest.raises(ModelError, match=r"exported in training mode and gives the statistics of bn; .*eval\(\)\.$"):
        load(path)


# --- Endings


def softmax(axis: int, source: str = "f", made: str = "y") -> Any:
    return node("Softmax", [source], [made], axis=axis)


SHAPE = {"shape": numbers("shape", [-1, 3]), "axes": numbers("axes", [2, 3]), "all": numbers("all", [0, 3, 1, 1])}
ENDINGS = {
    "sigmoid": ([node("Sigmoid", ["f"], ["y"])], "sigmoid", 17),
    "softmax": ([softmax(-1)], "softmax", 17),
    "log": ([node("LogSoftmax", ["f"], ["y"], axis=1)], "softmax", 17),
    "squeeze": ([softmax(1, "p", "s"), node("Squeeze", ["s", "axes"], ["y"])], "softmax", 17),
    "reshape": ([softmax(1, "p", "s"), node("Reshape", ["s", "shape"], ["y"])], "softmax", 17),
    "flatten": ([softmax(1, "p", "s"), node("Flatten", ["s"], ["y"])], "softmax", 17),
    "turned": (
        [node("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]), softmax(3, "t", "s"), node("Flatten", ["s"], ["y"])],
        "softmax",
        17,
    ),
    "there and back": (
        [
            node("Unsqueeze", ["f", "axes"], ["u"]),
            node("Sigmoid", ["u"], ["s"]),
            node("Identity", ["s"], ["i"]),
            node("Cast", ["i"], ["a"], to=FLOAT),
            node("Squeeze", ["a", "axes"], ["y"]),
        ],
        "sigmoid",
        17,
    ),
    "over images": ([softmax(0)], "linear", 17),
    "over space": ([softmax(2, "p", "s"), node("Flatten", ["s"], ["y"])], "linear", 17),
    "used again": ([softmax(1, "f", "s"), node("Mul", ["s", "s"], ["y"])], "linear", 17),
    "twice": ([node("Sigmoid", ["f"], ["s"]), softmax(1, "s")], "softmax", 17),
    "old": ([softmax(1)], "softmax", 11),
    "old, default": ([node("Softmax", ["f"], ["y"])], "softmax", 11),
    "old, one axis is long": ([softmax(1, "p", "s"), node("Flatten", ["s"], ["y"])], "softmax", 11),
    "old, over images": ([softmax(0)], "linear", 11),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_only_an_ending_over_classes_is_taken_off(name: str, tmp_path: Path) -> None:
    tail, ending, opset = ENDINGS[name]
    path = file(tmp_path / "a.onnx", [*ROW, *tail], KERNEL, *SHAPE.values(), opset=opset)
    images = torch.rand(2, 1, 8, 8)
    network, (expected,) = load(path), in_onnxruntime(path, images)
    assert isinstance(network, Program)
    assert [(each.name, each.numbers, each.ending) for each in network.facts.outputs] == [("y", 3, ending)]
    answer = network(images)
    applied = {"softmax": answer.softmax(1), "sigmoid": answer.sigmoid(), "linear": answer}[ending]
    torch.testing.assert_close(applied.log() if name == "log" else applied, expected)
    # Predictions are the file's own probabilities: nothing is applied twice, nor taken off twice.
    head = {"softmax": Head.SOFTMAX, "sigmoid": Head.MULTI_LABEL, "linear": Head.REGRESSION}[ending]
    image = Image.from_array(images[0, 0].numpy())
    (alone,) = in_onnxruntime(path, images[:1])
    prediction = predict(image, classifier_of(network, 2, 3, head=head))
    np.testing.assert_allclose(prediction.probabilities, alone[0].exp() if name == "log" else alone[0], atol=1e-6)


def test_an_old_softmax_over_channels_and_space_is_no_ending(tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", [ROW[0], softmax(1, "c")], KERNEL, outputs={"y": ("n", 3, 8, 8)}, opset=11)
    network, images = load(path), torch.rand(2, 1, 8, 8)
    assert network.ending == ""
    torch.testing.assert_close(network(images), *in_onnxruntime(path, images))


def test_every_output_has_its_own_ending_and_name(tmp_path: Path) -> None:
    nodes = [*ROW, softmax(1, "f", "kind"), node("Sigmoid", ["f"], ["findings"]), node("Identity", ["f"], ["size"])]
    # Another output is made of the probabilities, which stay there.
    nodes.append(node("Mul", ["kind", "kind"], ["squares"]))
    outputs = dict.fromkeys(("kind", "findings", "size", "squares"), ("n", 3))
    path = file(tmp_path / "a.onnx", nodes, KERNEL, outputs=outputs)
    images = torch.rand(1, 1, 8, 8)
    network, expected = load(path), in_onnxruntime(path, images)
    assert [each.ending for each in network.facts.outputs] == ["softmax", "sigmoid", "linear", "linear"]
    heads = (Head.SOFTMAX, Head.MULTI_LABEL, Head.REGRESSION, Head.REGRESSION)
    for k, (name, head) in enumerate(zip(outputs, heads, strict=True)):
        for chosen in (name, k):
            classifier = classifier_of(network, 2, 3, output=chosen, head=head)
            prediction = predict(Image.from_array(images[0, 0].numpy()), classifier)
            np.testing.assert_allclose(prediction.probabilities, expected[k][0], atol=1e-6)
            assert prediction.ending == {"kind": "softmax", "findings": "sigmoid"}.get(name, "")


# --- Channels last, precision, opsets, inputs


@pytest.mark.parametrize("shape", [(1, 8, 9, 3), ("n", "a", "b", 3), ("n", 8, 9, 1), (1, 8, 9, 7, 4)], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_channels_last_are_found_and_brought_first(shape: tuple[Any, ...], scaled: bool, tmp_path: Path) -> None:
    rank, channels = len(shape), shape[-1]
    nodes = [node("Mul", ["x", "two"], ["m"])] if scaled else []
    nodes += [
        node("Transpose", ["m" if scaled else "x"], ["t"], perm=[0, rank - 1, *range(1, rank - 1)]),
        node("Conv", ["t", "k"], ["c"], name="conv"),
        node("Transpose", ["c"], ["map"], perm=[0, *range(2, rank), 1]),
        softmax(-1, "map", "y"),
    ]
    kernel = weight("k", 2, channels, *[3] * (rank - 2))
    path = file(
        tmp_path / "a.onnx", nodes, kernel, numbers("two", 2, np.float32), shape=shape, outputs={"y": free(len(shape))}
    )
    lengths = [n if isinstance(n, int) else 9 for n in shape[1:-1]]
    network, images = load(path), torch.rand(1, channels, *lengths)
    assert isinstance(network, Program)
    assert network.facts.input_shape == (channels, *(n if isinstance(n, int) else None for n in shape[1:-1]))
    (expected,) = in_onnxruntime(path, images.movedim(1, -1))
    torch.testing.assert_close(network(images).softmax(1), expected.movedim(-1, 1))
    layers = classifier_of(network, rank - 2).layers(tuple(images.shape[1:]))
    (conv,) = [layer for layer in layers if layer.name == "conv"]
    assert conv.receptive_field.followed
    assert conv.receptive_field.start == (1.0,) * (rank - 2)


@pytest.mark.parametrize("shape", [("n", 3, 8, 8), ("n", 64, 8, 3), ("n", 3, 3, 3), ("n", 1, 8, 8, 4)], ids=str)
def test_channels_first_stay_first(shape: tuple[Any, ...], tmp_path: Path) -> None:
    """Convolutions tell, whatever the lengths of axes suggest."""
    kernel = weight("k", 2, shape[1], *[1] * (len(shape) - 2))
    path = file(
        tmp_path / "a.onnx", [node("Conv", ["x", "k"], ["y"])], kernel, shape=shape, outputs={"y": free(len(shape))}
    )
    network, images = load(path), torch.rand(2, *shape[1:])
    torch.testing.assert_close(network(images), *in_onnxruntime(path, images))


@pytest.mark.parametrize("inside", [False, True])
def test_half_precision_is_converted_to_single(inside: bool, tmp_path: Path) -> None:
    nodes, kernel = list(ROW), weight("k", 3, 1, 3, 3, kind=np.float16)
    if inside:
        nodes = [node("Cast", ["x"], ["h"], to=HALF), node("Conv", ["h", "k"], ["c"], pads=[1, 1, 1, 1]), *ROW[1:]]
    nodes.append(node("Cast", ["f"], ["y"], to=FLOAT) if inside else node("Identity", ["f"], ["y"]))
    path = file(tmp_path / "a.onnx", nodes, kernel, kind=FLOAT if inside else HALF)
    network, images = load(path), torch.rand(3, 1, 8, 8)
    assert isinstance(network, Program)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    (expected,) = in_onnxruntime(path, images, np.float32 if inside else np.float16)
    torch.testing.assert_close(network(images), expected, rtol=2e-3, atol=0)


class Usual(nn.Module):
    """What most networks of images are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout())
        self.up, self.fc = nn.Upsample(scale_factor=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.conv(x)).clamp(0, 6)
        return self.fc(torch.cat([y[:, :2], y[:, 2:]], 1).mean((2, 3))).softmax(1)


@pytest.mark.parametrize("opset", range(9, 21))
@pytest.mark.parametrize("free", [False, True])
def test_the_exporter_s_opsets(opset: int, free: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = Usual().eval(), tmp_path / "a.onnx"
    axes = {"x": {0: "n"}} if free else None
    options: Any = {"dynamo": False, "verbose": False, "input_names": ["x"], "dynamic_axes": axes}
    torch.onnx.export(network, (torch.rand(1, 1, 12, 10),), path, opset_version=opset, **options)
    converted, images = load(path), torch.rand(3, 1, 12, 10)
    assert isinstance(converted, Program)
    assert converted.ending == "softmax"
    torch.testing.assert_close(converted(images).softmax(1), network(images))
    rows = [in_onnxruntime(path, image[None])[0] for image in images]
    torch.testing.assert_close(converted(images).softmax(1), torch.cat(rows))


def test_several_inputs_are_named_in_one_sentence(tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", [*ROW, node("Add", ["f", "age"], ["y"])], KERNEL)
    model = onnx.load_model_from_string(path.read_bytes())
    model.graph.input.append(helper.make_tensor_value_info("age", FLOAT, (1, 1)))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"takes 2 inputs \('x', 'age'\); export one that takes an image only"):
        load(path)
