"""`export`: converts, checks, and writes the files with a description beside them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

import vaekit
from vaekit.config import LOADER_OPTIONS
from vaekit.errors import VaekitError, suggest
from vaekit.exporting.formats import SUFFIXES, Runs, convert, require, versions
from vaekit.exporting.graphs import Graph, graphs_of
from vaekit.exporting.names import Format, What
from vaekit.files import atomic, pack_tensors
from vaekit.places import without_places

if TYPE_CHECKING:
    from vaekit.run import Run

__all__ = ["DESCRIPTION", "export"]

DESCRIPTION = "export.json"

_VERSION = 1
_SIZES = (1, 5)  # Numbers of samples that every file is tried with.
_TOLERANCE = 1e-4
_BINARIZED = "in training the grey values of images were drawn as black or white"


def export(run: Run, format: Format = "onnx", what: What = "both", out: str | Path | None = None) -> Path:
    """Write the encoder and the decoder of a run as files that run without vaekit, and `export.json` beside them.

    `Run.export` is the same. `vaekit.exporting.graphs.graphs_of` says which files there are, and
    `vaekit.exporting.laws.law_of` what an encoder gives; a decoder gives the mean of p(x|z). Every file takes any
    number of samples. Before anything is written it is tried with one and with five, and must give what the model
    gives, to 1e-4 of the value or of one, whichever is larger. An earlier export in the same folder is replaced.

    `export.json` holds shapes, ranges and meanings of all inputs and outputs, the SHA-256 of each file, what the run
    was, and versions.

    Arguments:
        run: The run.
        format: `"onnx"`, or `"torch-export"` for `torch.export.load`.
        what: Encoders, decoders or both.
        out: The folder; `None` for `<run directory>/export/<format>`.

    Returns:
        The folder.

    Raises:
        VaekitError: There is no such format, a package is missing, the model has something that cannot be exported, or
            the place may not be written.

    Examples:
        >>> import tempfile
        >>> from vaekit.run import recipe
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in export(recipe("vae"), "torch-export", out=folder).iterdir())
        ['decoder.pt2', 'encoder.pt2', 'export.json']
    """
    require(format)
    if what not in get_args(What):
        raise VaekitError(f"there is nothing called '{what}' to export: {suggest(what, get_args(What))}")
    if out is None and run.out is None:
        raise VaekitError("the run has no directory to export into: say where, with out")
    out = Path(out) if out is not None else Path(str(run.out)) / "export" / format
    model = copy.deepcopy(run.model).cpu().eval()
    contents, files = {}, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for graph in graphs_of(model, what, run.config.data_values):
            name = graph.name + SUFFIXES[format]
            contents[name], runs = convert(graph, format)
            files[name] = {
                "kind": graph.kind,
                "sha256": hashlib.sha256(contents[name]).hexdigest(),
                "bytes": len(contents[name]),
                **_described(graph),
                "largest_difference": _check(graph, runs, format),
            }
    description = {
        "version": _VERSION,
        "format": format,
        "files": files,
        "source": _source(run, pack_tensors(model.state_dict())),
        "checked": {"numbers_of_samples": _SIZES, "tolerance": _TOLERANCE},
        "versions": {"vaekit": vaekit.__version__, **versions(format)},
    }
    contents[DESCRIPTION] = (json.dumps(description, indent=2) + "\n").encode()
    stale = _listed(out) - contents.keys()
    with ExitStack() as stack:
        # All or nothing, and the description last: what is opened first is closed last.
        for name, content in reversed(contents.items()):
            stack.enter_context(atomic(out / name)).write(content)
    for name in stale:
        (out / name).unlink(missing_ok=True)
    return out


def _source(run: Run, weights: bytes) -> dict[str, Any]:
    """Return what the run was."""
    config = without_places(run.config)
    data = {key: value for key, value in config.data.items() if key not in LOADER_OPTIONS}
    return {
        "run": None if run.out is None else run.out.name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "recipe": config.recipe,
        "latent_dim": config.latent_dim,
        "posterior": config.posterior,
        "prior": config.prior,
        "data": data,
        "notes": [_BINARIZED] if config.data.get("binarize") else [],
    }


def _described(graph: Graph) -> dict[str, Any]:
    """Return shapes, types and meanings of what goes in and comes out."""
    with torch.no_grad():
        inputs = graph.draw(1)
        law = graph.network.law(*inputs)
    decoded = {"decode": "point" if "point" in law else "mean"} if graph.kind == "encoder" else {}
    return {
        "inputs": {
            name: {**_tensor(value), **facts} for (name, facts), value in zip(graph.inputs.items(), inputs, strict=True)
        },
        "outputs": {name: {**_tensor(value), "meaning": meaning} for name, (value, meaning) in law.items()},
        **decoded,
        **graph.about,
    }


def _tensor(value: Tensor) -> dict[str, Any]:
    return {"shape": ["batch", *value.shape[1:]], "dtype": str(value.dtype).removeprefix("torch.")}


@torch.no_grad()
def _check(graph: Graph, runs: Runs, format: Format) -> float:
    """Return by how much a converted network differs from what it was made of, at most.

    Raises:
        VaekitError: By more than is to be had from rounding.
    """
    worst = 0.0
    for count in _SIZES:
        inputs = graph.draw(count)
        found = runs(inputs)
        for name, value in graph.network(*inputs).items():
            difference = float(((found[name] - value).abs() / value.abs().clamp_min(1.0)).max())
            if not difference <= _TOLERANCE:
                size = f"differs from the model's by {difference:.2g}" if math.isfinite(difference) else "is not finite"
                raise VaekitError(
                    f"{graph.name} as {format} is not what the model is: for {count} sample(s) its output '{name}' "
                    f"{size}; nothing was written"
                )
            worst = max(worst, difference)
    return worst


def _listed(out: Path) -> set[str]:
    """Return the names of the files of an earlier export in a folder."""
    try:
        names: Mapping[str, Any] = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))["files"]
        return {name for name in names if Path(name).name == name and Path(name).suffix in SUFFIXES.values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
