"""Distributions and divergences: pure probability, no networks."""

from vaekit.distributions.bessel import bessel_ratio, log_bessel, log_bessel_over_power
from vaekit.distributions.categorical import RelaxedOneHot
from vaekit.distributions.continuous_bernoulli import ContinuousBernoulli
from vaekit.distributions.convolution import EpanechnikovConvolution
from vaekit.distributions.draws import Draws, draw, exponentials, require_density, stopped
from vaekit.distributions.epanechnikov import Epanechnikov, bounds, mean_log_shifted
from vaekit.distributions.expert_mixture import ExpertMixture
from vaekit.distributions.flow import Flow
from vaekit.distributions.gaussian import kl_from_diagonal, kl_to_diagonal
from vaekit.distributions.jensen_shannon import kl_to_each, kl_to_mean
from vaekit.distributions.kl import kl_divergence, kl_method, mixture_kl_lower_bound, mixture_kl_upper_bound
from vaekit.distributions.levels import CategoricalLevels, DiscretizedLogistic, Levels
from vaekit.distributions.linear_gaussian import LinearGaussian
from vaekit.distributions.mixture import Estimator, GaussianMixture, as_mixture
from vaekit.distributions.pairs import pairwise_log_prob, pairwise_log_prob_by_dimension
from vaekit.distributions.poisson import Indicator, RelaxedPoisson, events_for
from vaekit.distributions.power_spherical import PowerSpherical
from vaekit.distributions.rotational import Rotational
from vaekit.distributions.scale import log_variance_to_scale
from vaekit.distributions.sphere import SphereUniform, log_sphere_area, reflect, sphere
from vaekit.distributions.stacking import choose_between, location_scale, stack, unstack
from vaekit.distributions.von_mises_fisher import VonMisesFisher

__all__ = [
    "CategoricalLevels",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Draws",
    "Epanechnikov",
    "EpanechnikovConvolution",
    "Estimator",
    "ExpertMixture",
    "Flow",
    "GaussianMixture",
    "Indicator",
    "Levels",
    "LinearGaussian",
    "PowerSpherical",
    "RelaxedOneHot",
    "RelaxedPoisson",
    "Rotational",
    "SphereUniform",
    "VonMisesFisher",
    "as_mixture",
    "bessel_ratio",
    "bounds",
    "choose_between",
    "draw",
    "events_for",
    "exponentials",
    "kl_divergence",
    "kl_from_diagonal",
    "kl_method",
    "kl_to_diagonal",
    "kl_to_each",
    "kl_to_mean",
    "location_scale",
    "log_bessel",
    "log_bessel_over_power",
    "log_sphere_area",
    "log_variance_to_scale",
    "mean_log_shifted",
    "mixture_kl_lower_bound",
    "mixture_kl_upper_bound",
    "pairwise_log_prob",
    "pairwise_log_prob_by_dimension",
    "reflect",
    "require_density",
    "sphere",
    "stack",
    "stopped",
    "unstack",
]
