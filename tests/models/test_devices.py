from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from napari_xai_med import explain, load_model, predict
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.image import Image
from napari_xai_med.models.devices import copy_on, describe, devices, in_batches, is_out_of_memory, pick
from napari_xai_med.models.formats.facts import NetworkFacts
from napari_xai_med.models.formats.torchscript import TorchScript

IMAGE = Image.from_array(np.random.default_rng(0).random((8, 8)).astype(np.float32))


class Small(nn.Module):
    """Fails for lack of memory on every device but the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 3)
        self.asked: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.device.type)
        if x.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.features(x).mean((2, 3))


def test_the_processor_is_always_there() -> None:
    assert devices()[-1] == "cpu"
    assert str(pick()) == devices()[0]
    assert describe(torch.device("cpu")) == "cpu"
    assert load_model("chest_ct_3d", device="cpu").device == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "tpu"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(InputError, match=rf"no device '{name}'; choose one of auto, .*cpu\.$"):
        load_model("chest_ct_3d", device=name)


class Results(TorchDispatchMode):
    """Notes on which device every result of an operator lies."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.seen |= {result.device.type} if isinstance(result, Tensor) and "detach" not in str(function) else set()
        return result


def test_a_classifier_goes_to_another_device_as_a_copy() -> None:
    network = Small()
    network.again, network.tied = network.features, network.features.weight
    classifier = classifier_of(network, 2)
    with Results() as results:
        there = classifier.on("meta")
    # Nothing was copied on the device where it was, whose memory may be full.
    assert results.seen == {"meta"}
    assert (classifier.device.type, there.device.type) == ("cpu", "meta")
    assert {value.device.type for value in classifier.network.state_dict().values()} == {"cpu"}
    assert there.network.again is there.network.features
    assert there.network.tied is there.network.features.weight
    assert classifier.on("cpu") is classifier


def test_scripted_networks_go_to_another_device_as_well(tmp_path: Path) -> None:
    image = torch.rand(1, 1, 8, 8)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    torch.jit.trace(network.eval(), image).save(tmp_path / "a.ts")
    scripted = TorchScript().load(tmp_path / "a.ts", nn.Identity)
    copy = copy_on(scripted, "cpu")
    torch.testing.assert_close(copy(image), scripted(image), atol=0, rtol=0)
    pairs = list(zip(copy.parameters(), scripted.parameters(), strict=True))
    assert len(pairs) == 4
    assert not any(new.requires_grad or new.data_ptr() == old.data_ptr() for new, old in pairs)


class Remembered(TorchFunctionMode):
    """Weights that come back from the device "meta", which itself forgets them."""

    def __init__(self, there: nn.Module, here: nn.Module) -> None:
        super().__init__()
        self.weights = list(zip(there.parameters(), here.parameters(), strict=True))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [here for there, here in self.weights if args and args[0] is there]
        if function is Tensor.to and found and torch.device(args[1]).type == "cpu":
            return found[0].detach().clone()
        return function(*args, **(kwargs or {}))


class Lacking(Small):
    """Uses an operator that the device "meta" has not."""

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.device.type)
        return self.features(x).mean((2, 3)) + torch.nonzero(x).sum()


class Doubles(Small):
    """Fails as Apple's devices do on every device but the processor."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "meta":
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Small, "The memory of meta was not enough; this was computed on the processor."),
        (Lacking, "meta lacks something that test needs; this was computed on the processor."),
        (Doubles, "meta lacks something that test needs; this was computed on the processor."),
    ],
)
def test_what_an_accelerator_can_t_do_is_left_to_the_processor(kind: type[Small], sentence: str) -> None:
    """The device "meta" stands for an accelerator: it takes a network, and fails when that runs."""
    classifier = classifier_of(kind(), 2)
    there = classifier.on("meta")
    there.traces[1, 8, 8] = classifier.trace((1, 8, 8))
    with Remembered(there.network, classifier.network):
        prediction, attribution = predict(IMAGE, there), explain(IMAGE, there)
    for answer, expected in (
        (prediction, predict(IMAGE, classifier)),
        (attribution.prediction, explain(IMAGE, classifier).prediction),
    ):
        np.testing.assert_array_equal(answer.logits, expected.logits)
    assert sentence in prediction.notices
    assert sentence in attribution.notices
    assert attribution.record.software["device"] == "cpu"
    assert there.device.type == "meta"


class OnlySingle(Tensor):
    """Stands for a tensor on a device without double precision, until it is brought to the processor."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        if function is Tensor.cpu:
            return result.as_subclass(Tensor)
        if isinstance(result, cls) and result.dtype is torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return result


def test_no_double_precision_is_asked_of_a_device() -> None:
    class Single(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).as_subclass(OnlySingle)

    network = Single()
    expected = Small.forward(network, torch.from_numpy(IMAGE.data)[None])
    np.testing.assert_array_equal(predict(IMAGE, classifier_of(network, 2)).logits, expected[0].detach())


def unable(x: Tensor) -> Tensor:
    # A tensor of this size would be refused before the memory is asked for.
    return x.new_empty(0).set_(torch.UntypedStorage(2**50))


def unable_in_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.empty((2**50, *x.shape)))


def unable_in_onnxruntime(x: Tensor) -> Tensor:
    """Expands an image to 2**50 numbers."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from napari_xai_med.models.formats.onnx import OnnxNetwork

    ends = [onnx.helper.make_tensor_value_info(name, 1, list("abcde")[:n]) for name, n in (("x", 4), ("y", 5))]
    shape = onnx.numpy_helper.from_array(np.array([2**44, 1, 1, 1, 1]), "s")
    nodes = [onnx.helper.make_node("Expand", ["x", "s"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=[shape])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return OnnxNetwork(session, NetworkFacts((None, None, None), ()), None)(x)


@pytest.mark.parametrize("allocate", [unable, unable_in_numpy, unable_in_onnxruntime])
def test_no_memory_at_all_is_one_sentence(allocate: Callable[[Tensor], Tensor]) -> None:
    class Large(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + allocate(x.detach()).sum()

    sentence = r"^There is not enough memory to run test; close other programs or take a smaller image\.$"
    with pytest.raises(ModelError, match=sentence):
        predict(IMAGE, classifier_of(Large(), 2))
    # Neither the accelerator nor, after it, the processor has enough.
    there = classifier_of(Large(), 2).on("meta")
    with Remembered(there.network, Large()), pytest.raises(ModelError, match=sentence):
        predict(IMAGE, there)


@pytest.mark.parametrize("allocate", [unable, unable_in_numpy])
def test_batches_get_smaller_until_they_fit(allocate: Callable[[Tensor], Tensor]) -> None:
    told: list[int] = []

    def compute(part: Tensor) -> list[float]:
        if len(part) > 3:
            allocate(part)
        return part.tolist()

    results = in_batches(torch.arange(10.0), 8, compute, told.append)
    assert [value for part in results for value in part] == list(range(10))
    assert told == [4, 2]
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(torch.zeros(2), 2, lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()), told.append)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
