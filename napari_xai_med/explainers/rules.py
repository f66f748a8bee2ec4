"""Other ways back through the functions of a network than their derivatives.

captum hangs its own on modules. It fails or is silent where a module is used twice, where an activation is a function
and no module, and where it works in place, as in most networks of MONAI. Here every call of a function is seen,
also those of networks that files describe as graphs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_xai_med.errors import ModelError
from napari_xai_med.models.endings import again

Compute = Callable[..., Any]
Rule = Callable[[Tensor, tuple[Tensor, ...], Compute], tuple[Tensor | None, ...]]
"""From the gradient of a function's result, what went in, and the function, to the gradient of what went in."""

_RELUS = frozenset(("relu", "relu6"))
_ELEMENTWISE = frozenset(
    (
        *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "clip", "threshold"),
        *("sigmoid", "expit", "special_expit", "tanh", "hardsigmoid", "softsign", "log_sigmoid", "logsigmoid"),
        *("elu", "selu", "celu", "leaky_relu", "prelu", "silu", "gelu", "mish", "softplus", "hardswish"),
        *("hardshrink", "softshrink", "tanhshrink", "erf", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square"),
        *("abs", "reciprocal"),
    )
)
_POOLS = frozenset(
    f"{kind}_pool{d}d{indices}"
    for kind in ("max", "adaptive_max")
    for d in (1, 2, 3)
    for indices in ("", "_with_indices")
)
_PRODUCTS = frozenset(("mul", "multiply", "matmul", "bmm"))

_TINY = 8
"""Smallest differences of 1 to its neighbour up to which a derivative stands for a quotient: 1e-6, as in shap."""


class Rules(TorchFunctionMode):
    """While active, functions that a rule is for have another way back.

    Attributes
    ----------
    replaced : int
        How many calls had one so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced = 0

    @abstractmethod
    def call(self, name: str, compute: Compute, values: tuple[Tensor, ...]) -> Any:
        """Call a function of tensors that `takes` said yes to."""

    @abstractmethod
    def takes(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """How many tensors the function of a name has for which there is a rule; 0 if there is none for it."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, by the rule for it if there is one."""
        kwargs = kwargs or {}
        # Operators of exported programs are called relu.default, those that work in place relu_.
        name = str(getattr(function, "__name__", "")).split(".")[0]
        plain = name.strip("_")
        count = self.takes(plain, args, kwargs)
        first = args[:count] or tuple(kwargs[key] for key in ("input", "self") if key in kwargs)
        if not count or len(first) < count or not all(map(_is_float, first)) or "out" in kwargs:
            return function(*args, **kwargs)
        self.replaced += 1
        told = name == f"{plain}_" or kwargs.get("inplace") or any(value is True for value in args[1:])
        in_place = told and plain not in _POOLS

        def compute(*values: Tensor) -> Any:
            # What is kept for the way back must stay as it is.
            own = values[0].clone() if in_place else values[0]
            return again(function, own, (own, *values[1:], *args[count:]) if args else (), kwargs)

        result = self.call(plain, compute, tuple(first))
        return first[0].copy_(result) if in_place else result


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class _Changed(torch.autograd.Function):
    """A function with another way back."""

    @staticmethod
    def forward(ctx: Any, compute: Compute, rule: Rule, *values: Tensor) -> Any:
        """Compute it; what went in is copied, since others may change it in place."""
        ctx.kept = tuple(each.detach().clone() for each in values)
        ctx.compute, ctx.rule = compute, rule
        result = compute(*ctx.kept)
        if isinstance(result, tuple):
            ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Go back by the rule."""
        return (None, None, *ctx.rule(gradients[0], ctx.kept, ctx.compute))


def changed(compute: Compute, rule: Rule, values: tuple[Tensor, ...]) -> Any:
    """The result of a function of tensors, whose gradient goes back by a rule."""
    return _Changed.apply(compute, rule, *values)


def derivative(gradient: Tensor, values: tuple[Tensor, ...], compute: Compute) -> tuple[Tensor, ...]:
    """The usual way back through a function."""
    with torch.enable_grad():
        leaves = tuple(each.detach().requires_grad_() for each in values)
        return torch.autograd.grad(_first(compute(*leaves)), leaves, gradient)


def _first(result: Any) -> Tensor:
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor


class ReluRules(Rules):
    """While active, the gradient goes back through each ReLU by a rule.

    Parameters
    ----------
    rule : {guided, deconvolution}
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def takes(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """See `Rules`."""
        # nn.ReLU6 is a hardtanh from 0 on.
        lowest = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        return int(name in _RELUS or (name == "hardtanh" and lowest == 0))

    def call(self, name: str, compute: Compute, values: tuple[Tensor, ...]) -> Any:  # noqa: ARG002  # all alike
        """See `Rules`."""
        return changed(compute, self._rule, values)


def guided(gradient: Tensor, values: tuple[Tensor, ...], compute: Compute) -> tuple[Tensor, ...]:
    """Positive gradients, where something passes (Springenberg et al. 2014, arXiv:1412.6806)."""
    return (derivative(gradient, values, compute)[0].clamp(min=0),)


def deconvolution(gradient: Tensor, values: tuple[Tensor, ...], compute: Compute) -> tuple[Tensor, ...]:  # noqa: ARG001
    """Positive gradients, whether something passes or not (Zeiler & Fergus 2014, arXiv:1311.2901)."""
    return (gradient.clamp(min=0),)


@dataclass(frozen=True)
class _Call:
    """A call of a function for the baseline."""

    name: str
    values: tuple[Tensor, ...]


class _Differences(Rules):
    """The functions that have a rule of DeepLIFT."""

    def takes(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:  # noqa: ARG002  # others need it
        """See `Rules`."""
        return 2 if name in _PRODUCTS else int(name in _ELEMENTWISE or name in _POOLS)


class Baseline(_Differences):
    """While active, remembers what the functions of a network are given for the baseline.

    Attributes
    ----------
    calls : list
        All of them, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def call(self, name: str, compute: Compute, values: tuple[Tensor, ...]) -> Any:
        """See `Rules`."""
        self.calls.append(_Call(name, tuple(each.detach().clone() for each in values)))
        return compute(*values)


class Rescale(_Differences):
    """While active, what goes back are DeepLIFT's multipliers: differences from the baseline, not derivatives.

    Networks of files may take one image at once only, so that image and baseline go through one after the other.

    Parameters
    ----------
    baseline : Baseline
        Of the same network, after the same number of images.
    """

    def __init__(self, baseline: Baseline) -> None:
        super().__init__()
        self._calls = baseline.calls

    def call(self, name: str, compute: Compute, values: tuple[Tensor, ...]) -> Any:
        """See `Rules`."""
        before = self._calls[self.replaced - 1] if self.replaced <= len(self._calls) else None
        shapes = [each.shape for each in values]
        if before is None or before.name != name or [each.shape for each in before.values] != shapes:
            raise ModelError(
                "The network computes other steps for the image than for the baseline; choose another method."
            )
        if name in _PRODUCTS and not all(each.requires_grad for each in values):
            return compute(*values)
        rule = _product if name in _PRODUCTS else _largest if name in _POOLS else _rescaled

        def against(gradient: Tensor, kept: tuple[Tensor, ...], function: Compute) -> tuple[Tensor, ...]:
            return rule(gradient, kept, before.values, function)

        return changed(compute, against, values)


def _rescaled(
    gradient: Tensor, values: tuple[Tensor, ...], before: tuple[Tensor, ...], compute: Compute
) -> tuple[Tensor, ...]:
    """The rescale rule: what comes out changed by, for each unit of what went in."""
    step = values[0] - before[0]
    return (_quotient(gradient * (compute(*values) - compute(*before)), step, gradient, values, compute),)


def _largest(
    gradient: Tensor, values: tuple[Tensor, ...], before: tuple[Tensor, ...], compute: Compute
) -> tuple[Tensor, ...]:
    """The rule of shap and captum for the largest of several.

    If it grew, that is due to the one that is largest now, else to the one that was the largest for the baseline.
    captum puts these back by max_unpool, which of overlapping windows keeps one; the pooling's own way back adds them.
    captum also leaves this rule out where the pooling follows directly on an activation.
    """
    now, then = _first(compute(*values)), _first(compute(*before))
    top = torch.maximum(now, then)
    (grown,) = derivative(gradient * (top - then), values, compute)
    (shrunk,) = derivative(gradient * (now - top), before, compute)
    return (_quotient(grown + shrunk, values[0] - before[0], gradient, values, compute),)


def _quotient(change: Tensor, step: Tensor, gradient: Tensor, values: tuple[Tensor, ...], compute: Compute) -> Tensor:
    small = step.abs() < _TINY * torch.finfo(step.dtype).eps
    (slope,) = derivative(gradient, values, compute)
    return torch.where(small, slope, change / torch.where(small, 1, step))


def _product(
    gradient: Tensor, values: tuple[Tensor, ...], before: tuple[Tensor, ...], compute: Compute
) -> tuple[Tensor, ...]:
    """Each factor with the mean of the other one: the Shapley values of the two, as in shap."""
    means = tuple((now + then) / 2 for now, then in zip(values, before, strict=True))
    return derivative(gradient, means, compute)
