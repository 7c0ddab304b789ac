"""What a trained model is asked: aggregate posterior, samples, reconstructions, interpolations."""

from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.latent import interpolate, local_variants, sample_latents

__all__ = ["Aggregate", "aggregate_posterior", "interpolate", "local_variants", "sample_latents"]
