"""Bundles with networks that their authors wrote themselves."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_bundle

from napari_xai_med import load_model, predict
from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models import trust_bundle

CODE = """
from pathlib import Path
from torch import nn
from own.scale import FACTOR

Path(r"{ran}").touch()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)

    def forward(self, x):
        return FACTOR * self.conv(x).mean((2, 3, 4))
"""
ONES = np.ones((4, 4, 4), np.float32)


def bundle(folder: Path, factor: int = 1) -> Path:
    config = {
        "network_def": {"_target_": "own.net.Net"},
        "preprocessing": {"_target_": "Compose", "transforms": []},
    }
    write_bundle(folder, config, ["a", "b"])
    (folder / "own").mkdir()
    (folder / "own" / "net.py").write_text(CODE.format(ran=folder.parent / "ran"))
    (folder / "own" / "scale.py").write_text(f"FACTOR = {factor}")
    state = {"conv.weight": torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1), "conv.bias": torch.zeros(2)}
    torch.save(state, folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_the_code_of_a_trusted_bundle_is_its_own(zipped: bool, tmp_path: Path) -> None:
    """Also where two bundles, and what is imported already, have modules of one name."""
    other, sys.modules["own"] = sys.modules.get("own"), sys
    try:
        sources = [bundle(tmp_path / str(factor), factor) for factor in (1, 3)]
        if zipped:
            sources = [Path(shutil.make_archive(str(one), "zip", one)) for one in sources]
        classifiers = [load_model(one, trust=True, device="cpu") for one in sources]
        for classifier, factor in zip(classifiers, (1, 3), strict=True):
            np.testing.assert_allclose(predict(ONES, classifier).logits, [factor, 2 * factor])
        assert sys.modules["own"] is sys
        assert "own.net" not in sys.modules
        assert not set(map(str, sources)) & set(sys.path)
    finally:
        sys.modules.pop("own")
        if other is not None:
            sys.modules["own"] = other


def test_code_runs_only_as_long_as_it_is_trusted(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b")
    with pytest.raises(UntrustedError, match=r"own\.net\.Net"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()
    trust_bundle(folder)
    assert load_model(folder).trusted
    assert (tmp_path / "ran").exists()
    # Loading it left nothing behind that would change it.
    assert load_model(folder).trusted
    (folder / "own" / "scale.pyc").write_bytes(b"compiled code, which Python would import as well")
    with pytest.raises(UntrustedError):
        load_model(folder)


@pytest.mark.parametrize("line", ["1 / 0", "import nothing_of_that_name", "def ("])
def test_code_that_fails_is_one_sentence(line: str, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b")
    (folder / "own" / "scale.py").write_text(line)
    with pytest.raises(ModelError, match=r"^network_def of b can't be built: .*\bown\b.*[^.]\.$"):
        load_model(folder, trust=True)


@pytest.mark.parametrize(
    "name", ["torch.txt", "monai.yaml", "numpy.py", "napari_xai_med.py", "torch/notes.txt", "json.py"]
)
def test_files_called_like_packages_in_use_do_not_take_their_place(name: str, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("raise ImportError")
    before = dict(sys.modules)
    assert predict(ONES, load_model(folder, trust=True)).logits.shape == (2,)
    assert all(sys.modules[key] is module for key, module in before.items())
