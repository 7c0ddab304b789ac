"""What a GPU makes of the flagship: one command, under nine minutes, a table and a JSON file.

    python -m tests.benchmarks.gpu [--out gpu.json] [--rows gamix-64 ...]

For each row: training throughput, the share of the device's own ceiling in bf16 matrix products (measured first, in the
same run) that the steps reach, peak memory, and the share of a step that waits for data. A step's floating-point
operations are counted by PyTorch (forward and backward of all phases). Images are noise, resident on the device, so
that nothing but the step is measured; the first steps, in which networks compile, are not. At the end, how long the
recipe `vae` takes on the digits to a validation loss of 24 nats.

On a machine without a GPU, `--device cpu --quick` checks that the script works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import random_images  # noqa: E402

import vaekit as vk  # noqa: E402
from vaekit import build  # noqa: E402
from vaekit.config import read_recipe, resolve  # noqa: E402
from vaekit.training import profile  # noqa: E402

BF16 = {"precision": "bf16"}
COMPILED = {**BF16, "compile": True}
GRAPHS = {**BF16, "compile": "reduce-overhead"}
CONV = {"backbone": {"name": "conv", "width": 64}, "likelihood": {"name": "gaussian"}, "latent_dim": 128}
#: Name: recipe, what lies over it, side of the images, batch size, options of the trainer.
ROWS: dict[str, tuple[str, dict[str, Any], int, int, dict[str, Any]]] = {
    "vae-conv-64-float32": ("vae", CONV, 64, 256, {}),
    "vae-conv-64-bf16": ("vae", CONV, 64, 256, BF16),
    "vae-conv-64-bf16-compiled": ("vae", CONV, 64, 256, COMPILED),
    "gamix-64-float32": ("gamix", {}, 64, 256, {}),
    "gamix-64-bf16": ("gamix", {}, 64, 256, BF16),
    "gamix-64-bf16-compiled": ("gamix", {}, 64, 256, COMPILED),
    "gamix-64-bf16-graphs": ("gamix", {}, 64, 256, GRAPHS),
    "gamix-author-256-bf16": ("gamix-author", {}, 256, 32, BF16),
    "gamix-author-256-bf16-compiled": ("gamix-author", {}, 256, 32, COMPILED),
}


@dataclass
class Row:
    """What one configuration gave."""

    name: str
    batch_size: int
    samples_per_second: float
    share_of_ceiling: float
    peak_gib: float
    waits_for_data: float
    parameters: int


def ceiling(device: torch.device, size: int, seconds: float = 2.0) -> float:
    """Return floating-point operations per second of square bf16 matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    done, began = 0, 0.0
    for attempt in range(10**9):
        if attempt == 3:
            wait(device)
            began = time.perf_counter()
        a @ b
        if attempt >= 3:
            done += 1
            if done % 10 == 0:
                wait(device)
                if time.perf_counter() - began > seconds:
                    break
    return 2.0 * size**3 * done / (time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(name: str, device: torch.device, ceiling: float, steps: int, quick: bool) -> Row:
    """Train one configuration for a few steps."""
    recipe, overlay, side, batch, options = ROWS[name]
    if quick:
        side, batch = 32, 4
    shape = (3, side, side)
    config = resolve(read_recipe(recipe), {"data": {"name": "celeba"}}, overlay)
    model, objective = build.model(config, shape), build.objective(config, shape)
    parameters = sum(p.numel() for p in model.parameters())
    model.to(device)
    objective.to(device)
    x = torch.zeros(batch, *shape, device=device)
    counter = FlopCounterMode(display=False)
    with counter:
        for phase in objective.phases(model, x, 0, objective.modules_by_phase(model)):
            phase.loss.backward()
    model.zero_grad(set_to_none=True)
    data = random_images(max(4 * batch, 64), shape)
    with tempfile.TemporaryDirectory() as folder:
        trainer = vk.Trainer(
            epochs=10**6, max_steps=profile.WARM_UP + steps + profile.TRACED, sample_every=0, log_every=10**6,
            accelerator="cuda" if device.type == "cuda" else "cpu", **options,
        )  # fmt: skip
        times = watch()
        fit = trainer.fit(model, objective, data, batch_size=batch, out=folder, profile=steps)
    per_step = times[-1].seconds / times[-1].steps
    return Row(
        name,
        batch,
        batch / per_step,
        counter.get_total_flops() / per_step / ceiling,
        fit.peak_memory / 2**30,
        times[-1].share("data"),
        parameters,
    )


def watch() -> list[profile.StepTimes]:
    """Return a list into which the times of every profile go."""
    found: list[profile.StepTimes] = []
    inner = profile.StepTimes.__init__

    def kept(self: profile.StepTimes, *values: Any, **named: Any) -> None:
        inner(self, *values, **named)
        found.append(self)

    profile.StepTimes.__init__ = kept  # type: ignore[method-assign]
    return found


def seconds_to_loss(target: float, epochs: int) -> float | None:
    """Return how long the recipe `vae` takes on the digits to a validation loss; `None` where it does not get there."""
    began = time.perf_counter()
    reached: list[float] = []

    class Watch(vk.training.Listener):
        def on_metrics(self, line: dict[str, Any]) -> None:
            if line["split"] == "valid" and line["loss"] <= target and not reached:
                reached.append(time.perf_counter() - began)

    run = vk.recipe("vae", data="digits", trainer={"epochs": epochs, "sample_every": 0})
    trainer, model, objective = run.prepare()
    trainer.fit(model, objective, run.data, listeners=[Watch()])
    return reached[0] if reached else None


def main() -> None:
    """Print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here: --device cpu --quick checks the script alone")
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    top = ceiling(device, 512 if options.quick else 8192, 0.2 if options.quick else 2.0)
    print(f"{name}, torch {torch.__version__}; bf16 matrix products: {top / 1e12:,.1f} TFLOP/s")
    print("| configuration | batch | images/s | share of ceiling | peak GiB | data |\n|---|---|---|---|---|---|")
    rows = []
    for row_name in options.rows:
        row = measure(row_name, device, top, options.steps, options.quick)
        rows.append(row)
        print(
            f"| {row.name} | {row.batch_size} | {row.samples_per_second:,.0f} | {100 * row.share_of_ceiling:.1f} % "
            f"| {row.peak_gib:.2f} | {100 * row.waits_for_data:.1f} % |",
            flush=True,
        )
    seconds = seconds_to_loss(24.0, 1 if options.quick else 100)
    print("not reached" if seconds is None else f"`vae` on the digits to 24 nats: {seconds:.1f} s")
    result = {
        "device": name,
        "torch": torch.__version__,
        "bf16_flops": top,
        "rows": [asdict(row) for row in rows],
        "seconds_to_24_nats": seconds,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
