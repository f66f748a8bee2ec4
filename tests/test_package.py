from __future__ import annotations

import configparser
import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest
from npe2 import PluginManifest
from packaging.version import Version

import napari_xai_med

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "monai", "captum", "matplotlib", "nibabel", "scipy", "qtpy", "PyQt6", "PySide6", "napari")


@pytest.mark.parametrize(
    "code",
    [
        "import napari_xai_med",
        "import napari_xai_med.plugin; napari_xai_med.plugin.get_reader('a.png')",
        "from npe2 import PluginManifest; PluginManifest.from_distribution('napari-xai-med')",
    ],
)
def test_import_and_manifest_bring_nothing_heavy(code: str) -> None:
    check = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_manifest_is_valid_and_every_command_exists() -> None:
    manifest = PluginManifest.from_distribution("napari-xai-med")
    manifest.validate_imports()
    contributions = manifest.contributions
    assert contributions.widgets
    assert contributions.readers
    assert contributions.writers
    assert contributions.sample_data
    assert contributions.menus


@pytest.mark.parametrize("name", napari_xai_med.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    assert getattr(napari_xai_med, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        napari_xai_med.nothing  # noqa: B018  # reading it is the test


def test_the_version_is_one_that_installers_can_compare() -> None:
    assert Version(napari_xai_med.__version__) == Version(version("napari-xai-med"))


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="napari-xai-med")
    assert command.value == "napari_xai_med.cli:main"


def test_samples_are_installed_with_the_package() -> None:
    folder = files("napari_xai_med.sample_data")
    assert (folder / "chest_ct_lesion.nii.gz").is_file()


def test_every_package_is_installed() -> None:
    """The list in setup.cfg can't be found by itself, since the samples lie outside the package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    inside = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in ROOT.glob("napari_xai_med/**/__init__.py")}
    assert listed == inside | {"napari_xai_med.sample_data"}
