"""Networks by name, for files that hold weights only. A new one is a decorated function or class in this folder.

Every network here takes (N, in_channels, *spatial) and returns logits, shape (N, num_classes): where a paper's
network ends in sigmoid or softmax, that last step is left out, since explanations are about logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from napari_xai_med.errors import InputError, one_line
from napari_xai_med.options import option, option_fields, parse, with_options
from napari_xai_med.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Make = TypeVar("Make", bound=Callable[..., Any])

_registry = Registry("napari_xai_med.models.architectures")

# What the libraries' constructors raise for numbers that do not go together.
_FAILURES = (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, NotImplementedError)


def count(default: Any, text: str) -> Any:
    """An option that is a positive whole number, or a list of them."""
    return option(default, text, limits=(1, None))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every architecture lets the user choose."""

    in_channels: int = count(1, "Channels of the image.")
    num_classes: int = count(2, "Logits: one for each class, or a single one for two classes.")


@dataclass(frozen=True, kw_only=True)
class SpatialOptions(Options):
    """Options of an architecture that exists in 2D and 3D."""

    spatial_dims: int = option(3, "Spatial axes of the image.", choices=(2, 3))


@dataclass(frozen=True)
class Architecture:
    """A network without its weights.

    Parameters
    ----------
    name : str
        How scripts, the command line and files call it.
    title : str
        How people call it.
    paper : str
        The publication that describes it.
    layout : str
        How its layers are known: as in MONAI, published, or assumed.
    sizes : mapping of int to tuple of int
        For each number of spatial axes that it exists in, the spatial shape of its default input.
    options : type of Options
        Dataclass of its options.
    defaults : mapping
        Values that differ from the dataclass's defaults.
    make : callable
        Takes the options as keywords, and returns the network.
    """

    name: str
    title: str
    paper: str
    layout: str
    sizes: Mapping[int, tuple[int, ...]]
    options: type[Options]
    defaults: Mapping[str, Any]
    make: Callable[..., nn.Module]

    @property
    def spatial_dims(self) -> tuple[int, ...]:
        """The numbers of spatial axes that it exists in."""
        return tuple(self.sizes)

    def chosen(self, **given: Any) -> Options:
        """All options with their values, defaults included.

        Raises
        ------
        InputError
            If there is no such option, or a value is not one that it can have.
        """
        options = with_options(self.options, self.title, {**self.defaults, **given})
        size = getattr(options, "image_size", None)
        if size is not None and not size:
            return replace(options, image_size=self._size(options))  # type: ignore[call-arg]  # it has it, see above
        if size and len(size) != len(self._size(options)):
            raise InputError(f"{self.title} needs {len(self._size(options))} numbers as image_size, not {len(size)}.")
        return options

    def read_options(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Options whose values came as texts, such as those of a command line.

        Raises
        ------
        InputError
            If there is no such option, or a text is not of its kind.
        """
        defaults = {item.name: item.default for item in option_fields(self.options)}
        try:
            return {key: parse(text, defaults[key]) if key in defaults else text for key, text in texts.items()}
        except ValueError as error:
            raise InputError(f"{self.title} can't read an option: {error}; correct it.") from error

    def input_shape(self, **given: Any) -> tuple[int, ...]:
        """Shape (C, *spatial) of an input that it takes with these options."""
        options = self.chosen(**given)
        return (options.in_channels, *(getattr(options, "image_size", ()) or self._size(options)))

    def build(self, **given: Any) -> nn.Module:
        """The network with random weights; see `build`."""
        options = self.chosen(**given)
        try:
            return self.make(**vars(options))
        except _FAILURES as error:
            raise InputError(f"{self.title} can't be built with these options: {one_line(error)}.") from error

    def _size(self, options: Options) -> tuple[int, ...]:
        return self.sizes[getattr(options, "spatial_dims", self.spatial_dims[0])]


def architecture(
    name: str,
    title: str,
    *,
    paper: str,
    layout: str,
    sizes: Mapping[int, tuple[int, ...]],
    options: type[Options] = Options,
    **defaults: Any,
) -> Callable[[Make], Make]:
    """Register the function or class below as an architecture; see `Architecture` for the parameters."""

    def decorate(make: Make) -> Make:
        _registry.register(Architecture(name, title, paper, layout, sizes, options, defaults, make))
        return make

    return decorate


def architectures() -> Mapping[str, Architecture]:
    """All registered architectures by name."""
    return _registry.all()


def find(name: str) -> Architecture:
    """The architecture of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    known = architectures()
    if name not in known:
        raise InputError(f"There is no architecture {name!r}; choose one of {', '.join(known)}.")
    return known[name]


def build(name: str, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name : str
        Of the architecture, such as ``"densenet121"``; see `architectures`.
    **options
        Fields of its options dataclass, such as ``in_channels`` and ``num_classes``.

    Raises
    ------
    InputError
        If there is no such architecture or option, the values do not go together, or a package is missing.
    """
    return find(name).build(**options)
