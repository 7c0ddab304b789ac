"""What a trained model is asked: aggregate posterior, likelihood, fidelity, samples, interpolations.

Everything is imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from vaekit.lazy import lazy

# Public name -> the module it lives in.
_EXPORTS = {
    "Aggregate": "aggregate",
    "Extractor": "extractors",
    "FeatureStore": "features",
    "LinearReport": "linear",
    "Sampler": "samplers",
    "active_neurons": "representation",
    "aggregate_posterior": "aggregate",
    "compare_images": "image_folders",
    "exact_log_likelihood": "linear",
    "exact_posterior_kl": "linear",
    "frechet_distance": "fidelity",
    "importance_sampled_nll": "likelihood",
    "interpolate": "latent",
    "knn_accuracy": "representation",
    "learned_linear_gaussian": "linear",
    "lifetime_sparsity": "representation",
    "linear_report": "linear",
    "list_sources": "samplers",
    "load_extractor": "extractors",
    "local_variants": "latent",
    "mixture_gap": "linear",
    "mixture_optimum": "linear",
    "representation": "representation",
    "sharpness": "fidelity",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy(__name__, _EXPORTS)
