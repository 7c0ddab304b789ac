"""What a training step costs: by layout, precision and compilation, and as the model and the batch grow.

    python -m tests.benchmarks.steps layouts [--rounds 7]
    python -m tests.benchmarks.steps growth [--rounds 7] [--figure cost.png] [--json cost.json]

A step is forward, backward and a fused update of every phase on one batch on the device. `layouts` prints one table for
each network; the candidates take turns, and a ratio is the median over neighbouring rounds. `growth` changes one thing
at a time: images' side, latent size, batch, components of the mixture by each estimator of its draws. It prints
milliseconds, the bytes that the step holds for its backward pass, and the exponent of the growth from one row to the
last: 1 is linear. On a GPU where there is one, else on the CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import built, in_default_layout  # noqa: E402

from vaekit.config import read_recipe, resolve  # noqa: E402
from vaekit.training.cpu import keep_freed_memory  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    "conv width 32, 1x28x28, batch 128": ("vae", {"backbone": {"name": "conv"}}, (1, 28, 28), 128),
    "resnetv2 width 32, 3x32x32, batch 64": (
        "vae", {"backbone": {"name": "resnetv2", "width": 32}, "likelihood": {"name": "gaussian"}}, (3, 32, 32), 64,
    ),
    "gamix-small with its discriminator, 3x32x32, batch 64": ("gamix-small", {}, (3, 32, 32), 64),
}  # fmt: skip
LAYOUTS: dict[str, tuple[torch.memory_format, bool, bool]] = {  # The layout, bf16, compiled.
    "PyTorch's layout": (torch.contiguous_format, False, False),
    "channels last": (torch.channels_last, False, False),
    "channels last, bf16": (torch.channels_last, True, False),
    "channels last, compiled": (torch.channels_last, False, True),
    "channels last, bf16, compiled": (torch.channels_last, True, True),
}
SMALL = {"backbone": {"name": "mlp", "hidden": [512, 256]}, "latent_dim": 32}


def step(
    recipe: str,
    overlay: dict[str, Any],
    shape: tuple[int, ...],
    batch: int,
    layout: torch.memory_format | None = None,
    bf16: bool = False,
    compiled: bool = False,
) -> Callable[[], float]:
    """Return what takes a step and tells its seconds."""
    model, objective = built(resolve(read_recipe(recipe), overlay), shape)
    objective.prepare(model, 10_000)
    networks: list[Any] = [model.to(DEVICE), objective.to(DEVICE)]
    if layout is torch.contiguous_format:
        networks = [in_default_layout(network) for network in networks]
    elif layout is not None:
        networks = [network.to(memory_format=layout) for network in networks]
    wrapped = objective.modules_by_phase(model)
    if compiled:
        for network in (model.encoder, model.decoder, *(m for name, m in wrapped.items() if name != "vae")):
            network.compile()
    optimizers = {
        name: torch.optim.Adam((p for p in module.parameters() if p.requires_grad), lr=1e-4, fused=True)
        for name, module in wrapped.items()
    }
    low, high = model.data_range
    x = torch.rand(batch, *shape, device=DEVICE) * (high - low) + low

    def take() -> float:
        began = time.perf_counter()
        with torch.autocast(DEVICE.type, torch.bfloat16) if bf16 else nullcontext():
            phases = objective.phases(model, x, 0, wrapped)
            while (phase := next(phases, None)) is not None:
                optimizers[phase.name].zero_grad()
                with torch.autocast(DEVICE.type, enabled=False):
                    phase.loss.backward()
                optimizers[phase.name].step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return take


def held(take: Callable[[], float]) -> int:
    """Return the bytes that a step keeps for its backward pass, each piece of memory once a step."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        take()
    return sum(sizes.values())


def in_turn(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each candidate in each round, after steps that warm up."""
    for take in steps.values():
        take(), take()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, take in steps.items():
            seconds[name].append(statistics.median(take() for _ in range(3)))
    return seconds


def layouts(rounds: int) -> None:
    """Print the grid of layouts, precisions and compilation."""
    for network, spec in NETWORKS.items():
        torch.compiler.reset()  # torch counts how often a layer's code was compiled, whatever the model.
        seconds = in_turn({name: step(*spec, *how) for name, how in LAYOUTS.items()}, rounds)
        first = next(iter(seconds.values()))
        print(f"\n| {network} | ms a step | times as fast |\n|---|---|---|")
        for name, values in seconds.items():
            ratio = statistics.median(one / other for one, other in zip(first, values, strict=True))
            print(f"| {name} | {1e3 * statistics.median(values):.1f} | {ratio:.2f} |", flush=True)


def mixture(estimator: str, components: int) -> tuple[str, dict[str, Any], tuple[int, ...], int]:
    """Return a mixture posterior whose networks do not hide its cost."""
    posterior = {"name": "gmm", "components": components, "estimator": estimator}
    overlay = {"posterior": posterior, "backbone": {"name": "mlp", "hidden": [64]}, "latent_dim": 128}
    return "gamix", {**overlay, "adversary": None}, (1, 8, 8), 128


def conv(side: int) -> tuple[str, dict[str, Any], tuple[int, ...], int]:
    """Return a convolutional VAE for images of a size."""
    overlay = {"backbone": {"name": "conv"}, "likelihood": {"name": "gaussian"}, "latent_dim": 128}
    return "vae", overlay, (3, side, side), 16


def growing() -> dict[str, dict[int, tuple[str, dict[str, Any], tuple[int, ...], int]]]:
    """Return what grows: its name, and the specification of the step at each size."""
    components = (1, 2, 4, 8, 16, 32)
    return {
        "side of the images (conv width 32, batch 16)": {side: conv(side) for side in (32, 64, 128, 256)},
        "batch (mlp 512-256, 1x28x28)": {size: ("vae", SMALL, (1, 28, 28), size) for size in (64, 128, 256, 512, 1024)},
        "latent size (mlp 512-256, 1x28x28, batch 128)": {
            size: ("vae", {**SMALL, "latent_dim": size}, (1, 28, 28), 128) for size in (8, 32, 128, 512, 2048)
        },
        "components, pathwise (batch 128, 128 latents)": {k: mixture("pathwise", k) for k in components},
        "components, stratified (batch 128, 128 latents)": {k: mixture("stratified", k) for k in components},
    }


def growth(rounds: int, figure: Path | None, file: Path | None) -> None:
    """Print how the cost grows; draw it where asked to."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, specs in growing().items():
        steps = {str(size): step(*spec) for size, spec in specs.items()}
        seconds = [statistics.median(values) for values in in_turn(steps, rounds).values()]
        memory = [held(take) for take in steps.values()]
        print(f"\n| {name} | ms a step | MiB held | exponent of time | of memory |\n|---|---|---|---|---|")
        for number, size in enumerate(specs):
            slopes = [exponent(list(specs), values, number) for values in (seconds, memory)]
            cells = ["" if slope is None else f"{slope:.2f}" for slope in slopes]
            print(f"| {size} | {1e3 * seconds[number]:.1f} | {memory[number] / 2**20:.1f} | {' | '.join(cells)} |")
        sys.stdout.flush()
        found[name] = {"size": list(specs), "seconds": seconds, "bytes": [float(m) for m in memory]}
    if file is not None:
        file.write_text(json.dumps(found, indent=2) + "\n")
    if figure is not None:
        draw(found, figure)


def exponent(sizes: list[int], values: Iterable[float], number: int) -> float | None:
    """Return the slope of log value over log size from the row before to this one; `None` for the first row."""
    if number == 0:
        return None
    one, other = list(values)[number - 1 : number + 1]
    return math.log(other / one) / math.log(sizes[number] / sizes[number - 1])


def draw(found: dict[str, dict[str, list[float]]], figure: Path) -> None:
    """Draw time and memory over size, both axes logarithmic, with a line of slope 1 through the last point."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(2, len(found), figsize=(3.2 * len(found), 5.6), layout="constrained")
    for column, (name, values) in zip(axes.T, found.items(), strict=True):
        sizes = values["size"]
        for axis, series, label, unit in (
            (column[0], values["seconds"], "ms a step", 1e3),
            (column[1], values["bytes"], "MiB held", 2.0**-20),
        ):
            heights = [unit * value for value in series]
            axis.loglog(sizes, heights, "o-", base=2)
            axis.loglog(sizes, [heights[-1] * size / sizes[-1] for size in sizes], ":", color="grey", base=2)
            axis.set_ylabel(label)
            for ticks in (axis.xaxis, axis.yaxis):
                ticks.set_major_formatter("{x:g}")
            axis.grid(alpha=0.3)
            axis.tick_params(axis="x", labelsize=8)
        column[0].set_title(name.split(" (")[0], fontsize=10)
    plt.savefig(figure, dpi=90)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layouts", "growth"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        keep_freed_memory()
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    print(f"{name}, torch {torch.__version__}; median of {options.rounds} rounds in turn")
    if options.what == "layouts":
        layouts(options.rounds)
    else:
        growth(options.rounds, options.figure, options.json)


if __name__ == "__main__":
    main()
