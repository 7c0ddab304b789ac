"""What a trained model is asked: aggregate posterior, likelihood, fidelity, samples, reconstructions, interpolations."""

from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.fidelity import (
    Extractor,
    features_of,
    frechet_distance,
    load_extractor,
    sharpness,
    to_uint8,
)
from vaekit.evaluation.latent import interpolate, local_variants, sample_latents
from vaekit.evaluation.likelihood import importance_sampled_nll

__all__ = [
    "Aggregate",
    "Extractor",
    "aggregate_posterior",
    "features_of",
    "frechet_distance",
    "importance_sampled_nll",
    "interpolate",
    "load_extractor",
    "local_variants",
    "sample_latents",
    "sharpness",
    "to_uint8",
]
