"""Bias and variance of the mixture estimators on a small decoder, against the stratified one.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.estimators

One datum x, a fixed random decoder (D -> 32 tanh -> 16) and f(z) = |x - decoder(z)|^2 / (2 * 0.3^2) in nats. Every
estimator gives the gradient of E_q f many times; the table has, for the logits and for locations and scales together,

- the total variance of one estimate, as a multiple of the stratified one's at the same K decoder passes (the columns
  marked "1 pass" decode only once);
- the bias in standard deviations of one stratified estimate, where it is beyond three standard errors.

The true gradient is the mean of many stratified estimates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.distributions import Draws, GaussianMixture

REPEATS, CHUNK, REFERENCE = 2000, 250, 20000
TEMPERATURE = 0.5
SCALE = 0.5

Parameters = tuple[Tensor, Tensor, Tensor]
Estimate = Callable[[Parameters], Draws]


class Summary(NamedTuple):
    """Mean and variance of the gradient of one group of parameters over independent estimates."""

    mean: Tensor
    variance: Tensor
    count: int


def estimator(name: str, passes: int, temperature: float = TEMPERATURE) -> Estimate:
    return lambda rows: GaussianMixture(*rows, estimator=name, temperature=temperature, validate_args=False).draws(
        passes
    )


def problem(dimensions: int, components: int, layout: str) -> tuple[Parameters, Callable[[Tensor], Tensor]]:
    """The parameters of q and the function f."""
    spreads = {"separated": 3.0 * SCALE, "overlapping": 2.0 * SCALE / math.sqrt(2 * dimensions), "identical": 0.0}
    loc = spreads[layout] * torch.randn(components, dimensions)
    logits = 0.5 * torch.randn(components)
    inner, outer = torch.randn(dimensions, 32) / math.sqrt(dimensions), torch.randn(32, 16) / math.sqrt(32)

    def decode(z: Tensor) -> Tensor:
        return torch.tanh(z @ inner) @ outer

    x = decode(loc[0] + SCALE * torch.randn(dimensions))
    return (logits, loc, torch.full_like(loc, SCALE)), lambda z: (decode(z) - x).square().sum(-1) / (2 * 0.3**2)


def measure(parameters: Parameters, f: Callable[[Tensor], Tensor], estimate: Estimate, repeats: int) -> list[Summary]:
    """Repeat an estimate; return the summaries for the logits and for locations and scales together."""
    sums: list[Tensor | float] = [0.0, 0.0]
    squares: list[Tensor | float] = [0.0, 0.0]
    for _ in range(repeats // CHUNK):
        rows = tuple(p.expand(CHUNK, *p.shape).clone().requires_grad_() for p in parameters)
        z, weights = estimate(rows)
        logits, loc, scale = torch.autograd.grad((weights * f(z)).sum(), rows)
        for group, gradient in enumerate((logits, torch.cat((loc, scale), -1).flatten(1))):
            sums[group] = sums[group] + gradient.double().sum(0)
            squares[group] = squares[group] + gradient.double().square().sum(0)
    means = [torch.as_tensor(total) / repeats for total in sums]
    return [
        Summary(mean, torch.as_tensor(square) / repeats - mean.square(), repeats)
        for mean, square in zip(means, squares, strict=True)
    ]


def compare(one: Summary, exact: Summary, unit: Summary) -> str:
    """Variance and bias of one estimator as a cell of the table."""
    total = unit.variance.sum()
    noise = one.variance.sum() / one.count + exact.variance.sum() / exact.count
    bias = (one.mean - exact.mean).square().sum()
    shown = 0.0 if bias < 3.0**2 * noise else ((bias - noise) / total).sqrt().item()
    ratio = (one.variance.sum() / total).item()
    text = "0" if ratio < 1e-9 else f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"
    return text + (f" (bias {shown:.2g})" if shown else "")


def main() -> None:
    print(
        "| D | K | components | logits: pathwise | score | gumbel | pathwise, 1 pass | score, 1 pass "
        "| loc, scale: pathwise | score | gumbel |"
    )
    print("|" + "---|" * 11)
    cases = itertools.product((2, 16, 128, 512), (2, 5, 10), ("separated", "overlapping", "identical"))
    for dimensions, components, layout in cases:
        torch.manual_seed(0)
        parameters, f = problem(dimensions, components, layout)
        exact = measure(parameters, f, estimator("stratified", 1), REFERENCE)
        many = (estimator("pathwise", components), estimator("score", components), estimator("gumbel", components))
        once = (estimator("pathwise", 1), estimator("score", 1))
        measured = [measure(parameters, f, estimate, REPEATS) for estimate in (*many, *once)]
        cells = [compare(one[0], exact[0], exact[0]) for one in measured]
        cells += [compare(one[1], exact[1], exact[1]) for one in measured[:3]]
        print(f"| {dimensions} | {components} | {layout} | " + " | ".join(cells) + " |", flush=True)


def temperatures() -> None:
    """The relaxed choice at several temperatures."""
    print("\n| D | K | components | temperature | logits | loc, scale |\n|" + "---|" * 6)
    for dimensions, components, layout in ((2, 2, "overlapping"), (2, 5, "separated")):
        torch.manual_seed(0)
        parameters, f = problem(dimensions, components, layout)
        exact = measure(parameters, f, estimator("stratified", 1), REFERENCE)
        for temperature in (1.0, 0.5, 0.2, 0.1):
            found = measure(parameters, f, estimator("gumbel", components, temperature), REFERENCE)
            cells = [compare(one, truth, truth) for one, truth in zip(found, exact, strict=True)]
            print(f"| {dimensions} | {components} | {layout} | {temperature} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
    temperatures()
