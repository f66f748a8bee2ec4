"""The plane that the viewer shows of a volume in 3D is explained as a slice is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_affine
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager
from viewers import Open, finish, last_sentence

from napari_xai_med import explain, oblique_section, read_image
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.io.nifti import Volumes
from napari_xai_med.layers import METADATA_KEY, LayerView
from napari_xai_med.layers_images import volumes_to_layer
from napari_xai_med.layers_plane import PlaneView
from napari_xai_med.oblique import oblique_plane
from napari_xai_med.samples import sample_files
from napari_xai_med.segments.best import Best
from napari_xai_med.widgets.comparison import compare
from napari_xai_med.widgets.origin import layers_of

LESION, MASK = map(str, sample_files("chest_ct_lesion"))
POSITION, NORMAL = (29, 40, 48), (1, 0.4, 0.15)
"""In the voxels of the layer: through the ground glass."""


def show_plane(viewer: Any, position: tuple[float, ...] = POSITION) -> Any:
    """The sample's layer, of which a plane is shown."""
    source = viewer.layers["chest_ct_lesion"]
    viewer.dims.ndisplay = 3
    source.depiction = "plane"
    source.plane.position, source.plane.normal = position, NORMAL
    return source


@pytest.fixture
def plane(opened: Open) -> Any:
    """A viewer that shows a plane, with a widget that is about to explain it by segments."""

    def build(model: str = "chest_ct_2d", method: str = "segment_occlusion") -> tuple[Any, Any, Any]:
        viewer, widget = opened("chest_ct_lesion", model)
        source = show_plane(viewer)
        widget.image.choose(source)
        widget.method.setCurrentIndex(widget.method.findData(method))
        widget.question.segments.options.set_value("number", 12)
        return viewer, widget, source

    return build


def corners_in(source: Any, layer: Any) -> Any:
    """The corners of a layer's slab in the voxels of the volume."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(layer.data.shape) - 1)
    return np.array([source.world_to_data(layer.data_to_world(corner)) for corner in corners])


def test_heatmap_segments_and_the_best_of_them_lie_on_the_plane(plane: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget, source = plane()
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap, segments = viewer.layers[-2:]
    assert widget.bars.rows()[0][0] == "ground glass"
    widget.heatmaps.add_best(heatmap, 3, Best.LARGEST)
    best = viewer.layers[-1]
    for layer in (heatmap, segments, best):
        assert sorted(layer.data.shape)[0] == 1
        np.testing.assert_allclose((corners_in(source, layer) - POSITION) @ np.array(NORMAL), 0, atol=1e-4)
    assert isinstance(segments, Labels)
    contributions = segments.features["contribution"].to_numpy()
    np.testing.assert_array_equal(np.append(0, contributions[1:]).astype(np.float32)[segments.data], heatmap.data)
    assert len(np.unique(best.data[best.data > 0])) == 3
    assert "size_mm2" in segments.features
    # What speaks most for ground glass is the ground glass.
    marked = viewer.layers["chest_ct_lesion_mask"].data > 0
    most = np.argwhere(segments.data == np.nanargmax(contributions))
    there = np.rint([source.world_to_data(heatmap.data_to_world(each)) for each in most]).astype(int)
    there = there[(there >= 0).all(1) & (there < marked.shape).all(1)]
    assert marked[tuple(there.T)].mean() > 10 * marked.mean()
    assert widget.image.count() == 1, "the map is not offered as an image"
    # The status bar tells of the segment under the cursor.
    segments.visible = True
    middle = np.array(segments.data.shape) // 2
    told = segments.get_status(
        segments.data_to_world(middle), view_direction=np.array([1.0, 0, 0]), dims_displayed=[0, 1, 2], world=True
    )
    assert f"segment: {segments.data[tuple(middle)]}" in str(told)

    # A 3D view that was switched to by the keyboard does not know yet where the mouse points to.
    viewer.mouse_over_canvas, viewer.cursor._view_direction = True, np.array(None)
    widget.heatmaps.put(heatmap, widget.heatmaps.results[heatmap])
    viewer.mouse_over_canvas, viewer.cursor._view_direction = False, None

    # What leaves the viewer is what a script computes.
    scope: dict[str, Any] = {}
    exec(widget.python(), scope)
    record = heatmap.metadata[METADATA_KEY]["record"]
    assert scope["attribution"].record.result["sha256"] == record["result"]["sha256"]
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    (saved,) = tmp_path.glob("*.json")
    assert json.loads(saved.read_text())["result"] == record["result"]
    assert main(["explain", "--record", str(saved), "--out", str(tmp_path / "again")]) == 0


def test_labels_of_the_volume_are_units_and_masks_of_a_plane(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane()
    labels = np.zeros(source.data.shape, np.uint8)
    labels[:, :, :48], labels[:, :, 48:] = 3, 7
    drawn = viewer.add_labels(labels, scale=source.scale, translate=source.translate, name="halves")
    form = widget.question.segments
    form.method.setCurrentIndex(form.method.findText(drawn.name))
    widget.explain_button.click()
    finish(qtbot, widget)
    segments = viewer.layers[-1]
    assert segments.features["label"].tolist()[1:] == [3, 7]
    for label in (1, 2):
        there = [source.world_to_data(segments.data_to_world(each)) for each in np.argwhere(segments.data == label)]
        columns = np.array(there)[:, 2]
        # Sides are told by the nearest voxel, of the network's input and of the labels.
        assert (columns < 49).all() if label == 1 else (columns > 46).all()


def test_a_plane_is_seen_in_3d_only(plane: Any, qtbot: Any) -> None:
    """In 2D napari draws its layers flat, on one slice of all, where they do not belong."""
    viewer, widget, _ = plane()
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap, segments = viewer.layers[-2:]
    widget.heatmaps.add_best(heatmap, 3, Best.LARGEST)
    widget.heatmap.bands_button.click()
    widget.input_button.click()
    finish(qtbot, widget)
    best, bands, preview = viewer.layers[-3:]
    seen = (heatmap, best, bands, preview)
    bands.visible = False
    viewer.dims.ndisplay = 2
    assert not any(layer.visible for layer in (*seen, segments))
    assert viewer.layers["chest_ct_lesion"].visible
    # Also what is made meanwhile.
    widget.heatmaps.put(heatmap, widget.heatmaps.results[heatmap])
    widget.heatmaps.add_best(heatmap, 2, Best.LARGEST)
    assert not any(layer.visible for layer in (*seen, segments))
    viewer.dims.ndisplay = 3
    assert [layer.visible for layer in seen] == [True, True, False, True]
    assert not segments.visible, "as before"
    # Also when the widget is closed.
    viewer.window.remove_dock_widget("all")
    viewer.dims.ndisplay = 2
    assert not any(layer.visible for layer in seen)


def test_a_classifier_of_volumes_looks_at_all_of_it(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane("chest_ct_3d", "gradcam")
    widget.explain_button.click()
    finish(qtbot, widget)
    assert viewer.layers[-1].data.shape == source.data.shape
    assert widget.python().count("oblique") == 0


def test_segments_and_what_the_network_sees_are_shown_on_it(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane()
    for button in (widget.question.segments.show_button, widget.input_button):
        button.click()
        finish(qtbot, widget)
        layer = viewer.layers[-1]
        assert layer.visible
        np.testing.assert_allclose((corners_in(source, layer) - POSITION) @ np.array(NORMAL), 0, atol=1e-4)
    assert sorted(layer.data.shape) == [1, 96, 96], "the network's own pixels"
    assert widget.image.count() == 1


def test_live_follows_the_plane_and_looks_as_what_it_shows(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane()
    shown: list[bool] = []
    widget.live.shown.connect(lambda _, final: shown.append(final))

    def settle() -> tuple[Any, Any]:
        qtbot.waitUntil(lambda: bool(shown) and shown[-1], timeout=60_000)
        shown.clear()
        (layer,) = widget.live.series.layers
        assert sum(isinstance(each, Labels) for each in viewer.layers) == 2, "the mask and the segments"
        return layer, widget.heatmaps._segments[layer]

    def look(heatmap: Any, segments: Any) -> tuple[Any, ...]:
        return (heatmap.rendering, heatmap.interpolation3d, segments.visible, segments.contour, segments.rendering)

    widget.live_box.setChecked(True)
    on_plane = look(*settle())
    assert on_plane == ("translucent", "nearest", False, 0, "translucent")
    for position in ((20, 40, 48), POSITION):
        source.plane.position = position
        layer, _ = settle()
        np.testing.assert_allclose((corners_in(source, layer) - position) @ np.array(NORMAL), 0, atol=1e-4)
    source.depiction = "volume"
    layer, segments = settle()
    assert sorted(layer.data.shape) == sorted((1, *source.data.shape[1:]))
    assert look(layer, segments) == ("mip", "linear", True, 1, "iso_categorical")
    source.depiction = "plane"
    assert look(*settle()) == on_plane
    # Over to the slices, where the plane would be hidden.
    viewer.dims.ndisplay = 2
    assert all(layer.visible for layer in settle())
    viewer.dims.ndisplay = 3
    assert look(*settle()) == on_plane
    # Nothing is followed that is gone.
    viewer.layers.remove(source)
    assert widget.live._followed is None
    widget.live_box.setChecked(False)
    shown.clear()
    source.plane.position = (20, 40, 48)
    qtbot.wait(200)
    assert not shown


def test_a_moved_volume_is_told_or_its_place_honoured(plane: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget, source = plane(method="saliency")
    widget.explain_button.click()
    finish(qtbot, widget)
    source.translate = source.translate + np.array((20, 10, 5))
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    assert "chest_ct_lesion, oblique was changed or moved since" in last_sentence().message
    assert not list(tmp_path.iterdir())
    widget.explain_button.click()
    finish(qtbot, widget)
    scope: dict[str, Any] = {"viewer": viewer}
    exec(widget.python(), scope)
    shown = viewer.layers[-1].metadata[METADATA_KEY]["record"]
    assert scope["attribution"].record.result["sha256"] == shown["result"]["sha256"]


def test_the_volume_is_found_again_after_it_was_closed(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane(method="saliency")
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap = viewer.layers[-1]
    viewer.layers.remove(source)
    (again,) = viewer.open(LESION, plugin="napari-xai-med")
    again.name = "another name"
    other = viewer.add_image(np.zeros((4, 5, 6)), name="chest_ct_lesion")
    assert layers_of(heatmap, [other, again]) == [(again, "ZYX")]


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 2, 3)])
def test_a_plane_is_one_only_where_space_is_shown(plane: Any, order: tuple[int, ...]) -> None:
    viewer, widget, source = plane(method="saliency")
    viewer.add_image(np.zeros((3, *source.data.shape)), name="four axes")
    widget.image.choose(source)
    viewer.dims.order = order
    found = widget.inputs.chosen(oblique=True).oblique
    assert (found is not None) == (order[0] == 0)


def test_a_pyramid_is_cut_where_its_coarsest_level_is(opened: Open) -> None:
    viewer, widget = opened()
    fine = np.zeros((64, 64, 64), np.float32)
    fine[24:] = 1
    layer = viewer.add_image([fine, fine[::2, ::2, ::2]], multiscale=True, contrast_limits=(0, 1), name="pyramid")
    viewer.dims.ndisplay, layer.depiction = 3, "plane"
    layer.plane.position, layer.plane.normal = (16, 16, 16), (1, 0.1, 0)
    seen = widget.inputs.chosen(oblique=True).image()
    middle = seen.data[0, seen.grid.shape[0] // 2, seen.grid.shape[1] // 2]
    assert middle == 1, "slice 32 of the finest level is bright, 16 is not"


def test_the_explanation_of_a_plane_is_checked(plane: Any, qtbot: Any) -> None:
    viewer, widget, _ = plane()
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap = viewer.layers[-2]
    widget.check_button.click()
    check = viewer.window.dock_widgets["Check an explanation (napari-xai-med)"]
    check.masks.choose([viewer.layers["chest_ct_lesion_mask"]])
    check.check_button.click()
    finish(qtbot, check)
    found = widget.heatmaps.results[heatmap].attribution
    case = check._judged.case
    np.testing.assert_array_equal(case.values, found.values)
    (mask,) = case.masks.values()
    assert mask.shape == found.values.shape
    assert mask.any()
    check.overlay_button.click()
    finish(qtbot, check)
    assert viewer.layers[-1].data.shape == heatmap.data.shape
    np.testing.assert_allclose(viewer.layers[-1].affine.affine_matrix, heatmap.affine.affine_matrix)


def test_planes_are_compared_in_3d(plane: Any, qtbot: Any) -> None:
    viewer, widget, source = plane()
    heatmaps = []
    for method in ("segment_occlusion", "saliency"):
        widget.method.setCurrentIndex(widget.method.findData(method))
        widget.explain_button.click()
        finish(qtbot, widget)
        heatmaps.append(next(iter(reversed(widget.heatmaps.results))))
    source.depiction = "volume"
    beside = compare(LayerView(source, "ZYX"), heatmaps)
    assert beside.dims.ndisplay == 3
    for image, heatmap in zip(beside.layers[::2], beside.layers[1::2], strict=True):
        assert (image.depiction, heatmap.rendering) == ("plane", "translucent")
        np.testing.assert_allclose(image.plane.position, POSITION, atol=1e-6)
        # napari keeps normals of length one.
        np.testing.assert_allclose(np.cross(image.plane.normal, NORMAL), 0, atol=1e-6)
    # Only signed maps are as long below zero.
    assert [layer.contrast_limits[0] for layer in beside.layers[1::2]] == [-1, 0]
    beside.dims.ndisplay = 2
    assert [layer.visible for layer in beside.layers] == [True, False] * 2
    beside.close()
    picture = viewer.add_image(np.zeros((8, 8)), name="picture")
    with pytest.raises(InputError, match="explains a plane of a volume; choose that volume"):
        compare(LayerView(picture, "YX"), heatmaps)


@pytest.mark.parametrize("seed", range(3))
def test_a_map_of_a_plane_lies_where_the_section_does(seed: int) -> None:
    """Also over an oblique scan, which is not shown where it truly lies."""
    random = np.random.default_rng(seed)
    data = random.random((1, 1, 8, 10, 12)).astype(np.float32)
    volumes = Volumes(data, Grid((8, 10, 12), random_affine(random)), ())
    source = Layer.create(*volumes_to_layer(volumes, "volume", ""))
    grid = LayerView(source, "ZYX").image_grid()
    point, normal = grid.to_world((4, 5, 6)), random.normal(size=3)
    view = PlaneView(source, "ZYX", point=tuple(point), normal=tuple(normal))
    plane = oblique_plane(grid, point, normal).grid
    values = random.random(plane.shape[1:]).astype(np.float32)
    shown, options = view.place(values, Grid(plane.shape[1:], np.eye(3)))
    layer = Layer.create(shown, options, "image")
    # Its own image is the slab in the true world.
    image = LayerView(layer, "ZYX").image()
    np.testing.assert_array_equal(image.data[0, 0], values)
    np.testing.assert_allclose(image.grid.affine, plane.affine, atol=1e-9)
    # And it is seen where that is seen of the volume.
    turn = LayerView(layer, "ZYX").turn
    for corner in np.ndindex(2, 2, 2):
        index = np.array(corner) * (np.array(layer.data.shape) - 1)
        there = source.world_to_data(layer.data_to_world(index))
        truth = LayerView(source, "ZYX").whole_grid().to_index(turn.grid(plane).to_world(index))
        np.testing.assert_allclose(there, truth, atol=1e-6)


def test_a_section_in_a_script_is_the_same(plane: Any, qtbot: Any) -> None:
    viewer, widget, _ = plane("chest_ct_2d", "saliency")
    notification_manager.records.clear()
    widget.explain_button.click()
    finish(qtbot, widget)
    told = viewer.layers[-1].metadata[METADATA_KEY]["record"]["image"]["oblique"]
    section, _ = oblique_section(read_image(LESION), told["point"], told["normal"])
    expected = explain(section, "chest_ct_2d", "saliency")
    assert expected.record.result["sha256"] == viewer.layers[-1].metadata[METADATA_KEY]["record"]["result"]["sha256"]
