"""Networks that end in sigmoid or softmax, explained before it.

Behind these functions a sure network's gradient vanishes, and a head that applies them again gives wrong
probabilities. Which function a network ends in is not read from its code but seen while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_ENDINGS = {"sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "softmax"}
_SHAPING = {"squeeze", "unsqueeze", "flatten", "view", "reshape"}


class Endings(TorchFunctionMode):
    """While active, remembers what went into every sigmoid and softmax, as long as what came out is in use."""

    def __init__(self) -> None:
        super().__init__()
        self._before: Any = WeakTensorKeyDictionary()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and remember its input if its output may be the network's."""
        kwargs = kwargs or {}
        # Operators of exported programs are called sigmoid.default, those that work in place sigmoid_.
        name = getattr(function, "__name__", "").split(".")[0]
        plain = name.strip("_")
        if plain not in _ENDINGS and name not in _SHAPING:
            return function(*args, **kwargs)
        values = args[0] if args else kwargs.get("input")
        if not isinstance(values, Tensor):
            return function(*args, **kwargs)
        known = self._before.get(values)
        kept = values.clone() if name == f"{plain}_" else values
        result = function(*args, **kwargs)
        if plain in _ENDINGS:
            self._before[result] = (kept, _ENDINGS[plain])
        elif known is not None:
            self._before[result] = (function(known[0], *args[1:], **kwargs), known[1])
        return result

    def undo(self, output: Tensor) -> tuple[Tensor, str]:
        """The output before the function that it ends in, and that function's name, if there is one."""
        before: tuple[Tensor, str] = self._before.get(output, (output, ""))
        return before


def logits_of(probabilities: Tensor, ending: str) -> Tensor:
    """Logits that give these probabilities, where what was before the last function is out of reach.

    Parameters
    ----------
    probabilities : Tensor, shape (N, number of classes)
    ending : {"sigmoid", "softmax"}
    """
    tiny = torch.finfo(probabilities.dtype).eps
    return probabilities.logit(tiny) if ending == "sigmoid" else probabilities.clamp(min=tiny).log()
