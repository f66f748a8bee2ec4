from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from test_cli import run

from napari_xai_med import Image, explain_slices, read_image
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import InputError
from napari_xai_med.io.slices import SlicesRecord, save_slices
from napari_xai_med.samples import sample_files

LESION, MASK = map(str, sample_files("chest_ct_lesion"))
COMMAND = ("slices", LESION, "--model", "chest_ct_2d", "--count", "2", "--segments-number", "20")


def test_the_whole_pipeline_writes_what_computes_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--volume-model", "chest_ct_3d", "--rule-by", "max", "--minimum-distance", "20", "--out", tmp_path)
    code, out, _ = run(capsys, *COMMAND, *words)
    assert code == 0
    assert DISCLAIMER in out
    found = explain_slices(
        LESION,
        "chest_ct_2d",
        segments={"method": "slic", "number": 20},
        count=2,
        minimum_distance=20.0,
        rule_options={"by": "max"},
        volume_classifier="chest_ct_3d",
    )
    summary = tmp_path / "chest_ct_lesion_slices.json"
    told = json.loads(summary.read_text())
    assert told["choice"]["options"] == {"by": "max"}
    assert [row["slice"] for row in told["slices"]] == list(found.slices.indices)
    assert [row["score"] for row in told["slices"]] == list(found.slices.scores)
    source = nibabel.load(LESION)
    for index, row, each in zip(found.slices.indices, told["slices"], found.attributions, strict=True):
        assert f"axial {index}: score" in out
        assert row["probability"] == dict(each.prediction.ranked)
        heatmap = nibabel.load(tmp_path / row["heatmap"])
        np.testing.assert_array_equal(heatmap.get_fdata(dtype=np.float32), each.values)
        # The file's own slices run from the feet.
        place = nibabel.affines.apply_affine(source.affine, (0, 0, source.shape[2] - 1 - index))
        np.testing.assert_allclose(heatmap.affine[:3, 3], place, atol=1e-3)
        assert (tmp_path / row["figure"]).is_file()
    assert nibabel.load(tmp_path / told["volume"]["heatmap"]).shape == source.shape
    code, out, _ = run(capsys, "slices", "--record", summary, "--out", tmp_path / "again")
    assert (code, "All maps equal the recorded ones bit for bit." in out) == (0, True)
    assert {path.name for path in tmp_path.glob("*.*")} == {path.name for path in (tmp_path / "again").iterdir()}


def test_a_mask_and_other_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what was changed since is seen."""
    words = ("--rule", "mask", "--rule-mask", MASK, "--plane", "coronal", "--method", "gradcam", "--target", "nodule")
    assert run(capsys, *COMMAND[:6], *words, "--out", tmp_path)[0] == 0
    summary = tmp_path / "chest_ct_lesion_slices.json"
    told = json.loads(summary.read_text())
    assert told["volume"] is None
    assert {row["explained"] for row in told["slices"]} == {"nodule"}
    again = ("slices", "--record", summary, "--out", tmp_path / "again")
    assert run(capsys, *again)[0] == 0
    for path, content in (("slices", "The maps DIFFER"), ("choice", "The slices DIFFER")):
        changed = json.loads(summary.read_text())
        if path == "choice":
            changed["slices"][0]["score"] += 1
            summary.write_text(json.dumps(changed))
        else:
            record = tmp_path / changed["slices"][0]["record"]
            kept = record.read_text()
            record.write_text(kept.replace(json.loads(kept)["result"]["sha256"], "0" * 64))
        code, out, _ = run(capsys, *again)
        assert (code, content in out) == (1, True)
    changed["mask_sha256"] = "0"
    summary.write_text(json.dumps(changed))
    code, _, err = run(capsys, *again)
    assert (code, "The mask is not the one in the record" in err) == (2, True)


def test_a_mask_in_memory_is_saved_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = read_image(LESION), read_image(MASK)
    found = explain_slices(image, "chest_ct_2d", "gradcam", rule="mask", rule_mask=mask, count=1)
    *_, summary = save_slices(image, found, tmp_path, mask)
    record = SlicesRecord.read(summary)
    assert record.choice.mask == str(tmp_path / "chest_ct_lesion_slices_mask.nii.gz")
    code, out, _ = run(capsys, "slices", "--record", summary, "--out", tmp_path / "again")
    assert (code, "bit for bit" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("slices",), "Give an image and --model, a 2D classifier"),
        (COMMAND, "looks at a heatmap; choose a 3D classifier"),
        ((*COMMAND, "--rule", "mask"), "needs a mask"),
        ((*COMMAND, "--volume-model", "chest_ct_2d"), "choose a 3D classifier for the volume"),
        ((*COMMAND[:4], "--rule", "body", "--count", "0"), "give at least one slice"),
        (("slices", "--record", "nothing.json"), "There is no record nothing.json"),
        (("slices", "--record", LESION), "is not a record of explained slices"),
    ],
)
def test_bad_input_is_one_sentence(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert (code, sentence in err, err.count("\n")) == (2, True, 1)


def test_a_folder_that_can_not_be_written_and_a_foreign_summary(tmp_path: Path) -> None:
    image = Image.from_array(np.random.default_rng(0).random((6, 16, 16)))
    found = explain_slices(image, "chest_ct_2d", "gradcam", rule="intensity", rule_options={"low": 0.0, "high": 1.0})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        save_slices(image, found, tmp_path / "file")
    *_, summary = save_slices(image, found, tmp_path)
    summary.write_text(summary.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(InputError, match="has format 9"):
        SlicesRecord.read(summary)
