"""No file runs code, fills the memory or ends in a traceback: each is refused with one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hostile_files import SHAPE, Hostile, good
from hostile_inputs import IMAGES, RECORDS
from hostile_networks import MODELS

from napari_xai_med import Image, explain, load_model, predict, read_image
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, ModelError, UntrustedError, XAIMedError
from napari_xai_med.models import class_names_of, trust_bundle
from napari_xai_med.samples import sample_files

LARGEST_GROWTH = 700e6
"""Bytes. Libraries that are imported for a file take some of it; the files ask for 2 GB and more."""

IMAGE = Image.from_array(np.random.default_rng(0).normal(size=SHAPE))
LESION = str(sample_files("chest_ct_lesion")[0])

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def memory(field: str) -> float:
    """Bytes of this process: VmRSS now, VmHWM at most since the last reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in status if line.startswith(field))


@contextmanager
def little_memory() -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < LARGEST_GROWTH


def check(sentence: str, hostile: Hostile) -> None:
    assert hostile.says in sentence
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")
    assert "Traceback" not in sentence
    assert len(sentence) < 1000


def said_of(work: Callable[[], Any]) -> str:
    """The sentence that work ends with, if it is refused."""
    try:
        work()
    except XAIMedError as error:
        return str(error)
    return ""


def kinds(registry: dict[str, Hostile]) -> Any:
    return pytest.mark.parametrize("hostile", [pytest.param(item, id=name) for name, item in registry.items()])


KINDS = {2: InputError, 3: ModelError, 4: UntrustedError}


@kinds(MODELS)
def test_a_classifier_is_refused_in_python(hostile: Hostile, tmp_path: Path) -> None:
    path = hostile.make(tmp_path)
    for ask in (predict, explain):
        with little_memory(), pytest.raises(KINDS[hostile.code]) as caught:
            ask(IMAGE, load_model(path))
        # Of a network without layers it is said first that it has none.
        if ask is predict or "needs layers" not in str(caught.value):
            check(str(caught.value), hostile)
    # The widget asks for these as soon as a file is chosen.
    assert "\n" not in said_of(lambda: class_names_of(path))
    assert not list(tmp_path.rglob("canary"))


@kinds(MODELS)
def test_a_classifier_is_refused_on_the_command_line(
    hostile: Hostile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hostile.make(tmp_path)
    nibabel.Nifti1Image(IMAGE.data[0], np.eye(4)).to_filename(tmp_path / "image.nii")
    code = main(["predict", str(tmp_path / "image.nii"), "--model", str(path)])
    said = capsys.readouterr().err
    assert code == hostile.code
    assert said.startswith("napari-xai-med: ")
    check(said.removesuffix("\n"), hostile)
    assert not list(tmp_path.rglob("canary"))


@kinds(IMAGES)
def test_an_image_is_refused(hostile: Hostile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile.make(tmp_path)
    with little_memory(), pytest.raises(InputError) as caught:
        read_image(path)
    check(str(caught.value), hostile)
    assert main(["predict", str(path), "--model", "chest_ct_3d"]) == hostile.code
    check(capsys.readouterr().err.removesuffix("\n"), hostile)


@kinds(RECORDS)
def test_a_record_is_refused(hostile: Hostile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile.make(tmp_path)
    assert main(["explain", "--record", str(path), "--out", str(tmp_path / "out")]) == hostile.code
    check(capsys.readouterr().err.removesuffix("\n"), hostile)
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"preprocessing": 3}', "[3]", '[{"_target_": 3}]', '[{"_target_": "os.system"}]', "\x00"],
)
def test_preprocessing_from_a_file_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(content)
    code = main(["predict", LESION, "--model", "chest_ct_3d", "--preprocessing", str(tmp_path / "p.json")])
    assert code in (2, 4)
    said = capsys.readouterr().err
    assert said.startswith("napari-xai-med: ")
    assert said.count("\n") == 1


def test_a_folder_s_name_is_not_an_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's parser takes texts that begin with $ for code, also those that we give it."""
    monkeypatch.chdir(tmp_path)
    bundle = good(tmp_path, steps=[{"_target_": "Identityd", "keys": "image"}], other="@bundle_root")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["_desc_"] = "@bundle_root"
    path.write_text(json.dumps(config))
    name = "$__import__('pathlib').Path('canary').touch()"
    bundle.rename(tmp_path / name)
    assert load_model(name).class_names == ("a", "b")
    assert not list(tmp_path.rglob("canary"))


PLACES: list[tuple[str, ...]] = [
    ("name",),
    ("network_data_format",),
    ("network_data_format", "inputs"),
    ("network_data_format", "inputs", "image"),
    ("network_data_format", "inputs", "image", "num_channels"),
    ("network_data_format", "inputs", "image", "spatial_shape"),
    ("network_data_format", "inputs", "image", "format"),
    ("network_data_format", "inputs", "image", "value_range"),
    ("network_data_format", "outputs"),
    ("network_data_format", "outputs", "pred"),
    ("network_data_format", "outputs", "pred", "channel_def"),
    ("network_data_format", "outputs", "pred", "channel_def", "0"),
    ("napari_xai_med",),
    *(("napari_xai_med", key) for key in ("head", "output", "spatial_dims", "image_channels", "sliding_window")),
    ("napari_xai_med", "spacing"),
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_metadata_of_the_wrong_kind_is_one_sentence(place: tuple[str, ...], tmp_path: Path) -> None:
    bundle = good(tmp_path)
    path = bundle / "configs" / "metadata.json"
    whole = path.read_text()
    for value in ("x", 3, -1, 1e30, True, [], ["x", 1], {"a": {"b": 1}}, [[1]], None):
        content = json.loads(whole)
        group = content
        for key in place[:-1]:
            group = group.setdefault(key, {})
        group[place[-1]] = value
        path.write_text(json.dumps(content))
        assert "\n" not in said_of(lambda: predict(IMAGE, load_model(bundle)))
        assert "\n" not in said_of(lambda: class_names_of(bundle))


@pytest.mark.parametrize("name", ["models/code.py", "a.pyc", "__pycache__/a.cpython-311.pyc", "configs/other.json"])
def test_every_file_of_a_bundle_counts_for_trust(name: str, tmp_path: Path) -> None:
    config = untrusted_config(tmp_path)
    trust_bundle(config)
    assert load_model(config).trusted
    (config / name).parent.mkdir(exist_ok=True)
    (config / name).write_text("1")
    with pytest.raises(UntrustedError):
        load_model(config)


def untrusted_config(folder: Path) -> Path:
    """A bundle with a harmless expression."""
    bundle = good(folder)
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["num_classes"] = "$1 + 1"
    path.write_text(json.dumps(config))
    return bundle


def test_the_target_of_a_link_counts_for_trust(tmp_path: Path) -> None:
    bundle, target = untrusted_config(tmp_path), tmp_path / "code.py"
    target.write_text("1")
    (bundle / "code.py").symlink_to(target)
    trust_bundle(bundle)
    target.write_text("2")
    with pytest.raises(UntrustedError):
        load_model(bundle)


def test_code_that_a_trusted_bundle_imports_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Bytecode that Python stores beside the code would make it another bundle."""
    bundle = untrusted_config(tmp_path)
    (bundle / "own_code.py").write_text("CLASSES = 2")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    add = f"__import__('sys').path.append({str(bundle)!r})"
    config["network_def"]["num_classes"] = f"$({add}, __import__('own_code').CLASSES)[1]"
    path.write_text(json.dumps(config))
    trust_bundle(bundle)
    assert load_model(bundle).sha256 == load_model(bundle).sha256
    sys.path.remove(str(bundle))


def test_the_canary_sings_where_code_is_trusted(tmp_path: Path) -> None:
    """So that its silence means something."""
    bundle = MODELS["expression"].make(tmp_path)
    assert load_model(bundle, trust=True).class_names == ("a", "b")
    assert list(tmp_path.rglob("canary"))
