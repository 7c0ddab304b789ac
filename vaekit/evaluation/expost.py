"""Densities that are fitted to the latents of a trained model, to draw new latents from."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    TransformedDistribution,
)

from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError
from vaekit.files import load_tensors
from vaekit.registry import priors

__all__ = ["EXPOST", "Expost", "ExpostFlow", "ExpostMixture"]

_COMPONENTS = 10
_STEPS, _LOOK, _PATIENCE, _BATCH, _RATE, _HELD_OUT = 3000, 50, 500, 200, 5e-3, 0.1
_TRANSFORMS = 5


class Expost(nn.Module):
    r"""A density of latents, $p(z)=p_0\bigl((z-m)/s\bigr)\prod_ds_d^{-1}$, with $p_0$ fitted to standardised ones.

    With m and s the mean and the standard deviation of each dimension, a fit does not depend on their scale, which
    nothing fixes in a deterministic autoencoder.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black and Schölkopf, 2019,
        arXiv 1903.12436.

    Arguments:
        latent_dim: The number D of latent dimensions.

    Attributes:
        settings: How the density is fitted, in words: fits with other settings are other fits.
    """

    loc: Tensor
    scale: Tensor
    settings: str = ""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def standard(self) -> Distribution:
        """Return $p_0$, the density of standardised latents."""
        raise NotImplementedError

    def fit_standard(self, z: Tensor, progress: Progress | None = None) -> None:
        """Fit $p_0$ to standardised latents (N, D) in float64."""
        raise NotImplementedError

    def forward(self) -> Distribution:
        """Return the density, `batch_shape ()`, `event_shape (D,)`."""
        back = AffineTransform(self.loc, self.scale, event_dim=1)
        return TransformedDistribution(self.standard(), [back], validate_args=False)

    def fit(self, z: Tensor, progress: Progress | None = None) -> None:
        """Fit the density to latents (N, D), where the module is; what is random follows torch's random state.

        Arguments:
            z: The latents.
            progress: Called as `progress(done, total, what)` while it takes time.

        Raises:
            VaekitError: There are fewer than ten latents, or some are not finite.
        """
        if len(z) < _COMPONENTS:
            raise VaekitError(
                f"a density cannot be fitted to {len(z)} latent(s): it needs {_COMPONENTS} training samples or more"
            )
        if not z.isfinite().all():
            raise VaekitError("no density can be fitted to latents that are not finite: train the model again")
        z = z.to(self.loc.device, torch.float64)
        # A dimension that is the same everywhere stays so.
        loc, scale = z.mean(0), z.std(0).clamp_min(1e-12)
        self.loc.copy_(loc)
        self.scale.copy_(scale)
        self.fit_standard((z - loc) / scale, progress)

    def restore(self, path: Path, made: Mapping[str, str]) -> bool:
        """Take what is kept in a file, if the file is whole and says the same of how it was made.

        Arguments:
            path: A safetensors file of the module's state.
            made: What its metadata must be.

        Returns:
            Whether it was taken; if not, the density is to be fitted.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                if file.metadata() != made:
                    return False
            self.load_state_dict(load_tensors(path))
        except (OSError, RuntimeError, SafetensorError, VaekitError):
            return False
        return True


class ExpostMixture(Expost):
    r"""Ten Gaussians with full covariances, $p_0(z)=\sum_k\pi_kN(z;\,\mu_k,\Sigma_k)$, fitted by EM.

    Scikit-learn fits it, from k-means, with $10^{-6}$ added to the variances. Each component has
    D (D + 3) / 2 numbers: where D is in the hundreds, ten thousand latents determine them poorly.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black and Schölkopf, 2019,
        arXiv 1903.12436 (ten components for the codes of every data set).

    Arguments:
        latent_dim: The number D of latent dimensions.

    Examples:
        >>> density = ExpostMixture(2)
        >>> density.fit(torch.randn(200, 2) + torch.tensor([5.0, 0.0]))
        >>> density().sample((4,)).shape, bool(density().log_prob(torch.tensor([5.0, 0.0])) > -3.0)
        (torch.Size([4, 2]), True)
    """

    log_weights: Tensor
    means: Tensor
    scale_tril: Tensor
    settings = f"{_COMPONENTS} Gaussians with full covariances"

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("log_weights", torch.full((_COMPONENTS,), -math.log(_COMPONENTS)))
        self.register_buffer("means", torch.zeros(_COMPONENTS, latent_dim))
        self.register_buffer("scale_tril", torch.eye(latent_dim).repeat(_COMPONENTS, 1, 1))

    def standard(self) -> Distribution:
        """Return $p_0$, the mixture of standardised latents."""
        gaussians = MultivariateNormal(self.means, scale_tril=self.scale_tril, validate_args=False)
        weights = Categorical(logits=self.log_weights, validate_args=False)
        return MixtureSameFamily(weights, gaussians, validate_args=False)

    def fit_standard(self, z: Tensor, progress: Progress | None = None) -> None:
        """Fit $p_0$ to standardised latents (N, D) by EM."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(_COMPONENTS, random_state=int(torch.randint(2**31, ())))
        with warnings.catch_warnings():
            # A hundred steps that still gain a little, or latents that coincide, leave a mixture all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(z.cpu().numpy())
        self.log_weights.copy_(torch.from_numpy(mixture.weights_).log())
        self.means.copy_(torch.from_numpy(mixture.means_))
        self.scale_tril.copy_(torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)))


class ExpostFlow(Expost):
    """The prior `flow` in its kind `maf`, five affine autoregressive transforms, fitted by maximum likelihood.

    A tenth of the latents is held out. Adam takes 3,000 steps, with a learning rate that falls to zero, or fewer where
    the likelihood of what is held out has not risen for 500; what is kept is the flow that was best for it. A draw
    takes as many passes as there are dimensions, 64 at most.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou and Murray, 2017, arXiv 1705.07057.

    Arguments:
        latent_dim: The number D of latent dimensions.

    Examples:
        >>> density = ExpostFlow(2)
        >>> density.fit(torch.randn(20, 2))
        >>> density().sample((4,)).shape
        torch.Size([4, 2])
    """

    settings = f"{_TRANSFORMS} affine autoregressive transforms, {_STEPS} steps at {_RATE:g}"

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.prior = priors.get("flow")(latent_dim, kind="maf", transforms=_TRANSFORMS)

    def standard(self) -> Distribution:
        """Return $p_0$, the flow of standardised latents."""
        p: Distribution = self.prior()
        return p

    @torch.enable_grad()
    def fit_standard(self, z: Tensor, progress: Progress | None = None) -> None:
        """Fit $p_0$ to standardised latents (N, D) by maximum likelihood."""
        held, kept = z[torch.randperm(len(z)).to(z.device)].float().tensor_split([math.ceil(_HELD_OUT * len(z))])
        optimizer = torch.optim.Adam(self.prior.parameters(), lr=_RATE)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        best, at, state = -math.inf, 0, copy.deepcopy(self.prior.state_dict())
        for step in range(1, _STEPS + 1):
            batch = kept[torch.randint(len(kept), (_BATCH,)).to(z.device)]
            optimizer.zero_grad()
            (-self.prior().log_prob(batch).mean()).backward()
            optimizer.step()
            falling.step()
            if step % _LOOK:
                continue
            with torch.no_grad():
                likelihood = float(self.prior().log_prob(held).mean())
            if likelihood > best:
                best, at, state = likelihood, step, copy.deepcopy(self.prior.state_dict())
            ended = step - at >= _PATIENCE
            if progress is not None:
                progress(_STEPS if ended else step, _STEPS, "fitting expost-flow")
            if ended:
                break
        self.prior.load_state_dict(state)


#: The sources of latents that are fitted.
EXPOST: Mapping[str, type[Expost]] = {"expost-mixture": ExpostMixture, "expost-flow": ExpostFlow}
