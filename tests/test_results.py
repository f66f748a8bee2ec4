"""Files of explanations by segments, and what they were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from napari_xai_med import explain, load_model, read_image
from napari_xai_med.cli import main
from napari_xai_med.colours import SIGNED_COLORMAPS, colours_of
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_request
from napari_xai_med.figures import three_views
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.io import read_label_map
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.io.results import file_stem, save_results
from napari_xai_med.job import Job
from napari_xai_med.record import Record
from napari_xai_med.request import ExplainRequest
from napari_xai_med.samples import sample_files
from napari_xai_med.segmenting import Regions, segments_request
from napari_xai_med.segments.best import Best, best_segments, only, painted
from napari_xai_med.segments.choice import DRAWN, GIVEN, SegmentChoice
from napari_xai_med.widgets.colours import thresholded

CASES = {"volume": ("chest_ct_lesion", "chest_ct_3d"), "slice": ("chest_ct_lesion", "chest_ct_2d")}
CASES |= {"picture": ("slice_nodule", "chest_ct_2d")}
FEW = SegmentChoice("slic", {"number": 6})


def asked(case: str, segments: SegmentChoice) -> tuple[Image, Any, ExplainRequest]:
    sample, model = CASES[case]
    request = ExplainRequest("segment_occlusion", slice=24 if case == "slice" else None, segments=segments)
    return read_image(sample_files(sample)[0]), load_model(model), request


def drawn_on(image: Image) -> tuple[Image, Image]:
    """Labels on another grid than the image's, finer and moved by a part of a voxel, and a mask on its own."""
    shape = tuple(2 * n for n in image.grid.shape)
    finer = np.diag([0.5] * image.ndim + [1.0])
    finer[:-1, -1] = 0.3
    blocks = [np.arange(n) * 3 // n for n in shape]
    labels = sum(np.ix_(*blocks)) % 4
    grid = Grid(shape, (image.grid.affine @ finer).astype(np.float32))
    mask = np.zeros(image.grid.shape)
    mask[tuple(slice(n // 4, None) for n in mask.shape)] = 1
    affine = image.grid.affine.astype(np.float32)
    return Image(labels[None].astype(np.float32), grid, "labels"), Image(mask[None], Grid(mask.shape, affine), "mask")


@pytest.mark.parametrize("case", CASES)
def test_segments_and_their_table_are_written(case: str, tmp_path: Path) -> None:
    image, classifier, request = asked(case, FEW)
    found = explain_request(image, classifier, request, Job())
    files = save_results(image, found, tmp_path)
    assert set(files.written) == set(tmp_path.iterdir())
    assert files.segments is not None
    assert files.table is not None
    assert found.segments is not None
    saved, heatmap = nibabel.load(files.segments), nibabel.load(files.heatmap)
    np.testing.assert_array_equal(saved.affine, heatmap.affine)
    labels = np.asarray(saved.dataobj)
    np.testing.assert_array_equal(labels.reshape(found.segments.labels.shape), found.segments.labels)
    table = pd.read_csv(files.table)
    # Not what is no segment.
    pd.testing.assert_frame_equal(table, found.segments.table.iloc[1:].reset_index(drop=True), check_dtype=False)
    # The heatmap is the table, painted.
    np.testing.assert_array_equal(painted(labels, found.segments.table), np.asarray(heatmap.dataobj))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("what", ["labels", "background", "mask", "both"])
def test_what_was_drawn_in_memory_is_written_and_gives_the_map_again(
    case: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = GIVEN if what in ("mask", "both") else ""
    choice = SegmentChoice(**FEW.to_dict() | {"mask": mask})
    if what != "mask":
        choice = SegmentChoice(DRAWN, labels=GIVEN, background=what == "background", mask=mask)
    image, classifier, request = asked(case, choice)
    labels, inside = drawn_on(image)
    regions = Regions(labels if choice.labels else None, inside if mask else None)
    found = explain_request(image, classifier, request, Job(), regions)
    monkeypatch.chdir(tmp_path)
    files = save_results(image, found, "out", regions=regions)
    assert (files.labels is None, files.mask is None) == (what == "mask", not mask)
    told = Record.read(files.record).request["segments"]
    assert all(Path(told[key]).is_absolute() for key in ("labels", "mask") if told[key])
    # From another folder.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["explain", "--record", str(tmp_path / files.record)]) == 0
    assert "The map equals the recorded one bit for bit." in capsys.readouterr().out


def test_python_code_says_which_segments() -> None:
    def code(choice: SegmentChoice) -> str:
        request = ExplainRequest("segment_occlusion", segments=choice)
        return request.as_python("image", "chest_ct_2d", labels="drawn()", mask="inside()")

    assert "segments={'method': 'slic', 'number': 50}, mask='body')" in code(
        SegmentChoice("slic", {"number": 50}, mask="body")
    )
    assert "segments='organs.nii.gz')" in code(SegmentChoice(DRAWN, labels="organs.nii.gz"))
    assert "segments=drawn(), mask=inside())" in code(SegmentChoice(DRAWN, labels=GIVEN, mask=GIVEN))
    with_background = SegmentChoice(DRAWN, labels="a.nii", background=True)
    assert "segments={'labels': 'a.nii', 'background': True})" in code(with_background)
    # What scripts say in return.
    for choice in (SegmentChoice("grid", {"number": 5}), with_background, SegmentChoice(DRAWN, labels="a.nii")):
        (told,) = choice.as_python()
        assert SegmentChoice.of(eval(told.removeprefix("segments="))) == choice
    assert "segments" not in ExplainRequest().as_python("image", "chest_ct_2d")


@pytest.mark.parametrize("case", CASES)
def test_segments_alone_are_those_of_the_explanation(case: str) -> None:
    image, classifier, request = asked(case, FEW)
    alone = segments_request(image, classifier, request, Job())
    found = explain_request(image, classifier, request, Job())
    assert found.segments is not None
    np.testing.assert_array_equal(alone.segments.labels, found.segments.labels)
    np.testing.assert_array_equal(alone.grid.affine, found.grid.affine)
    columns = list(alone.segments.table)
    pd.testing.assert_frame_equal(alone.segments.table, found.segments.table[columns])
    assert "contribution" not in columns
    assert alone.title == "SLIC"


def test_best_segments() -> None:
    contributions = np.array([0.5, -2.0, 1.0, 0.0, -0.1])
    for which, expected in {
        Best.LARGEST: [2, 3, 1, 5, 4],
        Best.SUPPORTING: [3, 1],
        Best.AGAINST: [2, 5],
    }.items():
        for count in range(1, 6):
            assert best_segments(contributions, count, which).tolist() == expected[:count]
    labels = np.arange(6, dtype=np.int32).reshape(2, 3)
    np.testing.assert_array_equal(only(labels, np.array([3, 5])), [[0, 0, 0], [3, 0, 5]])
    assert not only(labels, np.array([], int)).any()


def test_files_of_other_segments_do_not_take_each_other_s_place(tmp_path: Path) -> None:
    _, classifier, request = asked("picture", FEW)
    image = read_image(sample_files("slice_nodule")[0])
    labels = np.repeat(np.arange(1, 5), 32)[:, None] * np.ones((1, 128), int)
    drawn = [Image(each[None].astype(np.float32), image.grid) for each in (labels, labels.T)]
    given = SegmentChoice(DRAWN, labels=GIVEN)
    stems = []
    for choice, regions in (
        (None, None),
        (FEW, None),
        (replace(FEW, mask="body"), None),
        (replace(FEW, options={"number": 7}), None),
        *((given, Regions(each)) for each in drawn),
    ):
        found = explain_request(image, classifier, replace(request, segments=choice), Job(), regions)
        stems.append(save_results(image, found, tmp_path, regions=regions).heatmap.name)
        assert file_stem(image, found) + ".nii.gz" == stems[-1]
    assert len(set(stems)) == 6
    # Without a choice the name is as short as it was.
    assert stems[0] == "slice_nodule_segment_occlusion_nodule.nii.gz"


def test_a_label_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    for value in (1, 2):
        save_nifti(path, np.full((3, 4, 5), value, np.int32), Grid((3, 4, 5), np.eye(4)), "labels")
        first = read_label_map(path)
        assert (first.data == value).all()
        assert read_label_map(path) is first
    path.unlink()
    with pytest.raises(InputError, match="There is no file"):
        read_label_map(path)


def test_the_best_segments_are_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, classifier, request = asked("picture", FEW)
    found = explain_request(image, classifier, request, Job())
    assert found.segments is not None
    table = found.segments.table.iloc[1:]
    rising = table.sort_values("contribution").segment.tolist()
    for which, expected in {"supporting": rising[-2:], "against": rising[:1]}.items():
        kept = found.best_segments(len(expected), which)
        np.testing.assert_array_equal(
            kept, np.where(np.isin(found.segments.labels, expected), found.segments.labels, 0)
        )
    words = ["explain", str(image.source), "--model", "chest_ct_2d", "--method", "segment_occlusion"]
    words += ["--segments-number", "6", "--out", str(tmp_path), "--best", "2"]
    assert main([*words, "--best-of", "supporting"]) == 0
    (file,) = tmp_path.glob("*_best.nii.gz")
    saved = read_image(file).data[0].reshape(found.values.shape)
    np.testing.assert_array_equal(saved, found.best_segments(2, "supporting"))
    # The same of a record, and nothing that can't be.
    again = ["explain", "--record", str(next(tmp_path.glob("*.json"))), "--out", str(tmp_path)]
    assert main([*again, "--best", "3"]) == 0
    assert len(np.unique(read_image(file).data)) == 4
    assert "segments, and not" not in capsys.readouterr().out
    assert main([*again, "--best", "5000"]) == 0
    assert f"Note: There are {len(table)} segments, and not 5000." in capsys.readouterr().out
    for wrong, sentence in {
        ("--best", "0"): "give --best at least 1",
        ("--best", "2", "--method", "gradcam"): "does not explain by segments; leave --best out",
    }.items():
        assert main([*words[:4], "--method", "segment_occlusion", *wrong]) == 2
        assert sentence in capsys.readouterr().err
    for count, which, sentence in (
        (0, "largest", "at least 1"),
        (1, "bst", "choose one of largest, supporting, against"),
    ):
        with pytest.raises(InputError, match=sentence):
            found.best_segments(count, which)
    with pytest.raises(InputError, match="does not explain by segments"):
        explain(image, classifier).best_segments(1)


def test_an_estimate_is_marked_and_is_not_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, classifier, request = asked("picture", FEW)
    seen: list[Any] = []
    result = explain_request(image, classifier, request, Job(partial=seen.extend))
    assert "stopped" not in result.record.method
    assert seen[0].record.method["stopped"]
    files = save_results(image, seen[0], tmp_path)
    assert main(["explain", "--record", str(files.record), "--out", str(tmp_path)]) == 2
    assert "was stopped before its end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "segments", "sentence"),
    [
        ("gradcam", "slic", "Grad-CAM does not explain by segments; leave"),
        ("segment_occlusion", {"labels": np.ones((128, 128), int), "numbr": 5}, "Drawn segments have no numbr; leave"),
        # The next number would become this one.
        ("segment_occlusion", np.full((128, 128), 2**24 + 1), "labels of 16777216 or more, which can't be told apart"),
    ],
)
def test_what_would_be_ignored_is_told(method: str, segments: Any, sentence: str) -> None:
    image, classifier, _ = asked("picture", FEW)
    with pytest.raises(InputError, match=sentence):
        explain(image, classifier, method, segments=segments)


@pytest.mark.parametrize("name", SIGNED_COLORMAPS)
def test_green_supports_and_another_colour_speaks_against(name: str) -> None:
    against, supports = colours_of(name, np.array([0.0, 1.0]))
    assert supports[1] > supports[0]
    assert supports[1] > supports[2]
    assert against[1] < max(against[0], against[2])


def test_red_speaks_against_in_figures_as_in_the_viewer() -> None:
    image, classifier, request = asked("picture", FEW)
    found = explain_request(image, classifier, request, Job())
    assert found.values.min() < 0 < found.values.max()
    drawn = three_views(image, found).axes[0].images[-1].get_array()
    assert drawn is not None
    limit = found.display_limits[1]
    shown = thresholded(SIGNED_COLORMAPS[0], 0, signed=True).map((found.values.ravel() / limit + 1) / 2)
    for colours in (np.asarray(drawn), shown.reshape(drawn.shape)):
        red, green, blue, opacity = np.moveaxis(colours, -1, 0)
        # Where rounding to one of 256 colours does not matter.
        for strong, weak, where in (
            (green, red, found.values > 0.02 * limit),
            (red, green, found.values < -0.02 * limit),
        ):
            # None of what looks pink or yellow.
            assert (strong[where] > 2 * np.maximum(weak, blue)[where]).all()
        assert not opacity[found.values == 0].any()
        strength = np.abs(found.values)
        assert opacity[strength == strength.max()].min() > opacity[strength < 0.5 * limit].max()
