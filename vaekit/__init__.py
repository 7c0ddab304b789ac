"""vaekit: interchangeable probabilistic components for training variational autoencoders.

    import vaekit as vk
    run = vk.recipe("gamix", data="digits")
    run.fit()

Everything is imported when first used, so `import vaekit` is quick.
"""

from __future__ import annotations

from vaekit.lazy import lazy

__version__ = "0.1.0"

# Public name -> the module it lives in.
_EXPORTS = {
    "Adversary": "objectives.adversary",
    "MultimodalVAE": "models.multimodal",
    "Objective": "objectives.elbo",
    "Run": "run",
    "RunConfig": "config",
    "Trainer": "training.trainer",
    "VAE": "models.vae",
    "VaekitError": "errors",
    "recipe": "run",
}
_PACKAGES = (
    "backbones", "build", "data", "discriminators", "distributions", "evaluation", "fusions", "likelihoods", "models",
    "objectives", "observed", "posteriors", "priors", "registry", "regularizers", "reporting", "schedules", "testing",
    "training",
)  # fmt: skip

__all__ = [*sorted(_EXPORTS), *_PACKAGES]


__getattr__, _names = lazy(__name__, _EXPORTS | {name: name for name in _PACKAGES})


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
