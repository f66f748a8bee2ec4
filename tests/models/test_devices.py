from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import classifier_of
from torch import Tensor, nn

from napari_xai_med import explain, load_model, predict
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.image import Image
from napari_xai_med.models.devices import describe, devices, in_batches, is_out_of_memory, pick

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


def test_a_classifier_goes_to_another_device_as_a_copy() -> None:
    classifier = classifier_of(Small(), 2)
    there = classifier.on("meta")
    assert (classifier.device.type, there.device.type) == ("cpu", "meta")
    assert classifier.on("cpu") is classifier


def test_an_accelerator_without_memory_leaves_the_work_to_the_processor() -> None:
    """The device "meta" stands for an accelerator: it takes a network, and fails when that runs."""
    classifier = classifier_of(Small(), 2)
    there = _kept_weights(classifier.on("meta"), classifier)
    there._layers[(1, 8, 8)] = classifier.layers((1, 8, 8))
    sentence = "The memory of meta was not enough; this was computed on the processor."
    for answer, expected in (
        (predict(IMAGE, there), predict(IMAGE, classifier)),
        (explain(IMAGE, there).prediction, explain(IMAGE, classifier).prediction),
    ):
        np.testing.assert_array_equal(answer.logits, expected.logits)
    assert sentence in predict(IMAGE, there).notices
    attribution = explain(IMAGE, there)
    assert sentence in attribution.notices
    assert attribution.record.software["device"] == "cpu"
    assert there.device.type == "meta"


def _kept_weights(there, classifier):  # type: ignore[no-untyped-def]
    """Weights that come back from the device, which "meta" itself forgets."""
    from copy import deepcopy

    class Remembering(Small):
        def __deepcopy__(self, memo: object) -> nn.Module:
            return deepcopy(classifier.network)

    there.network.__class__ = Remembering
    return there


def test_no_memory_at_all_is_one_sentence() -> None:
    class Large(Small):
        def forward(self, x: Tensor) -> Tensor:  # noqa: ARG002
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes"
            )

    with pytest.raises(ModelError, match=r"^There is not enough memory to run test; close other programs or take"):
        predict(IMAGE, classifier_of(Large(), 2))


def test_batches_get_smaller_until_they_fit() -> None:
    told: list[int] = []

    def compute(part: Tensor) -> list[float]:
        if len(part) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return part.tolist()

    results = in_batches(torch.arange(10.0), 8, compute, told.append)
    assert [value for part in results for value in part] == list(range(10))
    assert told == [4, 2]
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(torch.zeros(2), 2, lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()), told.append)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
