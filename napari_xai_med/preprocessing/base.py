"""What a preprocessing step is, how the steps are found, and how they become MONAI's configuration and back."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar

from napari_xai_med.errors import InputError, ModelError, XAIMedError, one_line
from napari_xai_med.options import check_options, option_fields, values_of, with_options
from napari_xai_med.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

KEY = "image"
READING: tuple[dict[str, Any], ...] = (
    {"_target_": "LoadImaged", "keys": KEY},
    {"_target_": "EnsureChannelFirstd", "keys": KEY},
)
"""How a configuration begins. Here the image has been read already, and these are skipped."""

REMOVED = ("AsChannelFirst", "AddChannel")
"""Steps of reading that MONAI had once, and published bundles still name."""

READING_NAMES = ("LoadImage", "EnsureChannelFirst", *REMOVED)


@dataclass(frozen=True)
class Step(ABC):
    """One step. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        How scripts and files call it.
    title : str
        How people call it.
    target : str
        The transform that does it, as a MONAI configuration names it.
    fixed : mapping
        Arguments of the transform that are always the same.
    ignored : mapping
        Arguments that a configuration may have with one of these values, which change nothing.
    alike : mapping
        For options, other words that MONAI has for one of their choices.

    Raises
    ------
    InputError
        If an option has a value that it can't have, or the options contradict each other.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    target: ClassVar[str]
    fixed: ClassVar[Mapping[str, Any]] = {}
    ignored: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    alike: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __post_init__(self) -> None:
        for key, words in self.alike.items():
            object.__setattr__(self, key, words.get(getattr(self, key), getattr(self, key)))
        check_options(self, self.title)
        if problem := self.problem():
            raise InputError(f"{self.title} {problem}.")

    def problem(self) -> str:
        """What contradicts itself, to be read behind the title; empty if nothing does."""
        return ""

    def config(self) -> dict[str, Any]:
        """The step as an entry of a MONAI configuration."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in values_of(self).items()}
        return {"_target_": self.target, "keys": KEY, **self.fixed, **values}

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Step | None:
        """The step that an entry of a MONAI configuration stands for; None if it says more than a step can."""
        if entry.get("keys") not in (KEY, [KEY]):
            return None
        arguments = {key: value for key, value in entry.items() if key not in ("_target_", "keys")}
        for key, values in cls.ignored.items():
            if arguments.pop(key, values[0]) not in values:
                return None
        for key, value in cls.fixed.items():
            if arguments.pop(key, value) != value:
                return None
        if any(key not in {item.name for item in option_fields(cls)} for key in arguments):
            return None
        # What is left out has MONAI's defaults, which are not always ours.
        arguments = {**_defaults(cls), **arguments}
        arguments |= {key: words.get(arguments[key], arguments[key]) for key, words in cls.alike.items()}
        try:
            return with_options(cls, cls.title, _as_lists(cls, arguments))
        except InputError:
            return None


@dataclass(frozen=True)
class Other:
    """An entry of a MONAI configuration that is no step of ours: it is kept and can't be changed."""

    entry: Mapping[str, Any]

    @property
    def title(self) -> str:
        """How people call it."""
        return str(self.entry["_target_"]).rsplit(".", 1)[-1]

    def config(self) -> dict[str, Any]:
        """The entry as it came."""
        return dict(self.entry)


AnyStep = Step | Other

_registry = Registry("napari_xai_med.preprocessing")
register = _registry.register


def steps() -> Mapping[str, type[Step]]:
    """All registered steps by name."""
    return _registry.all()


def read_steps(entries: Sequence[Mapping[str, Any]]) -> tuple[AnyStep, ...]:
    """The steps that the entries of a MONAI configuration stand for, those that read files left out.

    Raises
    ------
    InputError
        If an entry is not one.
    """
    found: list[AnyStep] = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
            raise InputError(f"{entry!r} is no preprocessing step; it needs a _target_.")
        target = plain_name(entry["_target_"])
        if target.startswith(READING_NAMES):
            continue
        known = (kind.read(entry) for kind in steps().values() if plain_name(kind.target) == target)
        found.append(next((step for step in known if step is not None), Other(entry)))
    return tuple(found)


def config_of(chosen: Sequence[AnyStep]) -> dict[str, Any]:
    """Steps as the ``preprocessing`` of a MONAI bundle."""
    return {"_target_": "Compose", "transforms": [*map(dict, READING), *(step.config() for step in chosen)]}


def transform_of(chosen: Sequence[AnyStep], name: str) -> Callable[[Tensor], Tensor]:
    """The function from a channel-first image to a network's input that the steps stand for.

    Parameters
    ----------
    chosen : sequence of Step or Other
    name : str
        Of the classifier, for sentences.

    Raises
    ------
    UntrustedError
        If a step would run code.
    InputError
        If a step can't be built.
    """
    from monai.bundle import ConfigParser
    from monai.transforms import Compose

    from napari_xai_med.models.trust import without_code

    entries = [step.config() for step in chosen]
    # What reads files has no place behind an image that was read.
    parser = ConfigParser(without_code({"steps": entries}, "steps", reading=False))
    try:
        return applied(Compose(list(parser.get_parsed_content("steps"))), name)
    except Exception as error:
        raise InputError(f"The preprocessing can't be built: {one_line(error.__cause__ or error)}.") from error


def applied(transform: Callable[[Any], Any], name: str, key: str = KEY) -> Callable[[Tensor], Tensor]:
    """A transform of dictionaries as a function of an image, with one sentence for what goes wrong in it.

    The image stands in the dictionary under `key`.

    Raises
    ------
    ModelError
        From the function, if the transform fails.
    """
    from napari_xai_med.models.size_guard import SizeGuard

    def apply(image: Tensor) -> Tensor:
        try:
            with SizeGuard.for_image(image.numel()):
                result: Tensor = transform({key: image})[key]
        except XAIMedError:
            raise
        except Exception as error:
            # Its arguments are the author's choice, and MONAI's transforms fail in any way at wrong ones.
            cause = one_line(error.__cause__ or error)
            raise ModelError(f"The preprocessing of {name} failed on this image: {cause}.") from error
        return result

    return apply


def _defaults(kind: type[Step]) -> dict[str, Any]:
    """What the transform takes for options that are left out."""
    from napari_xai_med.models.trust import locate_class

    transform = locate_class(kind.target)
    parameters = signature(transform).parameters if transform else {}
    known = {item.name: parameters[item.name].default for item in option_fields(kind) if item.name in parameters}
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in known.items()
        if value is not Parameter.empty
    }


def plain_name(target: str) -> str:
    """A transform's name without its package and the letters that mark its dictionary form."""
    name = target.rsplit(".", 1)[-1]
    for ending in ("Dict", "d", "D"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def _as_lists(kind: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Single values where an option is a list, and whole numbers where it is not whole: MONAI takes both."""
    values = dict(arguments)
    for item in option_fields(kind):
        value = values.get(item.name)
        if isinstance(item.default, tuple) and isinstance(value, int | float) and not isinstance(value, bool):
            values[item.name] = [value]
    return values
