from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture
from scipy.ndimage import label
from test_cli import LESION, run

from napari_xai_med import evaluate
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.cases import case_of
from napari_xai_med.errors import InputError
from napari_xai_med.evaluation import COLUMNS, evaluate_case, metrics_for
from napari_xai_med.io.evaluation import evaluation_record, read_evaluation
from napari_xai_med.io.measured_again import metrics_of
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import metrics
from napari_xai_med.samples import sample_files

PANEL = [name for name, kind in metrics().items() if kind.panel]


@pytest.fixture(scope="module")
def heatmap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Grad-CAM of the sample volume, with its record, and a mask on a coarser grid that is 1 where it is high."""
    from napari_xai_med.cli import main

    folder = tmp_path_factory.mktemp("heatmap")
    assert main(["explain", LESION, "--model", "chest_ct_3d", "--out", str(folder)]) == 0
    path = folder / "chest_ct_lesion_gradcam_ground-glass.nii.gz"
    file = nibabel.load(path)
    mask = (file.get_fdata() > file.get_fdata().max() / 2)[::2, ::2, ::2]
    affine = file.affine @ np.diag([2, 2, 2, 1.0])
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), folder / "coarse.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros(mask.shape, np.uint8), affine), folder / "empty.nii.gz")
    return path


def test_numbers_are_those_of_scripts_with_controls_and_verdicts(
    heatmap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = heatmap.parent / "coarse.nii.gz"
    code, out, _ = run(
        capsys,
        "evaluate",
        heatmap,
        "--mask",
        mask,
        "--metrics",
        "binary_overlap,ranking",
        "--out",
        tmp_path / "sub",
    )
    assert code == 0
    assert out.endswith(f"{DISCLAIMER}\n")
    stem = heatmap.name.removesuffix(".nii.gz")
    frame = pd.read_csv(tmp_path / "sub" / f"{stem}_metrics.csv")
    record = json.loads((tmp_path / "sub" / f"{stem}_metrics.json").read_text())
    assert [each["metric"] for each in record["metrics"]] == ["binary_overlap", "ranking"]
    assert tuple(frame.columns) == COLUMNS
    expected = evaluate(heatmap, mask=mask, metrics=["binary_overlap", "ranking"])
    np.testing.assert_allclose(frame["value"], expected["value"])
    dice = frame[(frame["score"] == "dice") & (frame["subject"] == "explanation")]["value"].item()
    # Each voxel of the coarse mask is eight of the map's.
    assert dice > 0.7
    assert re.search(rf"dice +{dice:.4g} +chance 0\.", out)
    assert re.search(r"\n  \+ Dice .* by chance; the map marks the mask better", out)
    assert "Overlap above a threshold (overlap)\n  mask, > 0.5 of the maximum:" in out


def test_a_record_is_measured_again(heatmap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = heatmap.name.removesuffix(".nii.gz")
    mask = ("--mask", heatmap.parent / "coarse.nii.gz")
    words = ("--metrics", "binary_overlap,random_logit", "--set", "binary_overlap.lower=0.3", "--sign", "absolute")
    assert run(capsys, "evaluate", heatmap, *mask, *words, "--seed", "3", "--out", tmp_path / "one")[0] == 0
    record = tmp_path / "one" / f"{stem}_metrics.json"
    code, out, _ = run(capsys, "evaluate", heatmap, *mask, "--again", record, "--out", tmp_path / "two")
    assert (code, bool(re.search(r"\nAll \d+ numbers are those of the record\.\n", out))) == (0, True)
    one, two = ((tmp_path / name / f"{stem}_metrics.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    asked = ("--metrics", "random_logit,max_sensitivity", "--model", "chest_ct_3d", "--out", tmp_path / "asked")
    assert run(capsys, "evaluate", heatmap, *asked)[0] == 0
    told = tmp_path / "asked" / f"{stem}_metrics.json"
    # The record names the classifier and the one beside the heatmap the image.
    assert run(capsys, "evaluate", heatmap, "--again", told, "--out", tmp_path / "more")[0] == 0
    one, two = (pd.read_csv(tmp_path / name / f"{stem}_metrics.csv") for name in ("asked", "more"))
    pd.testing.assert_frame_equal(one, two)
    assert one["value"].notna().all()
    code, _, err = run(capsys, "evaluate", heatmap, "--again", record)
    assert (code, "under the same names (mask)" in err) == (2, True)
    empty = ("--mask", f"mask={heatmap.parent / 'empty.nii.gz'}")
    assert "The mask has changed since the record" in run(capsys, "evaluate", heatmap, *empty, "--again", record)[2]
    other = ("evaluate", heatmap.parent / "coarse.nii.gz", *mask, "--again", record)
    assert "not the one in the record" in run(capsys, *other)[2]
    assert "is not a record of an evaluation" in run(capsys, "evaluate", heatmap, "--again", heatmap)[2]
    other = ("evaluate", heatmap, *mask, "--again", record, "--other", f"same={heatmap}")
    assert "The other maps are not those in the record" in run(capsys, *other)[2]


@pytest.mark.parametrize(
    ("factor", "code", "told"),
    [
        (1 + 1e-9, 0, r"All \d+ numbers are those of the record to rounding\."),
        (0.5, 1, r"1 of \d+ numbers differs from the record, the most dice \(mask, > 0\.5 .*\): 1 now, 0\.5 there\."),
        (None, 1, r"1 of \d+ numbers differs from the record, the most dice .*: 1 now, none there\."),
    ],
)
def test_other_numbers_than_those_of_the_record_are_told(
    factor: float | None, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.eye(4)[None].repeat(3, 0).astype(np.uint8), np.eye(4)), path)
    words = ("evaluate", path, "--mask", path)
    assert run(capsys, *words, "--metrics", "binary_overlap", "--out", tmp_path)[0] == 0
    record = json.loads((tmp_path / "map_metrics.json").read_text())
    (dice,) = (
        each for each in record["metrics"][0]["scores"] if (each["score"], each["subject"][:4]) == ("dice", "expl")
    )
    dice["value"] = factor and factor * dice["value"]
    (tmp_path / "map_metrics.json").write_text(json.dumps(record))
    found = run(capsys, *words, "--again", tmp_path / "map_metrics.json")
    assert found[0] == code
    assert re.search(rf"\n{told}\n", found[1]), found[1]


@pytest.mark.parametrize("words", [["--seed", "0"], ["--sign", "absolute"], ["--set", "peak.tolerance=2"]], ids=str)
def test_what_a_record_says_can_t_be_said_beside_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "evaluate", "map.nii.gz", "--again", "record.json", *words)
    assert (code, f"leave out {words[0]}, or --again" in err) == (2, True)


@pytest.mark.parametrize(
    "broken",
    [
        {"metrics": [3]},
        {"metrics": [{"metric": "peak", "scores": [{}]}]},
        {"metrics": [{"metric": "peak", "scores": 1}]},
        {"masks": {"mask": 1}},
        {"others": []},
        {"second": 3},
        {"format": 0},
    ],
    ids=str,
)
def test_a_broken_record_is_one_sentence(broken: dict[str, Any], tmp_path: Path) -> None:
    case = case_of(np.eye(5), np.eye(5))
    record = evaluation_record(case, evaluate_case(case, metrics_for(case, ["peak"]), Job()))
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    assert metrics_of(read_evaluation(path)) == [{"metric": "peak", "tolerance": 0.0}]
    path.write_text(json.dumps(record | broken))
    with pytest.raises(InputError, match=r"is not a record of an evaluation: .*\.$"):
        read_evaluation(path)


def test_masks_have_names_and_empty_ones_reasons(heatmap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, coarse = heatmap.parent / "empty.nii.gz", heatmap.parent / "coarse.nii.gz"
    code, out, _ = run(capsys, "evaluate", heatmap, "--mask", f"none={empty}", "--mask", coarse, "--panel")
    assert code == 0
    assert "  none, > 0.5 of the maximum:" in out
    assert "    dice, iou, precision, recall, f1, hit, overlap_size: none. The mask is empty." in out
    assert "  mask 2, > 0.5 of the maximum:" in out
    code, _, err = run(capsys, "evaluate", heatmap, "--mask", f"a={empty}", "--mask", f"a={coarse}")
    assert code == 2
    assert "two files named a" in err


def test_options_of_metrics_are_set(heatmap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "evaluate",
        heatmap,
        "--mask",
        heatmap.parent / "coarse.nii.gz",
        "--metrics",
        "binary_overlap",
        "--metrics",
        "lesions",
    )
    sets = ("--set", "binary_overlap.threshold=top", "--set", "binary_overlap.lower=5", "--set", "lesions.edges=1,2")
    code, out, _ = run(capsys, *words, *sets)
    assert code == 0
    assert "top 5 % of the volume" in out
    assert "lesions > 1 mL, <= 2 mL" in out


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--set", "binary_overlap.lower"], "write METRIC.OPTION=VALUE"),
        (["--set", "lesions.lower=1"], "lesions is not among the metrics that are measured"),
        (["--set", "rankin.lower=1"], "There is no metric 'rankin'; the nearest is ranking"),
        (["--set", "binary_overlap.colour=1"], "has no option 'colour'; it has lower, threshold, upper"),
        (["--set", "binary_overlap.lower=much"], "can't be read"),
        (["--set", "binary_overlap.threshold=nice"], "choose one of"),
        (["--set", "binary_overlap.lower=2"], "can't be above 1"),
        (["--metrics", "beauty"], "There is no metric 'beauty'; napari-xai-med evaluate --list names all."),
        (["--metrics", "Dice"], "the nearest is binary_overlap, and napari-xai-med evaluate --list names all."),
        (["--metrics", "binary_overlp"], "the nearest are binary_overlap, "),
        (["--metrics", "saniti"], "the nearest is sanity, "),
        (["--mask", "nowhere.nii.gz"], "There is no file nowhere.nii.gz"),
        (["--record", "nowhere.json", "--model", "chest_ct_3d"], "nowhere.json"),
        (["--out", "/proc/nowhere"], "can't be written"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(
    heatmap: Path, wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = heatmap.parent / "coarse.nii.gz"
    code, _, err = run(capsys, "evaluate", heatmap, "--mask", mask, "--metrics", "binary_overlap", *wrong)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_all_metrics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "evaluate", "--list")
    assert (code, re.findall(r"^  (\w+)  ", out, re.M)) == (0, list(metrics()))


def test_without_a_map_or_a_mask_it_says_what_to_give(heatmap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Give the file of a heatmap" in run(capsys, "evaluate")[2]
    code, _, err = run(capsys, "evaluate", heatmap, "--metrics", "binary_overlap")
    assert code == 2
    assert "Overlap above a threshold needs a mask." in err


@pytest.mark.parametrize("record", [False, True], ids=["beside", "given"])
def test_the_record_tells_image_and_question(heatmap: Path, record: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_xai_med.cli import _kinds_in, _parser
    from napari_xai_med.commands.evaluate import _case

    own = str(heatmap).replace(".nii.gz", ".json")
    words = ["evaluate", str(heatmap), *(("--record", own) if record else ("--model", "chest_ct_3d"))]
    case = _case(_parser(_kinds_in(words)).parse_args(words))
    assert case.asked is not None
    assert case.asked.request.method == "gradcam"
    assert case.asked.request.target == "ground glass"
    assert case.intensities is not None
    assert case.intensities.shape[1:] == case.values.shape
    other = str(sample_files("chest_ct_normal")[0])
    code, _, err = run(capsys, *words, "--image", other)
    assert code == 2
    assert "The image is not the one in the record" in err


def test_other_maps_are_named(heatmap: Path) -> None:
    from napari_xai_med.cli import _kinds_in, _parser
    from napari_xai_med.commands.evaluate import _case

    words = ["evaluate", str(heatmap), "--other", f"again={heatmap}", "--sign", "absolute", "--seed", "3"]
    case = _case(_parser(_kinds_in(words)).parse_args(words))
    np.testing.assert_array_equal(case.others["again"], case.values)
    assert (str(case.sign), case.seed) == ("absolute", 3)


def test_a_picture_is_judged_by_the_mask_of_its_size(
    tmp_path: Path, shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The heatmap of a breast ultrasound, saved as a volume of one slice, and the experts' picture of the lesion."""
    folder = shared_data("busi")
    image = sorted((folder / "malignant" / "images").glob("*.png"))[0]
    mask = folder / "malignant" / "masks" / image.name
    height, width = np.asarray(Picture.open(mask)).shape[:2]
    lesion = np.asarray(Picture.open(mask).convert("L")) > 0
    words = ("explain", image, "--model", "chest_ct_2d", "--method", "saliency", "--out", tmp_path)
    assert run(capsys, *words)[0] == 0
    (path,) = tmp_path.glob("*.nii.gz")
    words = ("evaluate", path, "--mask", f"lesion={mask}", "--panel", "--out", tmp_path)
    assert run(capsys, *words)[0] == 0
    (table,) = tmp_path.glob("*_metrics.csv")
    frame = pd.read_csv(table).set_index(["score", "subject"])
    assert frame.loc[("mask_size", "explanation"), "value"] == lesion.sum()
    assert frame.loc[("mask_size", "explanation"), "unit"] == "pixels"
    assert frame.loc[("auprc", "chance"), "value"] == pytest.approx(lesion.sum() / height / width)
    values = nibabel.load(path).get_fdata()
    assert values.size == lesion.size
    peaks = np.unravel_index(values.argmax(), values.shape)
    assert (
        frame.loc[("pointing_game", "explanation"), "value"]
        == lesion.ravel()[np.ravel_multi_index(peaks, values.shape)]
    )


def test_a_mask_on_another_grid_is_found_in_the_patient(
    tmp_path: Path, shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """An expert's mask of 512 x 512 x 38 voxels of 8 mm, and a map of 128 x 128 x 64 at the same place."""
    path = shared_data("mosmed_thesis") / "study_0255_mask.nii.gz"
    file = nibabel.load(path)
    spread = np.array([128, 128, 64]) / file.shape
    affine = file.affine @ np.diag([*(1 / spread), 1])
    affine[:3, 3] += file.affine[:3, :3] @ ((1 / spread - 1) / 2)
    # In the middle of the largest opacity.
    labels, _ = label(file.get_fdata() > 0)
    centre = np.argwhere(labels == np.bincount(labels[labels > 0]).argmax()).mean(0)
    where = np.stack(np.meshgrid(*map(np.arange, (128, 128, 64)), indexing="ij"), -1)
    world = where @ affine[:3, :3].T + affine[:3, 3]
    middle = file.affine[:3, :3] @ centre + file.affine[:3, 3]
    values = np.exp(-(((world - middle) / 20) ** 2).sum(-1)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "map.nii.gz")
    words = ("evaluate", tmp_path / "map.nii.gz", "--mask", path, "--metrics", "binary_overlap,peak,distances")
    assert run(capsys, *words, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "map_metrics.csv").set_index(["score", "subject"])["value"]
    litres = (file.get_fdata() > 0).sum() * np.prod(file.header.get_zooms()) / 1000
    # The nearest voxels of another grid are the mask's volume but for its surface.
    assert frame[("mask_size", "explanation")] == pytest.approx(litres, rel=0.05)
    assert frame[("dice", "explanation")] > frame[("dice", "chance")]
    assert not isnan(frame[("peak_distance", "explanation")])
    assert frame[("peak_distance", "explanation")] < frame[("peak_distance", "chance")]


def test_published_tables_are_printed_side_by_side(
    tmp_path: Path, shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "evaluate", "--as-published", shared_data("mosmed_thesis"), "--out", tmp_path)
    assert code == 0
    assert re.search(r"0258, > 0\.7 +0\.99500 +0\.99500 +0\.98474 +0\.15030", out)
    assert DISCLAIMER in out
    assert len(pd.read_csv(tmp_path / "published.csv")) == 8


def test_a_mask_that_is_left_out_is_named_for_pictures_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The heatmap of a picture was saved as a volume of one slice: without the mask it looks like another map."""
    image, mask = sample_files("slice_ground_glass")
    assert run(capsys, "explain", image, "--model", "chest_ct_2d", "--out", tmp_path)[0] == 0
    (heatmap,) = tmp_path.glob("*gradcam*.nii.gz")
    asked = ("--mask", f"gg={mask}", "--metrics", "peak", "--out", tmp_path / "one")
    assert run(capsys, "evaluate", heatmap, *asked)[0] == 0
    (record,) = (tmp_path / "one").glob("*_metrics.json")
    code, _, err = run(capsys, "evaluate", heatmap, "--again", record)
    assert (code, "The masks are not those in the record; give them under the same names (gg)." in err) == (2, True)
