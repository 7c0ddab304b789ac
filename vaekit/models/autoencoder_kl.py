"""A VAE from the files of diffusers' `AutoencoderKL`, and those files from a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaekit.backbones.autoencoder_kl import AutoencoderKL
from vaekit.backbones.diffusers_folder import options_of_config, read_config, write_folder
from vaekit.backbones.kl_networks import KLDecoder, KLEncoder
from vaekit.errors import VaekitError
from vaekit.models.vae import VAE
from vaekit.posteriors.gaussian import Gaussian
from vaekit.priors.standard_normal import StandardNormal
from vaekit.registry import likelihoods

__all__ = ["load_autoencoder_kl", "save_autoencoder_kl"]


def load_autoencoder_kl(
    folder: str | Path,
    *,
    image_size: int | None = None,
    likelihood: str | Mapping[str, Any] = "laplace",
) -> VAE:
    """Return the VAE that a folder of diffusers' `AutoencoderKL` describes, with its weights.

    The posterior is the Gaussian of the folder's moments: the latent is the map (C, h, w) as one vector of D = C h w
    numbers. diffusers clamps log-variances to (-30, 20); here they are free, so that within that range the two are the
    same. The prior is standard normal. What a folder says beside the architecture, `scaling_factor` among it, is not
    applied; it is kept in `model.encoder.extras` and written again by `save_autoencoder_kl`.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models, Rombach, Blattmann, Lorenz, Esser and Ommer, 2021,
        arXiv 2112.10752.

    Arguments:
        folder: The folder with `config.json` and `diffusion_pytorch_model.safetensors`.
        image_size: The side of the images; the folder's `sample_size` if not given.
        likelihood: Name or mapping. The networks were trained on images in [-1, 1], with an absolute error.

    Raises:
        VaekitError: The folder is not of that kind, or the likelihood does not suit its decoder.

    Examples:
        >>> import tempfile, vaekit as vk
        >>> backbone, likelihood = AutoencoderKL(widths=(8, 16), groups=4), vk.likelihoods.Laplace((3, 8, 8))
        >>> encoder, decoder = backbone.encoder((3, 8, 8)), backbone.decoder(64, (3, 8, 8))
        >>> posterior = Gaussian(encoder.features, 64, head="split")
        >>> vae = VAE(encoder, posterior, StandardNormal(64), decoder, likelihood)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_autoencoder_kl(vae, folder)
        ...     load_autoencoder_kl(folder).latent_dim
        64
    """
    config = read_config(folder)
    size = image_size or int(config["sample_size"])
    backbone = AutoencoderKL(**options_of_config(config), weights=str(folder))
    built = likelihoods.build(likelihood, (int(config["out_channels"]), size, size))
    if built.data_range != (-1.0, 1.0):
        raise VaekitError(
            f"the likelihood {type(built).__name__} is of images in {built.data_range}, and the networks in {folder} "
            "are of images in (-1.0, 1.0): use gaussian or laplace"
        )
    encoder = backbone.encoder((int(config["in_channels"]), size, size))
    encoder.extras = {name: value for name, value in config.items() if not name.startswith("_")}
    latent_dim = encoder.features // 2
    posterior = Gaussian(encoder.features, latent_dim, head="split", log_variance_range=None)
    decoder = backbone.decoder(latent_dim, built.parameters_shape)
    return VAE(encoder, posterior, StandardNormal(latent_dim), decoder, built).eval()


def save_autoencoder_kl(model: VAE, folder: str | Path, **config: Any) -> None:
    """Write a VAE with the backbone `autoencoder_kl` as a folder that diffusers' `AutoencoderKL.from_pretrained` reads.

    Prior and likelihood are not in it. A model that was not loaded from such a folder gets the `scaling_factor` 1:
    pipelines multiply latents by it, and diffusers would take 0.18215 where none is given.

    Arguments:
        model: The VAE; its posterior is `{name: gaussian, head: split}`.
        folder: Where to write.
        config: What `config.json` is to say beside the architecture, such as `scaling_factor`.

    Raises:
        VaekitError: The model has other networks or another posterior.
    """
    encoder, decoder, posterior = model.encoder, model.decoder, model.posterior
    if not isinstance(encoder, KLEncoder) or not isinstance(decoder, KLDecoder):
        raise VaekitError("only a model with the backbone 'autoencoder_kl' can be written for diffusers")
    if not isinstance(posterior, Gaussian) or posterior.head != "split":
        raise VaekitError(
            "diffusers takes the encoder's features for the moments of the latent: only a model with the posterior "
            "{name: gaussian, head: split} can be written for it"
        )
    shape = {
        "in_channels": encoder.data_shape[0],
        "out_channels": decoder.decoded_shape[0],
        "sample_size": encoder.data_shape[-1],
    }
    extras = {"scaling_factor": 1.0, **encoder.extras, **shape, **config}
    write_folder(folder, encoder.backbone.options, extras, encoder.layers.state_dict(), decoder.layers.state_dict())
