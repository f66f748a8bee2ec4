from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_bundle

from napari_xai_med import explain, load_model
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, UntrustedError
from napari_xai_med.models import trust_bundle
from napari_xai_med.models.small_cnn import SmallCNN
from napari_xai_med.models.trusted import revoke, settings_file, trusted_bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a harmless expression."""
    target = {"_target_": "napari_xai_med.models.small_cnn.SmallCNN", "spatial_dims": 3, "in_channels": 1}
    config = {
        "network_def": target | {"num_classes": "$1 + 1"},
        "preprocessing": {"_target_": "Compose", "transforms": []},
    }
    folder = write_bundle(tmp_path / "bundle", config, ["a", "b"])
    torch.save(SmallCNN(3, 1, 2).state_dict(), folder / "models" / "model.pt")
    return folder


def test_trust_is_remembered_seen_and_revoked(bundle: Path) -> None:
    with pytest.raises(UntrustedError):
        load_model(bundle)
    trust_bundle(bundle)
    classifier = load_model(bundle)
    assert classifier.trusted
    record = explain(np.ones((8, 8, 8)), classifier, target="a").record
    assert record.model["trusted"] is True
    ((sha256, facts),) = trusted_bundles().items()
    assert sha256 == classifier.sha256
    assert facts["name"] == "bundle"
    assert revoke(sha256[:8]) == "bundle"
    with pytest.raises(UntrustedError):
        load_model(bundle)


@pytest.mark.parametrize("changed", ["configs/inference.json", "configs/metadata.json", "scripts/code.py"])
def test_a_changed_bundle_is_trusted_no_more(bundle: Path, changed: str) -> None:
    trust_bundle(bundle)
    path = bundle / changed
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + " ")
    with pytest.raises(UntrustedError):
        load_model(bundle)


def test_trust_for_once_is_not_remembered(bundle: Path) -> None:
    assert load_model(bundle, trust=True).trusted
    assert trusted_bundles() == {}
    assert not load_model("chest_ct_3d").trusted


def test_the_command_line_adds_lists_and_revokes(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "--add", str(bundle)]) == 0
    listed = capsys.readouterr().out
    assert "bundle" in listed
    assert main(["trust", "--revoke", listed.split()[0]]) == 0
    assert "is trusted no more" in capsys.readouterr().out
    assert main(["trust", "--revoke", "0"]) == 2
    assert "0 trusted bundles have a hash" in capsys.readouterr().err
    assert main(["trust", "--add", "/nowhere"]) == 3


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_is_one_sentence(content: str) -> None:
    settings_file().parent.mkdir(parents=True, exist_ok=True)
    settings_file().write_text(content)
    with pytest.raises(InputError, match="delete it to trust no bundle"):
        trusted_bundles()


def test_the_file_is_plain_json(bundle: Path) -> None:
    trust_bundle(bundle)
    assert list(json.loads(settings_file().read_text())) == list(trusted_bundles())
