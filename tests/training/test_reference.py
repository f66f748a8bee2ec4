from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_xai_med import load_model
from napari_xai_med.errors import ModelError
from napari_xai_med.training import reference
from napari_xai_med.training.reference import CHEST_CT_2D, CHEST_CT_3D, train, write_bundle


@pytest.mark.parametrize("recipe", [CHEST_CT_2D, CHEST_CT_3D], ids=["2D", "3D"])
def test_a_short_training_gives_a_bundle_that_loads(
    recipe: reference.ReferenceRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ACCURACY_NEEDED", 0.0)
    random, lines = torch.get_rng_state(), []
    trained = train(replace(recipe, cases=2, held_out=2, epochs=1, batch=2), lines.append)
    assert len(lines) == 2
    assert "held-out" in lines[-1]
    assert torch.equal(torch.get_rng_state(), random)
    write_bundle(trained, tmp_path / "b")
    classifier = load_model(tmp_path / "b")
    assert classifier.class_names == recipe.class_names
    assert classifier.head is recipe.head
    for ours, theirs in zip(
        classifier.network.state_dict().values(), trained.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_equal_seeds_give_equal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ACCURACY_NEEDED", 0.0)
    recipe = replace(CHEST_CT_2D, cases=3, held_out=1, epochs=2, batch=4)
    one, two = train(recipe, print), train(recipe, print)
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_too_little_accuracy_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ACCURACY_NEEDED", 1.01)
    with pytest.raises(ModelError, match=r"1\.01 is needed"):
        train(replace(CHEST_CT_2D, cases=1, held_out=1, epochs=1, batch=2), print)
