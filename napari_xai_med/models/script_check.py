"""Read the code in a TorchScript file before PyTorch does: some of it runs while the file is loaded.

The language can save and read files, start other threads and ask for any operator of any package that is imported.
Its code is a part of Python, and is read here with Python's own parser: what is not known to compute and do
nothing else is refused.
"""

from __future__ import annotations

import ast
import io
import math
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.graphs.exported import is_harmless, words

_WORDS = words(
    """
    Bool Float FloatImplicit Int IntImplicit ScalarImplicit Size __contains__ __derive_index __getitem__
    __interpolate __is__ __isnot__ __not__ __range_length __round_to_zero_floordiv __upsample __upsample_bilinear
    __upsample_nearest _convolution _native_multi_head_attention _set_item _tensor_to_list append as_tensor clear
    copy count cpu device dict dim embedding endswith extend find floordiv format get insert instance_norm
    is_floating_point is_scripting item items join keys len list lower meshgrid multi_head_attention numel numpy_T
    one_hot outer pop percentFormat rand rand_like randn randn_like real remove replace reverse size slice sorted
    startswith storage_offset str stride strip sym_stride tensor tile update upper values warn zero_
    """
)
"""Operators of TorchScript that are harmless, beside those of programs of torch.export."""

_PRIMITIVES = words(
    """
    ModuleContainerIndex NumToTensor RaiseException StringIndex abs data device dtype id is_cpu is_cuda is_meta is_mps
    is_quantized is_sparse itemsize layout max min name nbytes rangelist requires_grad tolist type unchecked_cast
    unchecked_unwrap_optional
    """
)

_SYNTAX = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword, ast.Return, ast.Pass, ast.Expr),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.If, ast.IfExp, ast.For, ast.Break, ast.Continue, ast.Assert),
    *(ast.Raise, ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.Subscript, ast.Slice, ast.List, ast.Tuple),
    *(ast.Dict, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Starred, ast.operator, ast.unaryop, ast.boolop),
    *(ast.cmpop, ast.expr_context),
)
"""Without `while`, which may never end."""

_MOST_TURNS = 10**6
"""Of loops whose number of turns is written out."""

# What TorchScript and Python could read differently; PyTorch writes neither.
_AMBIGUOUS = re.compile(r"[^\n\x20-\x7e]|\\\n|\"\"\"|'''")

_ITEM_SIZES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1}
_ITEM_SIZES |= {"Bool": 1, "ComplexFloat": 8, "ComplexDouble": 16}


def check_code(text: str, where: str) -> None:
    """Look through a file of code.

    Parameters
    ----------
    text : str
    where : str
        The archive, for sentences.

    Raises
    ------
    UntrustedError
        If it does anything else than compute.
    ModelError
        If it is not code as PyTorch writes it.
    """
    if _AMBIGUOUS.search(text):
        raise ModelError(f"{where} holds code that PyTorch did not write; save the network with torch.jit.save.")
    _Checker(where).visit(ast.parse(text))


class _Checker(ast.NodeVisitor):
    """Visits all code, and raises at the first thing that is not allowed."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._in_method = False
        self._turns = 1

    def _refuse(self, what: str) -> None:
        raise UntrustedError(
            f"{self._where} was refused because its code uses {what[:80]!r}, which is not known to be harmless; store "
            "its weights as a state dict instead."
        )

    def generic_visit(self, node: ast.AST) -> None:
        """Refuse statements that are not known."""
        if not isinstance(node, _SYNTAX):
            self._refuse(type(node).__name__.lower())
        super().generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Methods, in which `self` is a module."""
        for part in node.body:
            self._in_method = isinstance(part, ast.FunctionDef) and _takes_module(part)
            self.visit(part)
            self._in_method = False

    def visit_For(self, node: ast.For) -> None:
        """A loop; with those around it, it may not take so many turns that it never ends."""
        around = self._turns
        for number in node.iter.args if isinstance(node.iter, ast.Call) else ():
            if isinstance(number, ast.Constant) and isinstance(number.value, int):
                self._turns *= max(number.value, 1)
        if self._turns > _MOST_TURNS:
            self._refuse(ast.unparse(node.iter))
        self.generic_visit(node)
        self._turns = around

    def visit_Name(self, node: ast.Name) -> None:
        """A name by itself: PyTorch and its operators can't be stored under another one."""
        if node.id in ("torch", "ops", "fork", "awaitable", "getattr"):
            self._refuse(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A dotted name: an operator, a class of this file, or something of a value."""
        path = _path(node)
        if path[:1] == ["__torch__"]:
            if path[1:3] == ["torch", "classes"]:
                # Not a class of this file: it is written in C++.
                self._refuse(".".join(path))
            return
        if path[:1] == ["torch"]:
            if len(path) != 2 or not _allowed(path[1]):
                self._refuse(".".join(path))
        elif path[:1] == ["ops"]:
            known = {"aten": _allowed, "prim": _PRIMITIVES.__contains__}.get(path[1], lambda _: False)
            if len(path) != 3 or not known(path[2]):
                self._refuse(".".join(path))
        else:
            self._check_member(node.value, node.attr)
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """A call; of `getattr` only with a name that is written out."""
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1] if len(node.args) == 2 else None
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str) or node.keywords:
                self._refuse("getattr")
            else:
                self._check_member(node.args[0], name.value)
                self.visit(node.args[0])
            return
        self.generic_visit(node)

    def _check_member(self, owner: ast.expr, name: str) -> None:
        """Values have all operators as methods; a module has its own members."""
        if self._in_method and isinstance(owner, ast.Name) and owner.id == "self":
            return
        if name in _operator_names() and not _allowed(name) and name not in _PRIMITIVES:
            self._refuse(name)


def _takes_module(function: ast.FunctionDef) -> bool:
    """Whether `self` is a module all along."""
    first = function.args.args[0] if function.args.args else None
    declared = first is not None and first.arg == "self" and first.annotation is not None
    changed = any(
        isinstance(node, ast.Name) and node.id == "self" and not isinstance(node.ctx, ast.Load)
        for node in ast.walk(function)
    )
    return declared and not changed and _path(first.annotation)[:1] == ["__torch__"]  # type: ignore[union-attr]


def _path(node: ast.AST | None) -> list[str]:
    """The parts of a dotted name; none if it is not one."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*([node.id] if isinstance(node, ast.Name) else [""]), *reversed(names)] if names else []


def _allowed(name: str) -> bool:
    return is_harmless(name) or name in _WORDS


_known_names: set[str] = set()


def _operator_names() -> set[str]:
    """All operators that values have as methods."""
    if not _known_names:
        _known_names.update(schema.name.partition("::")[2] for schema in torch._C._jit_get_all_schemas())
    return _known_names


def check_tensors(content: bytes, records: Mapping[str, int], where: str) -> None:
    """Raise a `ModelError` if a tensor in a pickle reaches beyond what is stored of it: PyTorch would read on.

    Parameters
    ----------
    content : bytes
        The pickle, of which nothing is run.
    records : mapping of str to int
        Bytes that are stored, by name.
    where : str
        The archive, for sentences.
    """
    _Tensors(content, records, where).load()


class _Inert:
    """Stands for every class and function that a pickle names."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Take an entry of a list."""

    extend = append


class _Tensors(pickle.Unpickler):
    """Follows a pickle without its classes, and looks at tensors."""

    def __init__(self, content: bytes, records: Mapping[str, int], where: str) -> None:
        super().__init__(io.BytesIO(content))
        self._records, self._where = records, where

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002  # nothing is looked up
        """Nothing of what the pickle names, but what counts numbers."""
        if name.startswith("_rebuild"):
            return self._rebuild
        return type("Storage", (_Inert,), {"kind": name}) if name.endswith("Storage") else _Inert

    def persistent_load(self, pid: Any) -> Any:
        """How many numbers a storage has, by its kind, name and claimed length."""
        kind, name, numbers = getattr(pid[1], "kind", ""), str(pid[2]), int(pid[4])
        size = _ITEM_SIZES.get(str(kind).removesuffix("Storage"))
        if size is None or not 0 <= numbers * size <= self._records.get(name, -1):
            raise self._too_large()
        return numbers

    def _rebuild(self, storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> Any:
        if not isinstance(storage, int) or not _inside(storage, offset, list(sizes), list(strides)):
            raise self._too_large()
        return _Inert()

    def _too_large(self) -> ModelError:
        return ModelError(f"{self._where} claims a tensor that is larger than what is stored of it; save it again.")


def _inside(stored: int, offset: int, sizes: list[int], strides: list[int]) -> bool:
    if offset < 0 or len(sizes) != len(strides) or any(n < 0 for n in (*sizes, *strides)):
        return False
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    return math.prod(sizes) == 0 or (last < stored and math.prod(sizes) <= stored)


def records_in(names: Mapping[str, int], folder: str) -> Iterator[tuple[str, int]]:
    """The sizes of what lies in one folder of an archive, by name in it."""
    return ((name.removeprefix(f"{folder}/"), size) for name, size in names.items() if name.startswith(f"{folder}/"))
