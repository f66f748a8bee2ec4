"""What a torch.export program gives: the names of its outputs, and these before a softmax or sigmoid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from napari_xai_med.errors import ModelError
from napari_xai_med.models.graphs.cut import Maker, Shape, find_cut

Node = Mapping[str, Any]

_ENDINGS = {
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "softmax",
    "_log_softmax": "softmax",
} | dict.fromkeys(("sigmoid", "sigmoid_"), "sigmoid")
_SHAPING = frozenset(
    {"alias", "clone", "contiguous", "detach", "dropout", "flatten", "lift_fresh_copy", "reshape", "squeeze", "to"}
    | {"unflatten", "unsqueeze", "view", "_to_copy", "_unsafe_view"}
)


def size_of(size: Mapping[str, Any]) -> int | None:
    """A length, or None for one that the file leaves open. Its expression is text, and stays text."""
    return int(size["as_int"]) if "as_int" in size else None


def named_outputs(module: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each tensor that a program gives: keys of a dict as the name, else the value's own.

    Raises
    ------
    ModelError
        If it gives no tensor.
    """
    found = [item["user_output"]["arg"] for item in module["signature"]["output_specs"] if "user_output" in item]
    try:
        spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1]
        keys = [".".join(path) if told else "" for path, told in _leaves(spec, (), False)]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        keys = []
    keys = keys if len(keys) == len(found) else [""] * len(found)
    named = [(key, arg["as_tensor"]["name"]) for key, arg in zip(keys, found, strict=True) if "as_tensor" in arg]
    if not named:
        raise ModelError("The network gives no tensor; export one that gives the logits of its classes.")
    return [(key or value, value) for key, value in named]


def _leaves(spec: Mapping[str, Any], path: tuple[str, ...], told: bool) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Where each output stands in what the network returns, and whether a dict's key is a part of that."""
    children = spec["children_spec"]
    if spec["type"] is None:
        yield path, told
        return
    keys = json.loads(spec["context"] or "null")
    dict_keys = isinstance(keys, list) and len(keys) == len(children) and all(isinstance(key, str) for key in keys)
    for k, child in enumerate(children):
        yield from _leaves(child, (*path, keys[k] if dict_keys else str(k)), told or dict_keys)


def cut_endings(
    nodes: Sequence[Node], sizes: Mapping[str, Any], outputs: Sequence[str]
) -> tuple[list[Node], list[str], list[str]]:
    """Make every output end before its softmax or sigmoid.

    Parameters
    ----------
    nodes : sequence
        The graph's operators.
    sizes : mapping
        The file's `tensor_values`.
    outputs : sequence of str

    Returns
    -------
    (list, list of str, list of str)
        The operators, the new outputs, and what each ended in.
    """
    made_by = {item["as_tensor"]["name"]: k for k, node in enumerate(nodes) for item in _tensors(node["outputs"])}

    def maker(value: str) -> Maker | None:
        return _maker(nodes[made_by[value]], made_by[value]) if value in made_by else None

    def shape(value: str) -> Shape | None:
        return [size_of(n) for n in sizes[value]["sizes"]] if value in sizes else None

    cuts = [find_cut(output, maker, shape) for output in outputs]
    result = list(nodes)
    ends: list[str] = []
    for output, cut in zip(outputs, cuts, strict=True):
        value = cut.before
        if cut.node >= 0 and _operator(nodes[cut.node]).endswith("_"):
            # Kept as it was before it is changed in place. No name in a file begins with a space.
            value = f" before {output}"
            clone = {"target": "torch.ops.aten.clone.default", "metadata": {}, **_between(cut.before, value)}
            result.insert(result.index(nodes[cut.node]), clone)
        for position, k in enumerate(cut.chain):
            node = deepcopy(dict(nodes[k]))
            made = f" {position} of {output}"
            # Dropout's first argument has another name than that of the others.
            node["inputs"] = [node["inputs"][0] | {"arg": {"as_tensor": {"name": value}}}, *node["inputs"][1:]]
            node["outputs"] = _between(value, made)["outputs"]
            result.append(node)
            value = made
        ends.append(value)
    return result, ends, [cut.ending for cut in cuts]


def _between(source: str, made: str) -> dict[str, Any]:
    return {
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": source}}}],
        "outputs": [{"as_tensor": {"name": made}}],
    }


def _tensors(outputs: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (item for item in outputs if "as_tensor" in item)


def _operator(node: Node) -> str:
    return str(node["target"]).removeprefix("torch.ops.aten.").partition(".")[0]


def _maker(node: Node, number: int) -> Maker | None:
    """What an operator is to the ending of a network; None for one that changes more than the shape."""
    name = _operator(node)
    arguments = {item["name"]: item["arg"] for item in node["inputs"]}
    first = node["inputs"][0]["arg"] if node["inputs"] else {}
    if "as_tensor" not in first or len(node["outputs"]) != 1:
        return None
    source = str(first["as_tensor"]["name"])
    if name in _ENDINGS:
        axis = arguments.get("dim", {}).get("as_int", -1)
        return Maker(number, source, _ENDINGS[name], int(axis))
    if name == "permute":
        order = arguments["dims"].get("as_ints", [])
        return Maker(number, source, order=tuple(int(n) % max(len(order), 1) for n in order)) if order else None
    return Maker(number, source) if name in _SHAPING else None
