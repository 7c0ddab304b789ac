"""What a trained model is asked: aggregate posterior, likelihood, fidelity, samples, interpolations."""

from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.fidelity import (
    Extractor,
    features_of,
    frechet_distance,
    load_extractor,
    sharpness,
)
from vaekit.evaluation.latent import interpolate, local_variants, sample_latents
from vaekit.evaluation.likelihood import importance_sampled_nll
from vaekit.evaluation.linear import (
    LinearReport,
    exact_log_likelihood,
    exact_posterior_kl,
    learned_linear_gaussian,
    linear_report,
    mixture_gap,
    mixture_optimum,
)
from vaekit.evaluation.representation import active_neurons, knn_accuracy, lifetime_sparsity, representation

__all__ = [
    "Aggregate",
    "Extractor",
    "LinearReport",
    "active_neurons",
    "aggregate_posterior",
    "exact_log_likelihood",
    "exact_posterior_kl",
    "features_of",
    "frechet_distance",
    "importance_sampled_nll",
    "interpolate",
    "knn_accuracy",
    "learned_linear_gaussian",
    "lifetime_sparsity",
    "linear_report",
    "load_extractor",
    "local_variants",
    "mixture_gap",
    "mixture_optimum",
    "representation",
    "sample_latents",
    "sharpness",
]
