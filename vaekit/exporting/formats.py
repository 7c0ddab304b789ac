"""The file formats: a network of tensors becomes the bytes of a file, and what runs them."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import ModuleType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import Dim, ExportedProgram

from vaekit.errors import VaekitError, suggest
from vaekit.exporting.graphs import Graph
from vaekit.exporting.names import Format

__all__ = ["SUFFIXES", "Runs", "convert", "require", "versions"]

#: Runs what was converted: inputs to named outputs.
Runs: TypeAlias = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]

SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST = 2**31 - 1  # Bytes of a protocol buffer, which an ONNX file is.
_TRACED = 3  # Samples in the batch that is traced; PyTorch takes sizes of 0 and 1 for constants.


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *more: Any, **options: Any
) -> Tensor:
    """Attend with a fourth axis, the heads, where there are three."""
    if query.dim() != 3:
        return NotImplemented  # as it is
    if mask is not None and mask.dim() == 3:
        mask = mask.unsqueeze(1)
    query, key, value = (part.unsqueeze(1) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, mask, *more, **options).squeeze(1)


# What torch.onnx cannot convert, in terms of what it can.
_INSTEAD: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.hypot.default: lambda x, y: (x * x + y * y).sqrt(),
    torch.ops.aten.scaled_dot_product_attention.default: _attend,
}


def require(format: Format) -> None:
    """Refuse what is no format, and one whose packages are missing.

    Raises:
        VaekitError: There is no such format, or a package is missing.

    Examples:
        >>> require("pickle")
        Traceback (most recent call last):
        vaekit.errors.VaekitError: there is no format 'pickle' to export to: valid: onnx, torch-export.
    """
    if format not in SUFFIXES:
        raise VaekitError(f"there is no format '{format}' to export to: {suggest(format, SUFFIXES)}")
    for package in _PACKAGES if format == "onnx" else ():
        _package(package)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise VaekitError(
            f'the format onnx needs {name}: pip install "vaekit[export]", or choose the format torch-export'
        ) from error


def versions(format: Format) -> dict[str, str]:
    """Return the versions of what a file of this format was made with."""
    return {name: version(name) for name in ("torch", *(_PACKAGES if format == "onnx" else ()))}


def convert(graph: Graph, format: Format) -> tuple[bytes, Runs]:
    """Return a network as the bytes of a file, its number of samples open, and what runs them.

    Raises:
        VaekitError: The network has something that the format has not.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The exporters warn of themselves.
            program = _trace(graph)
            return _to_onnx(graph, program) if format == "onnx" else _to_torch(program)
    except VaekitError:
        raise
    except Exception as error:  # The exporters raise anything.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next(filter(None, map(str.strip, str(cause).splitlines())), type(cause).__name__)
        raise VaekitError(f"the {graph.name} cannot be exported as {format}: {reason}") from error


def _batch(graph: Graph) -> tuple[Any, ...]:
    """Return which axes are open: the first of every input. They are the one variadic argument of a network."""
    return (tuple({0: Dim("batch")} for _ in graph.inputs),)


def _trace(graph: Graph) -> ExportedProgram:
    program = torch.export.export(graph.network, graph.draw(_TRACED), dynamic_shapes=_batch(graph), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # The paths of this machine are nobody's business.
    return program


def _to_torch(program: ExportedProgram) -> tuple[bytes, Runs]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    network = program.module()
    return buffer.getvalue(), lambda inputs: network(*inputs)


def _to_onnx(graph: Graph, program: ExportedProgram) -> tuple[bytes, Runs]:
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > _MOST:
        raise VaekitError(
            f"the {graph.name} has more weights than fit in an ONNX file, 2 GiB: export it as torch-export"
        )
    program = program.run_decompositions(_INSTEAD)
    names = list(graph.network(*graph.draw(1)))
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=list(graph.inputs),
        output_names=names,
        dynamic_shapes=_batch(graph)[0],
        verbose=False,
    )
    assert exported is not None
    graph_of_onnx, ends = exported.model.graph, {*graph.inputs, *names}
    for value in (made for node in graph_of_onnx.all_nodes() for made in node.outputs):
        if value.name in ends and value not in graph_of_onnx.outputs:
            value.name = f"inner.{value.name}"  # Operators name what they make after themselves: `mean`.
    content = exported.model_proto.SerializeToString()
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        given = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        return {name: torch.from_numpy(value) for name, value in zip(names, session.run(names, given), strict=True)}

    return content, run
