"""Forward and backward of one draw per sample: vaekit's GaussianMixture beside Pyro's MixtureOfDiagNormals.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.mixture

The candidates take turns within one run, so that a busy machine slows all of them; a time is the least of all rounds.
Both build their distribution anew, as in a training step, and give the gradients of logits, locations and scales.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.distributions import MixtureOfDiagNormals
from torch import Tensor

from vaekit.distributions import GaussianMixture

Step = Callable[[], tuple[Tensor, ...]]


def steps(batch: int, components: int, dimensions: int) -> dict[str, Step]:
    """The candidates on the same parameters and the same incoming gradient."""
    logits = torch.zeros(batch, components, requires_grad=True)
    loc = (0.3 * torch.randn(batch, components, dimensions)).requires_grad_()
    scale = torch.ones(batch, components, dimensions, requires_grad=True)
    weight = torch.randn(batch, dimensions)

    def pyro_step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(MixtureOfDiagNormals(loc, scale, logits).rsample(), (logits, loc, scale), weight)

    def pathwise() -> tuple[Tensor, ...]:
        q = GaussianMixture(logits, loc, scale, estimator="pathwise", validate_args=False)
        return torch.autograd.grad(q.rsample(), (logits, loc, scale), weight)

    def weighted(estimator: str) -> Step:
        def step() -> tuple[Tensor, ...]:
            q = GaussianMixture(logits, loc, scale, estimator=estimator, validate_args=False)
            z, weights = q.draws(1)
            return torch.autograd.grad((weights * (z * weight).sum(-1)).sum(), (logits, loc, scale))

        return step

    return {
        "pyro": pyro_step,
        "pathwise": pathwise,
        "stratified": weighted("stratified"),
        "score": weighted("score"),
    }


def least_times(candidates: dict[str, Step], rounds: int = 10, repeats: int = 40) -> dict[str, float]:
    """The least time of one step of each candidate in microseconds, the candidates taking turns."""
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, step in candidates.items():
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats * 1e6)
    return best


@pytest.mark.parametrize("name", ["pyro", "pathwise", "stratified", "score"])
def test_draw_and_differentiate(name: str, benchmark: Callable[[Step], tuple[Tensor, ...]]) -> None:
    gradients = benchmark(steps(128, 5, 32)[name])
    assert all(gradient.isfinite().all() for gradient in gradients)


def main() -> None:
    print(
        f"torch {torch.__version__}, pyro {pyro.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)"
    )
    print("Pyro's validation | B, K, D | Pyro µs (finite) | pathwise µs | ratio | stratified µs | score µs")
    for validation in (True, False):
        pyro.enable_validation(validation)
        for sizes in ((128, 5, 32), (128, 10, 32), (512, 5, 32), (128, 2, 64), (128, 5, 64), (128, 5, 256)):
            torch.manual_seed(0)
            candidates = steps(*sizes)
            finite = all(gradient.isfinite().all() for gradient in candidates["pyro"]())
            best = least_times(candidates, rounds=40 if sizes == (128, 5, 32) else 10)
            print(
                f"{'on' if validation else 'off':3} | {sizes} | {best['pyro']:.0f} ({'yes' if finite else 'NaN'}) "
                f"| {best['pathwise']:.0f} | {best['pyro'] / best['pathwise']:.2f} | {best['stratified']:.0f} "
                f"| {best['score']:.0f}"
            )


if __name__ == "__main__":
    main()
