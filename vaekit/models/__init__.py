"""Models: modules that compose the parts, and their Pyro programs."""

from vaekit.models.vae import VAE, Output

__all__ = ["VAE", "Output"]
