"""vaekit: interchangeable probabilistic components for training variational autoencoders.

    import vaekit as vk
    run = vk.recipe("gamix", data="digits")
    run.fit()

Everything is imported when first used, so `import vaekit` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> where it lives; subpackages map to themselves.
_EXPORTS = {
    "Adversary": "vaekit.objectives.adversary",
    "MultimodalVAE": "vaekit.models.multimodal",
    "Objective": "vaekit.objectives.elbo",
    "Run": "vaekit.run",
    "RunConfig": "vaekit.config",
    "Trainer": "vaekit.training.trainer",
    "VAE": "vaekit.models.vae",
    "VaekitError": "vaekit.errors",
    "recipe": "vaekit.run",
}
_PACKAGES = (
    "backbones", "build", "data", "discriminators", "distributions", "evaluation", "fusions", "likelihoods", "models",
    "objectives", "observed", "posteriors", "priors", "registry", "regularizers", "reporting", "schedules", "testing",
    "training",
)  # fmt: skip

__all__ = [*sorted(_EXPORTS), *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"vaekit.{name}")
    raise AttributeError(f"module 'vaekit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
