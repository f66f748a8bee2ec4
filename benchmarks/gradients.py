"""What methods by the gradient of the input cost, in plain passes forward and back of the same network.

``python benchmarks/gradients.py``
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from cams import CASES, made, ours
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from measure import seconds, table
from torch import Tensor, nn

STEPS, SAMPLES, BATCH = 8, 8, 2


def forward_and_back(network: nn.Module, x: Tensor) -> Callable[[], Any]:
    """A batch of passes forward and back to the input, with weights as constants."""
    # A network of its own: its weights stay constants.
    for weight in network.parameters():
        weight.requires_grad_(False)
    batch = x.expand(BATCH, *x.shape[1:]).contiguous()

    def call() -> None:
        inputs = batch.clone().requires_grad_()
        torch.autograd.grad(network(inputs)[:, 0].sum(), inputs)

    return call


def main() -> None:
    """Print the time of each method in that of as many plain passes."""
    warnings.simplefilter("ignore")
    rows = {}
    for case in CASES:
        classifier, x, _ = made(case)
        base = forward_and_back(made(case)[0].network, x)
        network = made(case)[0].network
        captum = IntegratedGradients(network)
        tunnel = NoiseTunnel(Saliency(network))
        noise: dict[str, Any] = {"noise_tunnel": "smoothgrad", "noise_samples": SAMPLES, "batch_size": BATCH}
        calls: dict[str, Callable[[], Any]] = {
            "base": base,
            "integrated": ours(classifier, x, "integrated_gradients", steps=STEPS, batch_size=BATCH),
            "captum": partial(captum.attribute, x, target=0, n_steps=STEPS, internal_batch_size=BATCH),
            "noise": ours(classifier, x, "saliency", **noise),
            "captum's noise": partial(tunnel.attribute, x, target=0, nt_samples=SAMPLES, nt_samples_batch_size=BATCH),
        }
        times = seconds(calls, 3)
        passes = times.pop("base") / BATCH
        count = {"integrated": STEPS, "captum": STEPS}
        rows[case] = [f"{passes:.3f}"] + [f"{t / passes / count.get(name, SAMPLES):.2f}" for name, t in times.items()]
    table(
        f"Integrated Gradients of {STEPS} steps, SmoothGrad of {SAMPLES} samples, in as many passes forward and back",
        ["network and input", "pass in s", "Integrated Gradients", "by captum", "NoiseTunnel", "by captum"],
        rows,
    )


if __name__ == "__main__":
    main()
