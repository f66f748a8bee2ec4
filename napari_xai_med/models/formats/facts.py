"""What a network's file says about its network, the same for every format that says something."""

from __future__ import annotations

from dataclasses import dataclass

ENDINGS = ("sigmoid", "softmax")
"""Functions that make probabilities of logits."""


@dataclass(frozen=True)
class Output:
    """One output of a network.

    Parameters
    ----------
    name : str
        What the file calls it.
    numbers : int, optional
        Channels, such as one for each class; None if the file does not say.
    ending : str
        The function it ends in, such as "sigmoid", "softmax" or "linear".
    """

    name: str
    numbers: int | None
    ending: str


def sizes(shape: tuple[int | None, ...]) -> str:
    """A shape for people, such as "32 x 32 x any"."""
    return " x ".join("any" if n is None else str(n) for n in shape)


@dataclass(frozen=True)
class NetworkFacts:
    """What a file says about its network.

    Parameters
    ----------
    input_shape : tuple of int or None
        (C, *spatial); None for an axis that may have any length.
    outputs : tuple of Output
    writer : str
        The program that wrote it with its version, such as "Keras 2.1.6"; empty if that is not known.
    limit : str
        Why gradients or layers of the network can't be had; empty if both can.
    notices : tuple of str
        What the user should know about its answers.
    """

    input_shape: tuple[int | None, ...]
    outputs: tuple[Output, ...]
    writer: str = ""
    limit: str = ""
    notices: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """The sigmoid or softmax that the only output ends in; empty if there is none, or several outputs."""
        endings = [output.ending for output in self.outputs]
        return endings[0] if len(endings) == 1 and endings[0] in ENDINGS else ""

    @property
    def endings(self) -> dict[str | int, str]:
        """The sigmoid or softmax that each output ends in, or nothing; by name and by number."""
        told = [output.ending if output.ending in ENDINGS else "" for output in self.outputs]
        names = [output.name for output in self.outputs]
        return dict(enumerate(told)) | dict(zip(names, told, strict=True))
