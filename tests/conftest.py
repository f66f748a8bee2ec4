from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folders of real images that do not come with the project; tests that need one skip without it."""
    root = Path(os.environ.get("XAI_MED_DATA", ROOT.parent / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"real data {name} is not in {root}; set XAI_MED_DATA to where it is")
        return root / name

    return folder


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes what the user trusts."""
    monkeypatch.setenv("XAI_MED_SETTINGS", str(tmp_path_factory.mktemp("settings")))


@pytest.fixture(autouse=True)
def quick_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which batches are fastest is found less surely: it changes no answer, and each network of a test is a new one."""
    monkeypatch.setattr("napari_xai_med.models.batch_sizes._LONG", 0.002)
