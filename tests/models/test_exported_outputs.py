from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_networks import Small, export, load, small
from helpers import classifier_of
from torch import nn

from napari_xai_med import Image, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats.exported import Exported


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
def test_an_ending_is_taken_off(ending: str, tmp_path: Path) -> None:
    path = export(small(ending), tmp_path / "a.pt2", (1, 1, 16, 16, 16))
    images = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(load(path)(images), small()(images))
    assert load(path).ending == ending
    facts = Exported().facts(path)
    assert facts.input_shape == (1, 16, 16, 16)
    assert [(output.numbers, output.ending) for output in facts.outputs] == [(2, ending)]


class Ends(nn.Module):
    """Several outputs, each of which ends otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def logits(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(x)
        row = y.mean((2, 3))
        return {"map": y, "kept.p": row, "kept.q": row + 1, "in place": row * 2, "rows": row, "twice": row.sigmoid()}

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        z = self.logits(x)
        return {
            "map": z["map"].softmax(1),
            "kept": {
                "p": z["kept.p"][..., None, None].softmax(1).flatten(1),
                "q": z["kept.q"].sigmoid()[None].squeeze(0),
            },
            "in place": z["in place"].sigmoid_(),
            "rows": z["rows"].softmax(0),
            "twice": z["twice"].softmax(1),
        }


def test_outputs_have_the_names_of_a_dict_and_each_its_own_ending(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, images = Ends().eval(), torch.rand(1, 1, 8, 8)
    program = load(export(network, tmp_path / "a.pt2", (1, 1, 8, 8)))
    expected = network.logits(images)
    endings = ["softmax", "softmax", "sigmoid", "sigmoid", "", "softmax"]
    assert [program.endings[name] for name in expected] == endings
    expected["rows"] = expected["rows"].softmax(0)
    for answer, (name, logits), facts in zip(program(images), expected.items(), program.facts.outputs, strict=True):
        torch.testing.assert_close(answer, logits)
        assert (facts.name, facts.numbers) == (name, 3)
    classifier = classifier_of(program, 2, 3, output="twice")
    prediction = predict(Image.from_array(images[0, 0].numpy()), classifier)
    # Nothing is taken off once more: below this softmax lies a sigmoid.
    np.testing.assert_allclose(prediction.probabilities, network(images)["twice"][0].detach(), atol=1e-6)
    assert prediction.ending == "softmax"


def test_a_dict_of_one_output_may_be_named(tmp_path: Path) -> None:
    class One(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": super().forward(x)}

    torch.manual_seed(0)
    program = load(export(One().eval(), tmp_path / "a.pt2", (1, 1, 16, 16, 16)))
    image = Image.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)))
    answers = [predict(image, classifier_of(program, 3, output=name)).logits for name in (None, "logits")]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(ModelError, match="has a single output; take 'other' out"):
        predict(image, classifier_of(program, 3, output="other"))
