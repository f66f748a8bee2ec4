"""Programs of torch.export.

``torch.export.load`` unpickles whatever the file says and evaluates expressions in it, so that a file can run
any code. It is not used here: the archive is read as what it is, JSON and numbers.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_xai_med.errors import ModelError, UntrustedError, told_as
from napari_xai_med.models.archives import check_swelling
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register
from napari_xai_med.models.formats.facts import NetworkFacts, Output
from napari_xai_med.models.graphs.exported import DTYPES, steps_of_graph
from napari_xai_med.models.graphs.exported_outputs import cut_endings, named_outputs, size_of
from napari_xai_med.models.graphs.program import Program, Step, only_in_batches


@register
class Exported(NetworkFormat):
    """A program written by ``torch.export.save``, with PyTorch 2.8 or later."""

    name: ClassVar[str] = "torch.export"
    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = True

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:  # noqa: ARG002  # it is in the file
        """Load the network; see `NetworkFormat`."""
        advice = "save it with torch.export.save"
        with (
            told_as(ModelError, f"{path} is not a program of torch.export, or is damaged; {advice}"),
            zipfile.ZipFile(path) as archive,
        ):
            return _program(_Archive(archive, path))

    def gives_of(self, module: nn.Module) -> frozenset[Gives]:
        """Without layers where the file fixes several images: a map could not be told from the others'."""
        return frozenset({Gives.GRADIENTS}) if getattr(module, "batch", None) not in (None, 1) else self.gives

    def facts(self, path: Path) -> NetworkFacts:
        """What the file says about its network."""
        program = self.load(path, nn.Identity)
        assert isinstance(program, Program)
        return program.facts


class _Archive:
    """The files in a program's zip, which lie under one folder."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self.path = archive, path
        check_swelling(archive, path)
        self._files = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "models/model.json" not in self._files:
            if "serialized_exported_program.json" in archive.namelist():
                raise ModelError(
                    f"{path} was written by PyTorch 2.7 or older; load it with torch.export.load if you trust "
                    "it, or build the network again, and write it with torch.export.save of PyTorch 2.8 or later."
                )
            raise ModelError(f"{path} holds no models/model.json as torch.export.save writes it; save it anew.")
        if self.read("byteorder") != b"little":
            raise ModelError(f"{path} was written on a big-endian computer; export it again on another.")

    def read(self, name: str) -> bytes:
        return self._archive.read(self._files[name])

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def tensors(self, folder: str) -> dict[str, Tensor]:
        """All tensors by name in the folder "weights" or "constants"."""
        storages: dict[str, bytearray] = {}
        tensors = {}
        for name, item in self.json(f"data/{folder}/model_{folder}_config.json")["config"].items():
            file = str(item["path_name"])
            if item["use_pickle"] or not file.startswith(("weight_", "tensor_")):
                raise UntrustedError(
                    f"{self.path} was refused because {name!r} in it is stored as code; export only plain tensors."
                )
            storage = storages.setdefault(file, bytearray(self.read(f"data/{folder}/{file}")))
            tensors[name] = _tensor(storage, item["tensor_meta"])
            if item["is_param"]:
                tensors[name] = nn.Parameter(tensors[name], requires_grad=False)
        return tensors


def _tensor(storage: bytearray, meta: Mapping[str, Any]) -> Tensor:
    sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
    dtype = DTYPES[meta["dtype"]]
    flat = torch.frombuffer(storage, dtype=dtype) if storage else torch.empty(0, dtype=dtype)
    if math.prod(sizes) > len(flat) or meta["layout"] != 7:
        raise ValueError("a tensor is larger than what is stored of it")
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))


def _program(archive: _Archive) -> Program:
    content = archive.json("models/model.json")
    if content["schema_version"]["major"] != 8:
        raise ModelError(f"{archive.path} was written by another PyTorch than this; export it again.")
    module = content["graph_module"]
    graph, signature = module["graph"], module["signature"]
    tensors = archive.tensors("weights") | archive.tensors("constants")
    state: dict[str, tuple[str, Tensor]] = {}
    images: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, item),) = spec.items()
        key = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        if kind in key:
            state[item["arg"]["name"]] = (item[key[kind]], tensors[item[key[kind]]])
        elif kind == "user_input" and set(item["arg"]) == {"as_tensor"}:
            images.append(item["arg"]["as_tensor"]["name"])
        else:
            raise ModelError(
                f"The network in {archive.path} takes more than an image; export one that takes only that."
            )
    if len(images) != 1:
        raise ModelError(f"The network in {archive.path} takes {len(images)} inputs; export one that takes an image.")
    sizes = graph["tensor_values"]
    batch, *shape = (size_of(n) for n in sizes[images[0]]["sizes"])
    names, values = zip(*named_outputs(module), strict=True)
    nodes, outputs, endings = cut_endings(graph["nodes"], sizes, values)
    steps: list[Step] = steps_of_graph(nodes, images[0])
    told = []
    for name, value, ending in zip(names, values, endings, strict=True):
        lengths = [size_of(n) for n in sizes[value]["sizes"]]
        told.append(Output(name, lengths[1] if len(lengths) > 1 else None, ending))
    facts = NetworkFacts(tuple(shape), tuple(told), limit=only_in_batches(batch))
    return Program(steps, images[0], outputs, state=state, constants={}, batch=batch, facts=facts)
