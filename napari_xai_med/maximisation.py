"""How an input is drawn that a network finds most typical of a class; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from napari_xai_med.options import option


@dataclass(frozen=True)
class Maximisation:
    """How a drawing is made; see `napari_xai_med.activation_maximisation.draw`."""

    steps: int = option(200, "Steps of the optimiser.", limits=(1, 100_000))
    learning_rate: float = option(0.02, "Length of a step, as a share of the input's range.", limits=(1e-6, 10))
    total_variation: float = option(
        1.0, "Weight of the mean difference between neighbouring voxels: more makes it smoother.", limits=(0, None)
    )
    norm_weight: float = option(
        1.0, "Weight of the mean of the values' size to the power below, so that they stay small.", limits=(0, None)
    )
    norm_power: float = option(2.0, "Power of that norm; 6 holds back the largest values only.", limits=(1, 20))
    start: str = option(
        "noise", "What is changed: noise, an input without anything, or the image.", choices=("noise", "zero", "image")
    )
    quantity: str = option(
        "logit",
        "What grows: the class's logit, or its log-odds, which also keep the other classes small.",
        choices=("logit", "log_odds"),
    )
    clamp: bool = option(True, "Keep values in the range of the network's input, where its metadata states one.")
    seed: int = option(0, "Of the noise; equal seeds give equal drawings.", limits=(0, 2**31 - 1))
