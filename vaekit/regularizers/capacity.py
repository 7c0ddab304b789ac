"""The KL held at a capacity that grows."""

from __future__ import annotations

from torch import Tensor

from vaekit.distributions import Draws, kl_divergence
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar, as_schedule

__all__ = ["Capacity"]


@regularizers.register(
    "capacity",
    about="|KL - C(t)|: holds the mean KL at a capacity, which a schedule raises",
    source="Burgess et al., Understanding disentangling in beta-VAE, 2018, arXiv 1804.03599",
    requires=("finite KL",),
)
class Capacity(Regularizer):
    r"""The distance of the mean KL from a capacity of C(t) nats, with gamma as the weight:

    $$\gamma\,\Bigl|\frac1B\sum_i\mathrm{KL}(q(z\mid x_i)\,\|\,p(z))-C(t)\Bigr|\quad\text{[nats per sample].}$$

    It pushes the KL up where it is below C, so that reconstruction plus this term is no bound at any weight. The KL is
    in closed form where one exists, else from the draws. It takes the place of the regularizer `kl`.

    References:
        Understanding disentangling in beta-VAE, Burgess et al., 2018, arXiv 1804.03599 (gamma 1000, C from 0 to 25).

    Arguments:
        weight: gamma; a number or a schedule.
        capacity: C in nats per sample; a number or a schedule.

    Raises:
        VaekitError: The capacity is a negative number.

    Examples:
        >>> Capacity(weight=100.0, capacity={"name": "linear", "end": 25.0, "steps": 1000})
        Capacity(weight=100, capacity=linear(0 -> 25 in 1000))
    """

    def __init__(self, *, weight: Scalar = 1000.0, capacity: Scalar = 25.0) -> None:
        super().__init__(weight=weight)
        if isinstance(capacity, int | float) and capacity < 0:
            raise VaekitError(f"capacity: a KL cannot be below 0, so the capacity must not be {capacity:g}")
        self.capacity = as_schedule(capacity)

    def extra_repr(self) -> str:
        """Show the weight and the capacity."""
        return f"{super().extra_repr()}, capacity={self.capacity!r}"

    def forward(self, latents: Latents) -> Tensor:
        """Return the distance of the batch mean of the KL from the capacity of the step."""
        kl = kl_divergence(latents.q, latents.p, Draws(latents.z, latents.weights)).mean()
        return (kl - self.capacity(latents.step)).abs()
