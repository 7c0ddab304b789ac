"""Models: modules that compose the parts, and their Pyro programs."""

from typing import TypeAlias

from vaekit.models.autoencoder_kl import load_autoencoder_kl, save_autoencoder_kl
from vaekit.models.encoded import Encoded
from vaekit.models.modality import Modality
from vaekit.models.multimodal import MultimodalVAE
from vaekit.models.subset import LatentDraws, SubsetPosterior
from vaekit.models.vae import VAE, Output

__all__ = [
    "VAE",
    "Encoded",
    "LatentDraws",
    "Modality",
    "Model",
    "MultimodalVAE",
    "Output",
    "SubsetPosterior",
    "load_autoencoder_kl",
    "save_autoencoder_kl",
]

#: Whatever the trainer trains.
Model: TypeAlias = VAE | MultimodalVAE
