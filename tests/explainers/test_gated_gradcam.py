from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import classifier_of, maps_of
from keras_networks import images, keras_gradient, saved, zunair

from napari_xai_med.explainers.cam import GatedGradCAM
from napari_xai_med.models.head import Head
from napari_xai_med.models.keras_files.network import load_keras


def published(output: np.ndarray, grads: np.ndarray) -> np.ndarray:
    """What 3D Grad-CAM code for Keras does with a layer's output and the gradients, channels last."""
    gate_f = (output > 0).astype("float32")
    gate_r = (grads > 0).astype("float32")
    guided_grads = gate_f * gate_r * grads
    weights = guided_grads.mean(axis=(0, 1, 2))
    cam = np.zeros(output.shape[0:3], dtype=np.float32)
    for index, w in enumerate(weights):
        cam = cam + w * output[:, :, :, index]
    return np.maximum(cam, 0)


def test_it_is_that_of_the_published_code_on_its_network(tmp_path: Path) -> None:
    """The thesis takes the gradient of 1 - p of the one output: what speaks for class 0, to the factor p (1 - p)."""
    model: Any = zunair()
    x = images(model, 1)
    classifier = classifier_of(load_keras(saved(model, tmp_path / "m.keras")), 3, head=Head.ONE_LOGIT)
    inputs = torch.from_numpy(x).movedim(-1, 1)
    compared = 0
    for layer in [each.name for each in model.layers if "conv" in each.name]:
        explainer = GatedGradCAM(layers=(layer,))
        (zero, one), _ = maps_of(explainer, classifier, inputs, [(0, 0), (0, 1)])
        for ours, sign in ((zero, -1), (one, 1)):
            output, grads = keras_gradient(model, layer, x, lambda logits, sign=sign: sign * logits.sigmoid()[0])
            cam = published(output.numpy(), grads.numpy())
            if cam.any():
                compared += 1
                np.testing.assert_allclose(ours.values / ours.values.max(), cam / cam.max(), atol=1e-5)
    assert compared > 4
