"""Contributions of channels: the Shapley values of the definition, through every way of asking a classifier."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import classifier_of
from PIL import Image as Picture
from test_cli import run
from torch import Tensor, nn

from napari_xai_med import Image, channel_contributions
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import Cancelled, InputError
from napari_xai_med.figures_channels import AGAINST, SUPPORTS, channel_bars
from napari_xai_med.io.channels import save_channels
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.models.sliding_window import SlidingWindow

SHAPES = {2: (9, 12), 3: (5, 6, 8)}


class Products(nn.Module):
    """Logits that are no sums of the channels: products of their means, and a largest value."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(2)
        every = [mean[:, 0] * mean[:, 1] + mean[:, 2], 3 * mean.prod(1), x[:, 1].flatten(1).amax(1) - mean[:, 0] ** 2]
        return torch.stack(every[: self.outputs], 1)


def image_of(dims: int, channels: int = 3) -> np.ndarray:
    random = np.random.default_rng(dims)
    return (random.random((channels, *SHAPES[dims])) + np.arange(channels).reshape(-1, *[1] * dims)).astype(np.float32)


def by_permutations(values: Any, players: int) -> np.ndarray:
    """The definition: the mean, over all orders in which players join, of what each of them adds."""
    total: Any = 0
    orders = list(permutations(range(players)))
    for order in orders:
        there = np.zeros(players, bool)
        before, added = values(there), {}
        for player in order:
            there[player] = True
            added[player] = values(there) - before
            before = values(there)
        total = total + np.stack([added[k] for k in range(players)], -1)
    return np.asarray(total / len(orders))


BASELINES = {
    "zero": lambda x: np.zeros_like(x),
    "minimum": lambda x: np.broadcast_to(x.min((*range(1, x.ndim),), keepdims=True), x.shape),
    "mean": lambda x: np.broadcast_to(x.mean((*range(1, x.ndim),), keepdims=True), x.shape),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("windowed", [False, True])
def test_equals_the_definition(dims: int, baseline: str, windowed: bool) -> None:
    image, network = image_of(dims), Products()
    window = SlidingWindow((4,) * dims, "logsumexp") if windowed else None
    classifier = classifier_of(network, dims, 3, channels=3, windows=window)
    found = channel_contributions(Image.from_array(image, channel_axis=0), classifier, baseline=baseline)
    other = BASELINES[baseline](image)

    def scores(there: np.ndarray) -> np.ndarray:
        mixed = torch.from_numpy(np.where(there.reshape(-1, *[1] * dims), image, other))
        if window is None:
            return np.asarray(network(mixed[None])[0].double())
        cuts = [mixed[(slice(None), *(slice(k, k + 4) for k in place))] for place in window.starts(SHAPES[dims])]
        return np.asarray(window.aggregate.combine(network(torch.stack(cuts)).double()))

    np.testing.assert_allclose(found.values, by_permutations(scores, 3), atol=1e-5)
    np.testing.assert_allclose(found.of_baseline, scores(np.zeros(3, bool)), atol=1e-5)
    np.testing.assert_allclose(found.of_image, scores(np.ones(3, bool)), atol=1e-5)
    assert np.abs(found.residual).max() < 1e-5
    assert found.classes == classifier.class_names
    assert found.record.method["evaluations"] == 8


HEADS = {Head.SOFTMAX: 3, Head.MULTI_LABEL: 3, Head.ONE_LOGIT: 1, Head.REGRESSION: 3}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("quantity", ["logit", "probability"])
def test_the_values_sum_up_for_every_head(head: Head, quantity: str) -> None:
    classes = 2 if head is Head.ONE_LOGIT else 3
    classifier = classifier_of(Products(HEADS[head]), 2, classes, channels=3, head=head)
    image = Image.from_array(image_of(2), channel_axis=0)
    if head is Head.REGRESSION and quantity == "probability":
        with pytest.raises(InputError, match="has no probability of a class"):
            channel_contributions(image, classifier, quantity=quantity)
        return
    found = channel_contributions(image, classifier, quantity=quantity)
    np.testing.assert_allclose(found.values.sum(1), found.of_image - found.of_baseline, atol=1e-5)
    if quantity == "probability":
        np.testing.assert_allclose(found.of_image, found.prediction.probabilities, atol=1e-6)
    if head is Head.ONE_LOGIT:
        np.testing.assert_allclose(found.values[0], -found.values[1], atol=1e-6)


def test_which_classes_and_in_which_form() -> None:
    classifier, image = classifier_of(Products(), 2, 3, channels=3), Image.from_array(image_of(2), channel_axis=0)
    every = channel_contributions(image, classifier)
    top = channel_contributions(image, classifier, targets=[None])
    assert top.classes == (classifier.class_names[every.prediction.top],)
    np.testing.assert_array_equal(top.values[0], every.values[every.prediction.top])
    rather = channel_contributions(image, classifier, against="class 0", opposite=True)
    assert rather.classes == tuple(f"what speaks against class {k} rather than class 0" for k in (1, 2))
    np.testing.assert_allclose(rather.values, every.values[0] - every.values[1:], atol=1e-6)


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_a_slice_of_a_volume(plane: str) -> None:
    volume = image_of(3)
    classifier = classifier_of(Products(), 2, 3, channels=3)
    found = channel_contributions(Image.from_array(volume, channel_axis=0), classifier, plane=plane, slice=2)
    flat = volume[:, 2] if plane == "axial" else volume[..., 2]
    np.testing.assert_array_equal(
        found.values, channel_contributions(Image.from_array(flat, channel_axis=0), classifier).values
    )


def test_the_last_bits_do_not_depend_on_the_batch() -> None:
    """As far as they are seen to agree, any number of images at once gives the same bits."""
    classifier, image = classifier_of(Products(), 2, 3, channels=3), Image.from_array(image_of(2), channel_axis=0)
    found = channel_contributions(image, classifier)
    again = channel_contributions(image, classifier, batch_size=found.record.request["options"]["batch_size"])
    np.testing.assert_array_equal(found.values, again.values)
    assert again.record.result["sha256"] == found.record.result["sha256"]


def test_names_come_from_the_user_the_files_or_the_classifier(tmp_path: Path) -> None:
    data = image_of(3)
    paths = [tmp_path / name for name in ("t1.nii.gz", "flair.nii.gz", "sub", "t1.nii.gz")]
    (tmp_path / "sub").mkdir()
    files = [paths[0], paths[1], paths[2] / "t1.nii.gz"]
    for path, channel in zip(files, data, strict=True):
        nibabel.save(nibabel.Nifti1Image(channel, np.diag([1, 2, 3, 1])), path)
    told = {"network_data_format": {"inputs": {"image": {"channel_def": {"0": "a", "1": "b", "2": "c"}}}}}
    classifier = classifier_of(Products(), 3, 3, channels=3)
    array = Image.from_array(data, channel_axis=0)
    assert channel_contributions(files, classifier).channels == ("t1 (1)", "flair", "t1 (3)")
    assert channel_contributions(array, classifier).channels == ("channel 1", "channel 2", "channel 3")
    named = classifier_of(Products(), 3, 3, channels=3, facts=told)
    assert channel_contributions(array, named).channels == ("a", "b", "c")
    assert channel_contributions(files, named, names="xyz").channels == ("x", "y", "z")


@pytest.mark.parametrize(
    ("channels", "changes", "sentence"),
    [
        (1, {}, "gets a single channel"),
        (15, {}, "gets 15 channels, and the exact values of more than 14 take too long"),
        (3, {"names": ("a",)}, "1 names are given for 3 channels"),
        (3, {"targets": ()}, "Nothing is to be explained"),
        (3, {"targets": ["x"]}, "has no class 'x'"),
        (3, {"baseline": "x"}, "Contributions of channels can't have baseline 'x'"),
        (3, {"baseline": "image"}, "Contributions of channels compares with one image"),
        (3, {"layers": ()}, "Contributions of channels has no option 'layers'"),
    ],
)
def test_what_can_not_be_is_one_sentence(channels: int, changes: dict[str, Any], sentence: str) -> None:
    image = Image.from_array(image_of(2, channels), channel_axis=0)
    with pytest.raises(InputError) as error:
        channel_contributions(image, classifier_of(Products(), 2, 3, channels=channels), **changes)
    assert sentence in str(error.value)


def test_the_work_can_be_stopped() -> None:
    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 3

    classifier = classifier_of(Products(), 2, 3, channels=9)
    with pytest.raises(Cancelled):
        channel_contributions(Image.from_array(image_of(2, 9), channel_axis=0), classifier, cancel=Token())


def test_bars_have_the_right_length_and_colour(tmp_path: Path) -> None:
    image = Image.from_array(image_of(2), channel_axis=0)
    found = channel_contributions(image, classifier_of(Products(), 2, 3, channels=3))
    figure = channel_bars(found)
    assert DISCLAIMER in figure.get_supxlabel()
    for ax, values in zip(figure.axes, found.values, strict=True):
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(values.tolist(), abs=1e-5)
        for bar, value in zip(ax.patches, values, strict=True):
            expected = Picture.new("RGB", (1, 1), SUPPORTS if value > -1e-9 else AGAINST).getpixel((0, 0))
            assert [round(255 * c) for c in bar.get_facecolor()[:3]] == list(expected)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        save_channels(image, found, tmp_path / "file")


def bundle(folder: Path) -> Classifier:
    """Of a network of three channels."""
    torch.export.save(torch.export.export(Products().eval(), (torch.rand(1, 3, *SHAPES[3]),)), folder / "n.pt2")
    return pack(Packing(weights=folder / "n.pt2", class_names=("a", "b", "c")), folder / "bundle")


def test_the_command_writes_bars_table_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path)
    names, files = ("t1", "t2", "flair"), []
    for name, channel in zip(names, image_of(3), strict=True):
        files.append(tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(channel, np.diag([1, 2, 3, 1])), files[-1])
    command = ("channels", *files, "--model", tmp_path / "bundle", "--baseline", "mean", "--out", tmp_path / "out")
    code, out, _ = run(capsys, *command)
    assert code == 0
    found = channel_contributions(files, tmp_path / "bundle", baseline="mean")
    assert found.channels == names
    table = pd.read_csv(tmp_path / "out" / "t1_channels.csv")
    pd.testing.assert_frame_equal(table, found.table(), atol=1e-12)
    for value in found.values.ravel():
        assert f"{value:+9.4f}" in out
    assert Picture.open(tmp_path / "out" / "t1_channels.png").size[0] > 800
    record = tmp_path / "out" / "t1_channels.json"
    code, out, _ = run(capsys, "channels", "--record", record, "--out", tmp_path / "again")
    assert (code, "equal the recorded ones bit for bit" in out) == (0, True)
    told = json.loads(record.read_text())
    told["result"]["sha256"] = "0"
    record.write_text(json.dumps(told))
    code, out, _ = run(capsys, "channels", "--record", record, "--out", tmp_path / "again")
    assert (code, "DIFFER" in out) == (1, True)
    told["request"]["method"] = "gradcam"
    record.write_text(json.dumps(told))
    for words, sentence in (
        (("--record", record), "is a record of gradcam; compute it with explain"),
        ((), "Give an image for each channel"),
        ((*files, "--model", tmp_path / "bundle", "--name", "x"), "1 names are given for 3 channels"),
    ):
        code, _, err = run(capsys, "channels", *words)
        assert (code, sentence in err, err.count("\n")) == (2, True, 1)
