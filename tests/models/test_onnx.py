from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of, write_bundle
from monai.networks.nets import DenseNet121
from torch import nn

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.formats.onnx import Onnx, OnnxNetwork
from napari_xai_med.models.graphs.program import Program
from napari_xai_med.models.receptive_field import default_layer, trace_layers

onnx = pytest.importorskip("onnx", reason="ONNX files are made and read with it")
pytest.importorskip("onnxruntime", reason="ONNX files are run with it")
helper, TensorProto = onnx.helper, onnx.TensorProto

CONFIG = {"preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]}}

# The older of PyTorch's two exporters, which made most of the files that there are, is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 8, 3, stride=2)
        )
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).flatten(2).mean(2))


def small() -> nn.Module:
    torch.manual_seed(0)
    network = Small()
    with torch.no_grad():
        network.train()(torch.randn(4, 1, 16, 16, 16))
    return network.eval()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet121(2, 1, 3).eval()


def export(network: nn.Module, path: Path, shape: tuple[int, ...], *, new: bool = True, **options: Any) -> Path:
    if new:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it")
    torch.onnx.export(network, (torch.rand(shape),), path, dynamo=new, verbose=False, **options)
    return path


def load(path: Path) -> Any:
    return Onnx().load(path, nn.Identity)


def graph(
    path: Path, *nodes: Any, shape: tuple[Any, ...] = (1, 1, 8, 8), out: tuple[Any, ...] = (1, 2), **more: Any
) -> Path:
    """A file with one graph from x to y."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", out))]
    opset = more.pop("opset", 17)
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=more.pop("weights", []))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)
    path.write_bytes(model.SerializeToString())
    return path


def flat_linear(path: Path, *, ending: str = "", **more: Any) -> Path:
    """Mean over space and two logits, in 2D."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 1), [1.0, -2.0])
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["z" if ending else "y"], transB=1),
    ]
    if ending:
        nodes.append(helper.make_node(ending, ["z"], ["y"]))
    kernel = helper.make_tensor("k", TensorProto.FLOAT, (1, 1, 3, 3), [0.1 * k for k in range(9)])
    return graph(path, *nodes, weights=[weight, kernel], **more)


@pytest.mark.parametrize("new", [True, False], ids=["torch.export", "TorchScript"])
@pytest.mark.parametrize(
    ("make", "shape", "layer"),
    [
        pytest.param(dense, (1, 64, 64), "features.denseblock2.denselayer12", id="DenseNet121"),
        pytest.param(small, (1, 16, 16, 16), "features.4", id="3D"),
    ],
)
def test_it_answers_and_explains_as_the_original_does(
    make: Callable[[], nn.Module], shape: tuple[int, ...], layer: str, new: bool, tmp_path: Path
) -> None:
    network = make()
    converted = load(export(network, tmp_path / "a.onnx", (1, *shape), new=new))
    assert isinstance(converted, Program)
    images = torch.rand(3, *shape)
    torch.testing.assert_close(converted(images), network(images), atol=1e-5, rtol=0)
    theirs = {item.name: item for item in trace_layers(network, shape)}
    ours = {item.name: item for item in trace_layers(converted, shape)}
    assert set(ours) <= set(theirs)
    assert default_layer(tuple(ours.values())).name == default_layer(tuple(theirs.values())).name
    for name, item in ours.items():
        assert item.receptive_field == theirs[name].receptive_field
        # Exporters merge a convolution and the normalisation after it, under either name.
        assert item.is_convolution == theirs[name].is_convolution or "Norm" in theirs[name].kind
    classes = network(images).shape[1]
    image = Image.from_array(images[0, 0].numpy())
    maps = [
        explain(image, classifier_of(n, len(shape) - 1, classes), "gradcam", layers=layer).raw
        for n in (network, converted)
    ]
    assert maps[0].max() > 0
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5 * float(maps[0].max()))


def test_onnxruntime_gives_the_same(tmp_path: Path) -> None:
    path = export(small(), tmp_path / "a.onnx", (1, 1, 16, 16, 16), new=False)
    from napari_xai_med.models.formats import onnx as module

    model, *_ = module._read(path)
    runtime = OnnxNetwork(module._session(model, path), load(path).facts, 1)
    images = torch.rand(3, 1, 16, 16, 16)
    torch.testing.assert_close(runtime(images), small()(images), atol=1e-5, rtol=0)


def test_axes_can_be_free(tmp_path: Path) -> None:
    axes = {"x": {0: "n", 2: "a", 3: "b", 4: "c"}}
    options = {"new": False, "input_names": ["x"], "dynamic_axes": axes}
    path = export(small(), tmp_path / "a.onnx", (1, 1, 16, 16, 16), **options)
    images = torch.rand(3, 1, 20, 16, 12)
    torch.testing.assert_close(load(path)(images), small()(images), atol=1e-5, rtol=0)
    facts = Onnx().facts(path)
    assert facts.input_shape == (1, None, None, None)
    assert [(output.numbers, output.ending) for output in facts.outputs] == [(2, "linear")]


@pytest.mark.parametrize(("operator", "ending"), [("Softmax", "softmax"), ("Sigmoid", "sigmoid")])
def test_an_ending_is_taken_off(operator: str, ending: str, tmp_path: Path) -> None:
    path = flat_linear(tmp_path / "a.onnx", ending=operator)
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(load(path)(images), load(flat_linear(tmp_path / "b.onnx"))(images))
    assert load(path).ending == ending
    facts = Onnx().facts(path)
    assert facts.input_shape == (1, 8, 8)
    assert [(output.numbers, output.ending) for output in facts.outputs] == [(2, ending)]


def test_what_can_t_be_converted_can_be_asked_for_predictions_only(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", CONFIG, ("a", "b"), spatial_shape=[8, 8])
    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 1), [1.0, -2.0])
    graph(
        bundle / "models" / "model.onnx",
        helper.make_node("GlobalLpPool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
        weights=[weight],
    )
    classifier = load_model(bundle)
    assert classifier.gives == set()
    image = Image.from_array(np.random.default_rng(0).normal(size=(8, 8)))
    scaled = (image.data - image.data.min()) / (image.data.max() - image.data.min())
    norm = float(np.sqrt((scaled**2).sum()))
    np.testing.assert_allclose(predict(image, classifier).logits, [norm, -2 * norm], rtol=1e-5)
    with pytest.raises(
        ModelError,
        match="needs gradients and layers, which b does not give: GlobalLpPool has no counterpart in PyTorch here",
    ):
        explain(image, classifier)


def test_a_conversion_that_answers_otherwise_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_xai_med.models.graphs import onnx_ops

    path = flat_linear(tmp_path / "a.onnx")
    assert isinstance(load(path), Program)
    right = onnx_ops.OPERATORS["Gemm"]
    monkeypatch.setitem(onnx_ops.OPERATORS, "Gemm", lambda i, a: right(i, a) * 1.001)
    assert isinstance(load(path), OnnxNetwork)


def test_a_bundle_needs_no_network_def(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", CONFIG, ("a", "b"), spatial_shape=[8, 8])
    flat_linear(bundle / "models" / "model.onnx")
    classifier = load_model(bundle)
    assert classifier.gives == set(Gives)
    image = Image.from_array(np.random.default_rng(0).normal(size=(8, 8)))
    assert explain(image, classifier).raw.shape == (8, 8)
    with pytest.raises(ModelError, match=r"exported for images of shape \(1, 8, 8\)"):
        predict(Image.from_array(np.random.default_rng(0).normal(size=(9, 8))), classifier)


def external(path: Path, location: str, length: int = 8) -> Path:
    """The small network with its weights in another file."""
    flat_linear(path)
    model = onnx.load_model_from_string(path.read_bytes())
    weight = model.graph.initializer[0]
    values = np.array([1.0, -2.0], np.float32).tobytes()
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", 0), ("length", length)):
        weight.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    if not Path(location).is_absolute():
        (path.parent / location).write_bytes(values)
    return path


def test_weights_may_lie_beside_the_file_and_count_in_the_hash(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", CONFIG, ("a", "b"), spatial_shape=[8, 8])
    external(bundle / "models" / "model.onnx", "model.onnx.data")
    first = load_model(bundle)
    images = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(first.network(images), load(flat_linear(tmp_path / "a.onnx"))(images))
    (bundle / "models" / "model.onnx.data").write_bytes(np.array([3.0, 4.0], np.float32).tobytes())
    assert load_model(bundle).sha256 != first.sha256


@pytest.mark.parametrize("location", ["../w", "/etc/hostname", "C:\\w", "..\\w", "", "link"])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "w").write_bytes(bytes(8))
    path = external(folder / "a.onnx", location or "w")
    if location == "":
        model = onnx.load_model_from_string(path.read_bytes())
        model.graph.initializer[0].external_data[0].value = ""
        path.write_bytes(model.SerializeToString())
    if location == "link":
        (folder / "link").unlink()
        (folder / "link").symlink_to(tmp_path / "w")
    with pytest.raises(UntrustedError, match="lie outside its folder"):
        load(path)


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="asks for weights that its file does not hold"):
        load(external(tmp_path / "a.onnx", "w", length=1 << 40))
    (tmp_path / "w").unlink()
    with pytest.raises(ModelError, match="needs the file 'w' beside it"):
        load(tmp_path / "a.onnx")


def loop(path: Path) -> Path:
    body = helper.make_graph([], "body", [], [])
    return graph(path, helper.make_node("Loop", ["", "", "x"], ["y"], body=body))


def foreign(path: Path) -> Path:
    return graph(path, helper.make_node("Run", ["x"], ["y"], domain="com.example"))


def hidden(path: Path) -> Path:
    """A foreign operator in a branch."""
    branch = helper.make_graph([helper.make_node("Run", ["x"], ["b"], domain="com.example")], "b", [], [])
    return graph(path, helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def function(path: Path) -> Path:
    opsets = [helper.make_opsetid("", 17)]
    own = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    return graph(path, helper.make_node("F", ["x"], ["y"], domain="own"), functions=[own])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (loop, "has a loop"),
        (foreign, "its operator 'Run' is of 'com.example'"),
        (hidden, "its operator 'Run' is of 'com.example'"),
        (function, "defines functions"),
    ],
)
def test_what_could_run_anything_is_refused(make: Callable[[Path], Path], match: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match=match):
        load(make(tmp_path / "a.onnx"))


def large_weight(path: Path) -> Path:
    flat_linear(path)
    model = onnx.load_model_from_string(path.read_bytes())
    model.graph.initializer[0].dims[0] = 1 << 40
    path.write_bytes(model.SerializeToString())
    return path


def large_raw_weight(path: Path) -> Path:
    flat_linear(path)
    model = onnx.load_model_from_string(path.read_bytes())
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.raw_data = bytes(8)
    weight.dims[:] = [1 << 40, 1]
    path.write_bytes(model.SerializeToString())
    return path


def large_result(path: Path) -> Path:
    """A small file that asks for a tensor of 2**40 numbers."""
    size = helper.make_tensor("s", TensorProto.INT64, (2,), [1 << 20, 1 << 20])
    return graph(
        path,
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
        weights=[size],
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (large_weight, "claims a weight that is larger than what is stored"),
        (large_raw_weight, "claims a weight that is larger than what is stored"),
        (large_result, "asks for a tensor that is too large"),
        (lambda path: flat_linear(path, shape=(1, 1, 1 << 20, 1 << 20)), "asks for a tensor that is too large"),
        (lambda path: flat_linear(path, opset=99), r"was written for a newer ONNX \(opset 99\)"),
        (lambda path: flat_linear(path, shape=(1, 8)), "does not take one image of two or three dimensions"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(make: Callable[[Path], Path], match: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=match):
        load(make(tmp_path / "a.onnx"))


@pytest.mark.parametrize("length", [0, 1, 10, 50, 100, 150, 200])
def test_a_truncated_file_is_one_sentence(length: int, tmp_path: Path) -> None:
    path = flat_linear(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match="is not an ONNX file"):
        load(path)


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = flat_linear(tmp_path / "a.onnx")
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match="pip install onnx onnxruntime"):
        load(path)
