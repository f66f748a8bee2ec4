"""ONNX: a network of any framework. Predictions come from onnxruntime, gradients from a converted network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models.devices import is_out_of_memory
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register
from napari_xai_med.models.formats.facts import NetworkFacts
from napari_xai_med.models.graphs.program import Program, only_in_batches
from napari_xai_med.models.size_guard import SizeGuard

_TOLERANCE = 1e-4
"""Difference of the converted network's answer from onnxruntime's, relative to the largest number in it."""

_TOLERANCE_OF_HALVES = 1e-2
"""The same for a network in half precision, which has three decimal digits; it is converted to single precision."""

_LENGTHS = (64, 32, 96, 128, 224, 28)
"""Axes that may have any length are tried with these."""

_LARGEST_MEMORY = 2**33
"""Bytes that onnxruntime may have; what its operators will ask for is not known before."""

_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What operators of PyTorch raise for what they can't take."""

_LARGEST_TRIED = 2**28
"""Numbers in an image above which the conversion is not tried: it takes several times their memory."""

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@register
class Onnx(NetworkFormat):
    """A network as an ONNX graph.

    It is converted to PyTorch. Only if the converted network answers as onnxruntime does, it is used;
    otherwise the network can be asked for predictions, and for explanations that need nothing else.
    """

    name: ClassVar[str] = "ONNX"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = True

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:  # noqa: ARG002  # it is in the file
        """Load the network; see `NetworkFormat`."""
        model, facts, batch = _read(path)
        session = _session(model, path)
        if session.get_inputs()[0].type not in _FLOATS:
            raise ModelError(
                f"The network in {path} takes no image but {session.get_inputs()[0].type}; export another."
            )
        runtime = OnnxNetwork(session, facts, batch)
        converted = _converted(model, runtime)
        if isinstance(converted, Program):
            return converted
        runtime.facts = replace(facts, limit=converted)
        return runtime

    def gives_of(self, module: nn.Module) -> frozenset[Gives]:
        """Nothing but predictions where the conversion did not work."""
        if not isinstance(module, Program):
            return frozenset()
        return self.gives if module.batch in (None, 1) else frozenset({Gives.GRADIENTS})

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file, and those that hold its weights."""
        # Checked first: a hostile file may name any other.
        _read(path)
        from napari_xai_med.models.graphs.onnx_check import weight_files

        return (path, *weight_files(path))

    def facts(self, path: Path) -> NetworkFacts:
        """What the file says about its network."""
        return _read(path)[1]


def _read(path: Path) -> tuple[Any, NetworkFacts, int | None]:
    """The checked content of a file in the form of `prepare`, what it says, and the number of images it fixes."""
    try:
        from napari_xai_med.models.graphs.onnx_check import read_onnx
        from napari_xai_med.models.graphs.onnx_prepare import images_of, prepare
        from napari_xai_med.models.graphs.onnx_program import facts_of
    except ImportError as error:
        raise _missing(path) from error
    model = read_onnx(path)
    images = images_of(model)
    if len(images) != 1:
        names = ", ".join(repr(image.name[:80]) for image in images[:5])
        raise ModelError(
            f"The network in {path} takes {len(images)} inputs ({names}); export one that takes an image only, with "
            "the others fixed inside."
        )
    if len(images[0].type.tensor_type.shape.dim) not in (4, 5):
        raise ModelError(
            f"The network in {path} does not take one image of two or three dimensions with a batch axis and "
            "channels; export one that does."
        )
    return model, *facts_of(model, prepare(model, path))


def _missing(path: Path) -> ModelError:
    return ModelError(f"{path.name} needs the packages onnx and onnxruntime: pip install onnx onnxruntime.")


def _session(model: Any, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(path) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    _limit_memory(onnxruntime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ModelError(f"onnxruntime can't run {path}: {one_line(error)}; export it again.") from error


@cache
def _limit_memory(onnxruntime: Any) -> None:
    """Let all networks that onnxruntime computes have so much memory and not more; once in a program."""
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    # Grow by what is asked for; all else as onnxruntime chooses.
    limits = {"max_mem": _LARGEST_MEMORY, "arena_extend_strategy": 1}
    others = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({**limits, **others}))


class OnnxNetwork(nn.Module):
    """A network that onnxruntime computes: without gradients and layers.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    facts : NetworkFacts
    batch : int, optional
        Number of images that the file fixes; None for any.
    """

    def __init__(self, session: Any, facts: NetworkFacts, batch: int | None) -> None:
        super().__init__()
        self._session, self.facts, self.batch = session, facts, batch
        self.ending, self.endings = facts.ending, facts.endings

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        """The same network: it can't be copied, and nothing in it changes."""
        return self

    def forward(self, images: Tensor) -> Any:
        """What the network gives for images, shape (N, C, *spatial): a tensor, or a tuple of several."""
        array = images.detach().cpu().numpy()
        if self.batch is None or len(array) == self.batch:
            rows = [self._run(array)]
        else:
            rows = [[o[:1] for o in self._run(np.repeat(array[k : k + 1], self.batch, 0))] for k in range(len(array))]
        results = tuple(
            torch.from_numpy(np.concatenate(parts)).float().to(images.device) for parts in zip(*rows, strict=True)
        )
        return results[0] if len(results) == 1 else results

    def _run(self, array: Any) -> list[Any]:
        item = self._session.get_inputs()[0]
        try:
            results: list[Any] = self._session.run(None, {item.name: array.astype(_FLOATS[item.type])})
        except Exception as error:  # onnxruntime's errors have no common class
            kind = MemoryError if is_out_of_memory(RuntimeError(str(error))) else ValueError
            raise kind(one_line(error)) from error
        return results


def _converted(model: Any, runtime: OnnxNetwork) -> Program | str:
    """The network in PyTorch; why not, if it can't be converted or answers otherwise than onnxruntime."""
    from napari_xai_med.models.graphs.onnx_layers import Unsupported
    from napari_xai_med.models.graphs.onnx_prepare import in_half_precision
    from napari_xai_med.models.graphs.onnx_program import program_of

    try:
        facts = replace(runtime.facts, limit=only_in_batches(runtime.batch))
        program = program_of(model, facts, runtime.batch)
        tolerance = _TOLERANCE_OF_HALVES if in_half_precision(model) else _TOLERANCE
        return program if _agree(program, runtime, tolerance) else "converted to PyTorch it answers otherwise"
    except Unsupported as reason:
        return f"{reason} has no counterpart in PyTorch here"
    except _FAILURES as error:
        return f"it can't be converted to PyTorch: {one_line(error)}"


def _agree(program: Program, runtime: OnnxNetwork, tolerance: float) -> bool:
    """Whether two networks answer alike to noise; of two images, to see that they can take several."""
    shape = runtime.facts.input_shape
    for length in _LENGTHS if None in shape else (0,):
        noise = torch.Generator().manual_seed(0)
        tried = [n or length for n in shape]
        if math.prod(tried) > _LARGEST_TRIED:
            return False
        images = torch.randn((2, *tried), generator=noise)
        # First in PyTorch, where a result that is too large is refused before it is made.
        with torch.no_grad(), SizeGuard.for_image(images.numel()):
            try:
                answer, failure = program(images), None
            except _FAILURES as error:
                answer, failure = None, error
        try:
            expected = runtime(images)
        except (ValueError, MemoryError):
            continue
        if failure is not None:
            raise failure
        both = zip(*(x if isinstance(x, tuple) else (x,) for x in (expected, answer)), strict=True)
        return all(a.shape == b.shape and _close(a, b.float(), tolerance) for a, b in both)
    return False


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    # Not relative to 1: two networks that both answer almost nothing need not be the same.
    scale = max(1e-2, float(a.abs().max()))
    return bool(a.isfinite().all()) and float((a - b).abs().max()) <= tolerance * scale
