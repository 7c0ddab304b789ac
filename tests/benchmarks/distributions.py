"""Forward and backward of draws, KLs and log-densities beside the counterpart of torch or Pyro, where there is one.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.distributions

Prints a Markdown table. The two take turns within one run, and a time is the least processor time of all rounds, of one
thread: what else the machine does counts little. Each builds its distribution anew, as in a training step, without
validation, and gives the gradients of all parameters. B = 256, D = 128, float32.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import kl_divergence

from vaekit import distributions as vd

BATCH, DIMENSIONS = 256, 128
Build = Callable[..., Any]


class Row(NamedTuple):
    """One line of the table: what is done, with which parameters, by whom."""

    name: str
    operation: str
    parameters: tuple[Tensor, ...]
    ours: Build
    counterpart: str = "none"
    theirs: Build | None = None


def leaf(*shape: int) -> Tensor:
    return (0.3 * torch.randn(*shape)).requires_grad_()


def rows() -> Iterator[Row]:
    size, zero, one = (BATCH, DIMENSIONS), torch.zeros(DIMENSIONS), torch.ones(DIMENSIONS)
    normal = dist.Normal(zero, one).to_event(1)
    two = leaf(*size), leaf(*size)

    def epanechnikov(a: Tensor, b: Tensor) -> Any:
        return vd.Epanechnikov(a, b.exp()).to_event(1)

    yield Row("Epanechnikov", "draw", two, lambda a, b: epanechnikov(a, b).rsample())
    yield Row("Epanechnikov", "KL to Normal", two, lambda a, b: kl_divergence(epanechnikov(a, b), normal))
    for noise in (dist.Uniform(-one, one), dist.Normal(zero, one)):
        name = f"EpanechnikovConvolution, {type(noise).__name__}"

        def convolution(a: Tensor, b: Tensor, noise: Any = noise) -> Any:
            return vd.EpanechnikovConvolution(a, b.exp(), noise).to_event(1)

        yield Row(name, "draw", two, lambda a, b, make=convolution: make(a, b).rsample())
        yield Row(name, "draw and log-density", two, lambda a, b, make=convolution: with_density(make(a, b)))

    components = leaf(BATCH, 5), leaf(BATCH, 5, DIMENSIONS), leaf(BATCH, 5, DIMENSIONS)
    yield Row(
        "GaussianMixture, pathwise, K = 5",
        "draw",
        components,
        lambda a, b, c: vd.GaussianMixture(a, b, c.exp(), "pathwise").rsample(),
        "Pyro MixtureOfDiagNormals",
        lambda a, b, c: dist.MixtureOfDiagNormals(b, c.exp(), a).rsample(),
    )

    rate, events = leaf(*size), vd.events_for(3.0)
    yield Row(
        f"RelaxedPoisson, {events} events", "draw", (rate,), lambda a: vd.RelaxedPoisson(a, 0.5, events).rsample()
    )
    yield Row(
        "RelaxedPoisson",
        "KL",
        (rate,),
        lambda a: kl_divergence(vd.RelaxedPoisson(a), vd.RelaxedPoisson(zero)).sum(-1),
        "torch Poisson",
        lambda a: kl_divergence(dist.Poisson(a.exp()), dist.Poisson(one)).sum(-1),
    )

    logits = leaf(BATCH, DIMENSIONS // 8, 8)
    flat = torch.zeros(DIMENSIONS // 8, 8)
    yield Row(
        "RelaxedOneHot, 16 of 8",
        "draw",
        (logits,),
        lambda a: vd.RelaxedOneHot(a, 0.5).rsample(),
        "Pyro RelaxedOneHotCategorical",
        lambda a: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=a).rsample().flatten(-2),
    )
    yield Row(
        "RelaxedOneHot, 16 of 8",
        "KL",
        (logits,),
        lambda a: kl_divergence(vd.RelaxedOneHot(a), vd.RelaxedOneHot(flat)),
        "torch OneHotCategorical",
        lambda a: kl_divergence(dist.OneHotCategorical(logits=a), dist.OneHotCategorical(logits=flat)).sum(-1),
    )

    axis, uniform = (leaf(*size), leaf(BATCH)), vd.SphereUniform(DIMENSIONS)
    for kind in (vd.VonMisesFisher, vd.PowerSpherical):

        def spherical(a: Tensor, b: Tensor, kind: Any = kind) -> Any:
            return kind(F.normalize(a, dim=-1), (4 + b).exp())

        yield Row(kind.__name__, "draw", axis, lambda a, b, make=spherical: make(a, b).rsample())
        yield Row(kind.__name__, "KL", axis[1:], lambda b, make=spherical: kl_divergence(make(axis[0], b), uniform))

    full = leaf(*size), leaf(BATCH, DIMENSIONS, DIMENSIONS)
    identity = dist.MultivariateNormal(zero, scale_tril=torch.eye(DIMENSIONS))

    def correlated(a: Tensor, b: Tensor) -> Any:
        return dist.MultivariateNormal(a, scale_tril=b.tril(-1) / DIMENSIONS + torch.eye(DIMENSIONS))

    yield Row(
        "MultivariateNormal (kl_to_diagonal)",
        "KL",
        full,
        lambda a, b: kl_divergence(correlated(a, b), normal),
        "torch, to MultivariateNormal",
        lambda a, b: kl_divergence(correlated(a, b), identity),
    )

    def transform(a: Tensor, b: Tensor) -> Any:
        return torch.distributions.AffineTransform(a, b.exp(), event_dim=1)

    yield Row(
        "Flow, affine",
        "draw and log-density",
        two,
        lambda a, b: with_density(vd.Flow(normal, transform(a, b), (BATCH,))),
        "Pyro TransformedDistribution",
        lambda a, b: with_density(dist.TransformedDistribution(normal, transform(a, b))),
    )

    x, level = torch.rand(size), 2 * torch.randint(0, 256, size) / 255 - 1
    yield Row(
        "ContinuousBernoulli",
        "log-density",
        two[:1],
        lambda a: vd.ContinuousBernoulli(a).log_prob(x),
        "torch ContinuousBernoulli",
        lambda a: dist.ContinuousBernoulli(logits=a).log_prob(x),
    )
    yield Row(
        "DiscretizedLogistic", "log-density", two, lambda a, b: vd.DiscretizedLogistic(a, b.exp()).log_prob(level)
    )
    levels, index = leaf(*size, 256), ((level + 1) * 127.5).round().long()
    yield Row(
        "CategoricalLevels, 256",
        "log-density",
        (levels,),
        lambda a: vd.CategoricalLevels(a).log_prob(level),
        "torch Categorical",
        lambda a: dist.Categorical(logits=a).log_prob(index),
    )


def with_density(q: Any) -> Tensor:
    """A draw beside its log-density: what a sampled KL needs."""
    z = q.rsample()
    return torch.cat([z, q.log_prob(z).unsqueeze(-1)], -1)


def step(build: Build, parameters: tuple[Tensor, ...]) -> Callable[[], Any]:
    """Forward and backward with a fixed incoming gradient."""
    weight = torch.randn_like(build(*parameters))
    return lambda: torch.autograd.grad(build(*parameters), parameters, weight)


def least_times(candidates: list[Callable[[], Any]], rounds: int = 15, seconds: float = 0.02) -> list[float]:
    """The least processor time of one step of each candidate in microseconds, the candidates taking turns."""
    repeats = []
    for candidate in candidates:
        start = time.process_time()
        candidate()
        repeats.append(1 + int(seconds / (time.process_time() - start)))
    best = [float("inf")] * len(candidates)
    for _ in range(rounds):
        for number, candidate in enumerate(candidates):
            start = time.process_time()
            for _ in range(repeats[number]):
                candidate()
            best[number] = min(best[number], (time.process_time() - start) / repeats[number] * 1e6)
    return best


def main() -> None:
    torch.manual_seed(0)
    pyro.enable_validation(False)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, {platform.machine()}, {threads} thread(s)\n")
    print("| distribution | operation | vaekit, µs | counterpart | counterpart, µs | times as fast |")
    print("|---|---|---|---|---|---|")
    for row in rows():
        builds = [row.ours, *([row.theirs] if row.theirs else [])]
        times = least_times([step(build, row.parameters) for build in builds])
        theirs = f"{times[1]:,.0f} | {times[1] / times[0]:.2f}" if row.theirs else " | "
        print(f"| {row.name} | {row.operation} | {times[0]:,.0f} | {row.counterpart} | {theirs} |")


if __name__ == "__main__":
    main()
