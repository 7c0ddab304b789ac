"""What a trained model is asked: aggregate posterior, likelihood, fidelity, samples, interpolations."""

from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.extractors import Extractor, load_extractor
from vaekit.evaluation.features import FeatureStore
from vaekit.evaluation.fidelity import frechet_distance, sharpness
from vaekit.evaluation.image_folders import compare_images
from vaekit.evaluation.latent import interpolate, local_variants
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
from vaekit.evaluation.samplers import Sampler, list_sources

__all__ = [
    "Aggregate",
    "Extractor",
    "FeatureStore",
    "LinearReport",
    "Sampler",
    "active_neurons",
    "aggregate_posterior",
    "compare_images",
    "exact_log_likelihood",
    "exact_posterior_kl",
    "frechet_distance",
    "importance_sampled_nll",
    "interpolate",
    "knn_accuracy",
    "learned_linear_gaussian",
    "lifetime_sparsity",
    "linear_report",
    "list_sources",
    "load_extractor",
    "local_variants",
    "mixture_gap",
    "mixture_optimum",
    "representation",
    "sharpness",
]
