from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import FEW_MASKED
from PIL import Image as Picture

from napari_xai_med import explain_all, load_model
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.basis import basis
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import explainers
from napari_xai_med.options import option_fields
from napari_xai_med.samples import sample_files

LESION = str(sample_files("chest_ct_lesion")[0])


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_demo_headless_writes_heatmap_picture_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--headless", "--out", tmp_path)
    assert code == 0
    assert DISCLAIMER in out
    stem = tmp_path / "chest_ct_lesion_gradcam_ground-glass"
    source, heatmap = nibabel.load(LESION), nibabel.load(f"{stem}.nii.gz")
    assert heatmap.shape == source.shape
    np.testing.assert_allclose(heatmap.affine, source.affine, atol=1e-4)
    assert heatmap.get_fdata().max() > 0
    assert Picture.open(f"{stem}.png").size[0] > 1000
    record = json.loads(Path(f"{stem}.json").read_text())
    assert record["disclaimer"] == DISCLAIMER
    assert record["result"]["maximum"] == pytest.approx(float(heatmap.get_fdata().max()))


def test_predict_prints_all_classes_sorted(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "predict", "chest_ct_lesion", "--model", "chest_ct_3d")
    assert code == 0
    lines = [line.rsplit(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    values = [float(value) for _, value in lines]
    assert [name.strip() for name, _ in lines] == ["ground glass", "normal"]
    assert sum(values) == pytest.approx(1, abs=1e-3)
    assert DISCLAIMER in out


def test_how_many_segments_were_made_and_how_well_lime_fits_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--segments", "slic", "--segments-number", 12, "--samples", 100, "--top-classes", 2, "--out", tmp_path)
    code, out, _ = run(capsys, "explain", "slice_nodule", "--model", "chest_ct_2d", "--method", "lime", *words)
    assert code == 0
    found = explain_all(
        sample_files("slice_nodule")[0],
        "chest_ct_2d",
        "lime",
        top_classes=2,
        segments={"method": "slic", "number": 12},
        samples=100,
    )
    fits, ranks = [], []
    for each in found:
        assert each.segments is not None
        table = each.segments.table
        fits.append(each.record.method["r2"])
        told = f"{table['segment'].max()} segments, {each.record.method['evaluations']} evaluations"
        error = f"largest standard error {table['standard_error'].max():.2g}"
        ranks.append(each.record.method["expected_rank_correlation"])
        sure = f"R2 {fits[-1]:.2f}, rank correlation with another seed {ranks[-1]:.3f}"
        assert f"LIME for {each.about} ({told}, {error}, {sure}):" in out
    assert basis(found).endswith(f"lowest R2 {min(fits):.2f}, rank correlation with another seed {min(ranks):.3f}")
    assert not basis([explain_all(sample_files("slice_nodule")[0], "chest_ct_2d", "saliency")[0]])


def test_layers_lists_sizes_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "layers", LESION, "--model", "chest_ct_3d")
    assert code == 0
    (default,) = [line for line in out.splitlines() if "(default)" in line]
    assert "Conv3d  64 maps of 16 x 16 x 8" in default


def test_explain_any_layer_and_the_opposite_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = "features.2.conv"
    code, out, _ = run(
        capsys,
        "explain",
        LESION,
        "--model",
        "chest_ct_3d",
        "--method",
        "gradcam",
        "--layers",
        layer,
        "--target",
        "normal",
        "--out",
        tmp_path,
    )
    assert code == 0
    assert f"Grad-CAM at {layer} for normal" in out
    record = json.loads((tmp_path / f"chest_ct_lesion_gradcam-{layer}_normal.json").read_text())
    assert record["request"]["options"] == {"layers": [layer], "separate": False}
    assert record["method"]["layer"] == layer


def test_layers_one_by_one_have_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = ("features.1.conv", "features.2.conv")
    command = ("explain", LESION, "--model", "chest_ct_3d", "--layers", ",".join(layers), "--out", tmp_path)
    assert run(capsys, *command, "--separate")[0] == 0
    for layer in layers:
        record = json.loads((tmp_path / f"chest_ct_lesion_gradcam-{layer}_ground-glass.json").read_text())
        assert record["method"]["layer"] == layer
    assert run(capsys, *command)[0] == 0
    assert (tmp_path / "chest_ct_lesion_gradcam-2-layers_ground-glass.nii.gz").is_file()


def test_the_most_probable_classes_from_one_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("explain", "slice_nodule", "--model", "chest_ct_2d", "--out", tmp_path)
    code, out, _ = run(capsys, *command, "--top-classes", "2")
    assert code == 0
    first, second, last = [line.split("  ")[1] for line in out.splitlines() if line.startswith("  ")][:3]
    # Each can be computed again by itself.
    for name in (first, second):
        record = tmp_path / f"slice_nodule_gradcam_{name.replace(' ', '-')}.json"
        assert run(capsys, "explain", "--record", record, "--out", tmp_path / "again")[0] == 0
    assert len(list(tmp_path.glob("*.json"))) == 2
    found = explain_all(sample_files("slice_nodule")[0], "chest_ct_2d", top_classes=2)
    assert [each.class_name for each in found] == [first, second]
    assert not any("to explain" in notice for each in found for notice in each.notices)
    out = run(capsys, *command, "--top-classes", "9")[1]
    assert out.count("Note: There are 3 classes to explain, and not 9.") == 1
    against = explain_all(sample_files("slice_nodule")[0], "chest_ct_2d", top_classes=5, against=first)
    assert [each.class_name for each in against] == [second, last]
    with pytest.raises(InputError, match="but not both"):
        explain_all(sample_files("slice_nodule")[0], "chest_ct_2d", targets=[first], top_classes=2)


def test_a_record_computes_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "explain", LESION, "--model", "chest_ct_3d", "--out", tmp_path)[0] == 0
    record = tmp_path / "chest_ct_lesion_gradcam_ground-glass.json"
    code, out, _ = run(capsys, "explain", "--record", record, "--out", tmp_path / "again")
    assert code == 0
    assert "equals the recorded one bit for bit" in out
    content = json.loads(record.read_text())
    content["result"]["sha256"] = "0"
    record.write_text(json.dumps(content))
    code, out, _ = run(capsys, "explain", "--record", record, "--out", tmp_path / "again")
    assert code == 1
    assert "DIFFERS" in out
    content["image"]["sha256"] = "0"
    record.write_text(json.dumps(content))
    code, _, err = run(capsys, "explain", "--record", record, "--out", tmp_path / "again")
    assert code == 2
    assert "The image is not the one in the record" in err


def test_a_slice_of_a_volume_by_a_2d_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "explain", LESION, "--model", "chest_ct_2d", "--out", tmp_path)
    assert code == 2
    assert "choose a slice from 0 to 39" in err
    code, _, _ = run(
        capsys, "explain", LESION, "--model", "chest_ct_2d", "--slice", "20", "--target", "1", "--out", tmp_path
    )
    assert code == 0
    heatmap = nibabel.load(tmp_path / "chest_ct_lesion_axial20_gradcam_ground-glass.nii.gz")
    source = nibabel.load(LESION)
    assert heatmap.shape == (*source.shape[:2], 1)
    np.testing.assert_allclose(heatmap.affine[:3, :3], source.affine[:3, :3], atol=1e-4)
    np.testing.assert_allclose(
        heatmap.affine[:3, 3], nibabel.affines.apply_affine(source.affine, (0, 0, 39 - 20)), atol=1e-3
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("predict", "nothing.nii", "--model", "chest_ct_3d"), 2, "There is no file nothing.nii"),
        (("predict", LESION, "--model", "nothing"), 3, "There is no bundle folder or zip nothing"),
        (("predict", "slice_nodule", "--model", "chest_ct_3d"), 2, "takes 3D images"),
        (("explain", LESION, "--model", "chest_ct_3d", "--target", "cat"), 2, "has no class 'cat'"),
        (("explain", LESION, "--model", "chest_ct_3d", "--layers", "cat"), 2, "no feature maps at layer 'cat'"),
        (("explain", LESION, "--model", "chest_ct_3d", "--top-classes", "0"), 2, "give at least 1"),
        (("explain", "--out", "x"), 2, "Give an image and --model"),
        (("explain", "nothing.nii", "--model", "chest_ct_3d", "--bands", "0.7,0.3"), 2, "can't be the edges of bands"),
        (("explain", "--record", "nothing.json"), 2, "There is no record nothing.json"),
        (("explain", "--record", LESION), 2, "is not a record"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    words: tuple[str, ...], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(capsys, *words)
    assert found == code
    assert err.startswith("napari-xai-med: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""


def test_untrusted_bundles_have_their_own_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from helpers import write_bundle

    bundle = write_bundle(tmp_path / "b", {"network_def": "$print(1)", "preprocessing": {"_target_": "Compose"}}, ["a"])
    (bundle / "models" / "model.pt").write_bytes(b"")
    code, _, err = run(capsys, "predict", LESION, "--model", bundle)
    assert code == 4
    assert "--trust" in err


def test_unwritable_folders_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "explain", LESION, "--model", "chest_ct_3d", "--out", tmp_path / "file")
    assert code == 2
    assert "can't be written" in err


def test_without_a_display_the_demo_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, _, err = run(capsys, "demo")
    assert code == 2
    assert "--headless --out DIR" in err


@pytest.mark.parametrize("name", explainers())
def test_every_method_with_its_options(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, object] = {
        "steps": 2,
        "window": 60.0,
        "stride": 60.0,
        "channels": 2,
        "noise-samples": 2,
        "noise-tunnel": "smoothgrad",
        **FEW_MASKED,
    }
    own = [item.name.replace("_", "-") for item in option_fields(explainers()[name])]
    options = [word for key, value in small.items() if key in own for word in (f"--{key}", str(value))]
    command = ["explain", "slice_nodule", "--model", "chest_ct_2d", "--method", name, *options]
    code, out, error = run(capsys, *command, "--out", tmp_path)
    if code:
        assert code == 3
        # The embedded classifier is no transformer, and its last feature maps are not only pooled.
        assert any(word in error for word in ("attention", "tokens", "CAM needs"))
        return
    assert explainers()[name].caution in out
    (record,) = tmp_path.glob("*.json")
    code, out, _ = run(capsys, "explain", "--method", name, "--record", record, "--out", tmp_path / "again")
    assert (code, "bit for bit" in out) == (0, True)


def test_each_class_with_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "slice_nodule", "--model", "chest_ct_2d", "--bands", "0.3,0.7", "--out", tmp_path]
    classes = load_model("chest_ct_2d").class_names
    code, out, _ = run(capsys, *command, "--each-class")
    assert code == 0
    assert all(f"Grad-CAM for {name}:" in out for name in classes)
    assert len(list(tmp_path.glob("*.json"))) == len(list(tmp_path.glob("*_bands.nii.gz"))) == len(classes)


def test_a_class_rather_than_another_and_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", LESION, "--model", "chest_ct_3d", "--target", "ground glass", "--out", tmp_path]
    code, out, _ = run(capsys, *command, "--against", "normal", "--method", "hirescam", "--minus", "gradcam")
    assert code == 0
    assert "HiResCAM minus Grad-CAM for ground glass rather than normal" in out
    (path,) = tmp_path.glob("*.json")
    assert path.name == "chest_ct_lesion_hirescam-minus-gradcam_ground-glass-rather-than-normal.json"
    code, out, _ = run(capsys, "explain", "--record", path, "--out", tmp_path / "again")
    assert (code, "bit for bit" in out) == (0, True)
    code, _, error = run(capsys, *command, "--against", "normal", "--quantity", "probability")
    assert (code, "leave out probability" in error) == (2, True)
