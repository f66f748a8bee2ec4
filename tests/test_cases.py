from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from napari_xai_med import Image, check_explanation, choose_slices, evaluate, explain, load_model, read_image
from napari_xai_med.cases import case_of, mask_on
from napari_xai_med.errors import InputError
from napari_xai_med.evaluation import COLUMNS, evaluate_case
from napari_xai_med.grid import Grid
from napari_xai_med.io.evaluation import save_evaluation
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.io.results import save_results
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.samples import sample_files

TURN = np.array([[0, -2.0, 0, 30], [3, 0, 0, -10], [0, 0, 5, 7], [0, 0, 0, 1]])


def moved(*by: float) -> Any:
    """An affine that only moves."""
    affine = np.eye(4)
    affine[:3, 3] = by
    return affine


def test_a_mask_lies_where_its_world_says() -> None:
    grid = Grid((8, 10, 6), TURN)
    point = grid.to_world((3, 4, 2))
    fine = Grid((60, 60, 60), moved(-5, -12, 3))
    index = np.array([fine.to_world(i) for i in np.ndindex(fine.shape)])
    inside = (np.abs(index - point) <= [1.0, 1.5, 2.5]).all(1).reshape(fine.shape)
    found = mask_on(grid, Image(inside[None].astype(np.float32), fine))
    assert np.argwhere(found).tolist() == [[3, 4, 2]]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.ones((3, 3, 3)), "has shape"),
        (Image(np.ones((1, 4, 4, 4), np.float32), Grid((4, 4, 4), moved(900, 0, 0))), "beside the map"),
        (Image(np.ones((2, 8, 10, 6), np.float32), Grid((8, 10, 6), TURN)), "2 channels"),
        (Image.from_array(np.ones((8, 10))), "is 2D"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_sentence(mask: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        mask_on(Grid((8, 10, 6), TURN), mask)


@pytest.mark.parametrize(
    ("name", "told"), [("mask", "The mask has"), ("mask 2", "The mask 2 has"), ("lesion", "The mask lesion has")]
)
def test_a_mask_is_called_a_mask_once(name: str, told: str) -> None:
    with pytest.raises(InputError, match=f"^{told} shape"):
        mask_on(Grid((8, 10, 6), TURN), np.ones((3, 3, 3)), name)


NO_MASKS = {
    "not whole numbers, such as 0.37": np.full((2, 3), 0.37),
    "not whole numbers, such as nan": np.array([[0, np.nan]]),
    "below zero, such as -1024": np.array([[0, -1024]], np.int16),
    "257 different values": np.arange(257.0)[None],
}


@pytest.mark.parametrize("wrong", NO_MASKS)
def test_what_is_no_mask_is_refused(wrong: str) -> None:
    with pytest.raises(
        InputError, match=rf"^The mask scan is not a mask, since it has .*{wrong}.*; a mask holds whole numbers"
    ):
        evaluate(np.ones(NO_MASKS[wrong].shape), mask={"scan": NO_MASKS[wrong]}, metrics=["peak"])


@pytest.mark.parametrize(
    "use",
    [
        lambda path: evaluate(read_image(path), mask=path),
        lambda path: explain(path, "chest_ct_3d", "segment_occlusion", mask=path),
        lambda path: choose_slices(path, "mask", rule_mask=path),
    ],
)
def test_a_ct_is_no_mask_anywhere(use: Callable[[Path], Any]) -> None:
    with pytest.raises(InputError, match=r"^The mask.* is not a mask, since it has"):
        use(sample_files("chest_ct_lesion")[0])


@pytest.mark.parametrize(("dtype", "high"), [(np.float32, 1), (np.float64, 255), (np.uint8, 1)])
def test_masks_may_be_stored_as_floats(dtype: type, high: int, tmp_path: Path) -> None:
    inside = np.random.default_rng(0).random((4, 5, 6)) < 0.4
    # As uint8, floats are stored as 0 and 255 with a factor of 1 / 255.
    nibabel.save(nibabel.Nifti1Image(inside * float(high), TURN, dtype=dtype), tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask_on(Grid((4, 5, 6), TURN), read_image(tmp_path / "mask.nii.gz")), inside)


@pytest.mark.parametrize(
    ("sample", "model", "how"),
    [
        ("chest_ct_lesion", "chest_ct_3d", {}),
        ("chest_ct_lesion", "chest_ct_2d", {"slice": 22}),
        ("chest_ct_lesion", "chest_ct_2d", {"slice": 30, "plane": "coronal"}),
        ("slice_nodule", "chest_ct_2d", {}),
    ],
)
def test_a_saved_heatmap_is_judged_as_the_one_in_memory(sample: str, model: str, how: Any, tmp_path: Path) -> None:
    path, mask = sample_files(sample)
    image, classifier = read_image(path), load_model(model)
    attribution = explain(image, classifier, **how)
    files = save_results(image, attribution, tmp_path)
    names = ["binary_overlap", "ranking", "peak"]
    expected = evaluate(attribution, mask=mask, image=image, classifier=classifier, metrics=names)
    found = evaluate(files.heatmap, mask=mask, image=image, classifier=classifier, metrics=names)
    assert list(expected) == list(COLUMNS)
    assert list(expected["score"]) == list(found["score"])
    np.testing.assert_allclose(expected["value"], found["value"], rtol=1e-6)
    case = case_of(files.heatmap, mask, image, classifier)
    assert case.asked is not None
    # Explained again as its record says, it is the same map.
    np.testing.assert_array_equal(case.asked.again(Job()), case.values)
    assert case.intensities is not None
    assert case.intensities.shape[1:] == case.grid.shape
    on_input = case.asked.on_input(case.values)
    assert on_input.shape == tuple(case.asked.network_input.tensor.shape[2:])


def test_drawn_segments_are_explained_by_again() -> None:
    image, classifier = read_image(sample_files("slice_nodule")[0]), load_model("chest_ct_2d")
    labels = np.arange(128 * 128).reshape(128, 128) // 2048 + 1
    attribution = explain(image, classifier, "segment_occlusion", segments=labels)
    found = evaluate(attribution, image=image, classifier=classifier, metrics=["random_logit"])
    assert np.isfinite(found["value"]).all()


def test_a_map_is_judged_with_what_it_came_from() -> None:
    image, other = (read_image(sample_files(name)[0]) for name in ("slice_nodule", "slice_ground_glass"))
    classifier = load_model("chest_ct_2d")
    attribution = explain(image, classifier)
    with pytest.raises(InputError, match="was not made of the image slice_ground_glass but of slice_nodule"):
        evaluate(attribution, image=other, classifier=classifier)
    with pytest.raises(InputError, match="not made of the classifier Chest CT phantoms 3D"):
        evaluate(attribution, image=image, classifier="chest_ct_3d")
    # Such as the next time point of a series: its name would say nothing.
    with pytest.raises(InputError, match=r"slice_nodule is not as it was .* the same axes, channels and time point"):
        evaluate(attribution, image=replace(image, data=image.data + 1), classifier=classifier)


def test_other_explanations_lie_on_the_same_grid(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 7, 8), np.float32)
    save_nifti(tmp_path / "other.nii.gz", values, Grid(values.shape, TURN))
    with pytest.raises(InputError, match="other is not on the same grid"):
        case_of(values, others={"other": tmp_path / "other.nii.gz"})
    case = case_of(tmp_path / "other.nii.gz", others={"other": tmp_path / "other.nii.gz"})
    np.testing.assert_array_equal(case.others["other"], values)
    assert not case.is_bare


def test_the_panel_has_a_verdict_for_every_line() -> None:
    path, mask = sample_files("slice_nodule")
    image, classifier = read_image(path), load_model("chest_ct_2d")
    evaluation = check_explanation(explain(image, classifier), mask=mask, image=image, classifier=classifier)
    assert not evaluation.skipped
    for metric, outcome in evaluation.outcomes.items():
        assert outcome.verdicts, metric.name
        for score in outcome.scores:
            # The documentation tells of every number.
            assert score.better == metric.quantities[score.name].better, score
        assert all(any(letter.isdigit() for letter in verdict.sentence) for verdict in outcome.verdicts), metric.name


def test_what_was_published_is_measured_where_it_is_named() -> None:
    found = evaluate(np.eye(5), mask=np.eye(5))
    assert "overlap" in set(found["family"])
    assert "as published" not in set(found["family"])
    assert set(evaluate(np.eye(5), mask=np.eye(5), metrics=["as published"])["family"]) == {"as published"}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"metrics": ["dice"]}, "There is no metric 'dice'"),
        ({"metrics": [{"metric": "binary_overlap", "cut": 3}]}, "has no option 'cut'"),
        ({"metrics": [{"cut": 3}]}, "names no metric; write its name as 'metric'"),
        ({"metrics": []}, "No metric was chosen"),
        ({"metrics": ["overlap"]}, "needs a mask"),
        ({"sign": "both"}, "no sign 'both'"),
        ({"seed": -1}, "seed can't be -1"),
    ],
)
def test_what_can_t_be_asked_is_one_sentence(how: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate(np.ones((5, 5)), **how)


def test_one_metric_with_two_options_is_told_apart_in_the_table_and_the_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 20), np.float32)
    mask = values > 0.8
    thresholds = [make_metric("threshold_curve", {"steps": count}) for count in (5, 11)]
    asked = [make_metric("threshold_curve", {}), *thresholds]
    case = case_of(values, mask)
    found = evaluate_case(case, asked, Job())
    told = ["", "steps=5", "steps=11"]
    assert list(dict.fromkeys(found.frame["options"])) == told
    assert set(found.frame["metric"]) == {"threshold_curve"}
    titles = [plot.title for metric in asked for plot in found.plots(metric)]
    assert titles == [f"Agreement with mask{f', {each}' if each else ''}" for each in told]
    plots = [path.name for path in save_evaluation(case, found, tmp_path, "x") if path.suffix == ".png"]
    assert plots == [f"x_threshold_curve{f'_{each}'.replace('=', '-') if each else ''}.png" for each in told]


def test_what_one_metric_can_t_do_leaves_the_others() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    found = evaluate(np.eye(5), mask=mask, metrics=["binary_overlap", "deletion"])
    (row,) = found[found["metric"] == "deletion"].to_dict("records")
    assert np.isnan(row["value"])
    assert "needs the image and the classifier" in row["reason"]
    assert found[found["score"] == "recall"]["value"].tolist()[0] == 1
