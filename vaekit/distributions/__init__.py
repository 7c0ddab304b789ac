"""Distributions and divergences: pure probability, no networks."""

from vaekit.distributions.draws import Draws, draw, stopped
from vaekit.distributions.kl import kl_divergence, kl_method, mixture_kl_lower_bound, mixture_kl_upper_bound
from vaekit.distributions.mixture import Estimator, GaussianMixture, as_mixture

__all__ = [
    "Draws",
    "Estimator",
    "GaussianMixture",
    "as_mixture",
    "draw",
    "kl_divergence",
    "kl_method",
    "mixture_kl_lower_bound",
    "mixture_kl_upper_bound",
    "stopped",
]
