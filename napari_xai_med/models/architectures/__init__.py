"""Networks by name, for files that hold weights only. A new one is a decorated function or class in this folder.

Every network here takes (N, in_channels, *spatial) and returns logits, shape (N, num_classes): where a paper's
network ends in sigmoid or softmax, that last step is left out, since explanations are about logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from napari_xai_med.errors import InputError
from napari_xai_med.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Make = TypeVar("Make", bound=Callable[..., Any])

_registry = Registry("napari_xai_med.models.architectures")

# What the libraries' constructors raise for numbers that do not go together.
_FAILURES = (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, NotImplementedError)


def option(default: Any, text: str, *, choices: tuple[Any, ...] = ()) -> Any:
    """A field of an options dataclass.

    Parameters
    ----------
    default : object
        Its type is the option's: whole numbers are positive, other numbers at least 0 and less than 1.
    text : str
        What it does, for the widget's tooltip, the command line's help and the documentation.
    choices : tuple
        What it can be, if that is limited.
    """
    return field(default=default, metadata={"text": text, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every architecture lets the user choose."""

    in_channels: int = option(1, "Channels of the image.")
    num_classes: int = option(2, "Logits: one for each class, or a single one for two classes.")


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
        known = {item.name for item in fields(self.options)}
        for key in given:
            if key not in known:
                raise InputError(f"{self.title} has no option {key!r}; it has {', '.join(sorted(known))}.")
        # Lists, because options often come out of JSON.
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        options = self.options(**{**self.defaults, **given})
        self._check(options)
        if "image_size" in known and not options.image_size:  # type: ignore[attr-defined]
            options = self.options(**{**vars(options), "image_size": self._size(options)})
        return options

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
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise InputError(f"{self.title} can't be built with these options: {reason}.") from error

    def _size(self, options: Options) -> tuple[int, ...]:
        return self.sizes[getattr(options, "spatial_dims", self.spatial_dims[0])]

    def _check(self, options: Options) -> None:
        for item in fields(options):
            value, choices = getattr(options, item.name), item.metadata["choices"]
            if choices and value not in choices:
                allowed = ", ".join(map(repr, choices))
                raise InputError(f"{self.title} can't have {item.name} {value!r}; choose one of {allowed}.")
            if not _fits(value, item.default):
                raise InputError(f"{self.title} can't have {item.name} {value!r}; give it {_kind(item.default)}.")
        size = getattr(options, "image_size", ())
        if size and len(size) != len(self._size(options)):
            raise InputError(f"{self.title} needs {len(self._size(options))} numbers as image_size, not {len(size)}.")


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind that an option has; True is no number here."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_fits(entry, 1) for entry in value)
    if isinstance(default, bool | str) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    return isinstance(value, int | float) and 0 <= value < 1


def _kind(default: Any) -> str:
    kinds = {tuple: "a list of positive whole numbers", bool: "true or false", str: "a text"}
    numbers = {int: "a positive whole number", float: "a number of at least 0 and less than 1"}
    return (kinds | numbers)[type(default)]


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
