"""What a page asks of a run of images: what the model makes of a picture, and of the way between two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vaekit.distributions import GaussianMixture, draw, kl_divergence, kl_method
from vaekit.errors import VaekitError
from vaekit.evaluation.latent import interpolate
from vaekit.exploring.explorer import Explorer
from vaekit.reporting.units import kl_by_unit

__all__ = ["KL", "Pictures"]

_DRAWS = 1000


@dataclass(frozen=True)
class KL:
    """KL(q(z|x) || p(z)) of one picture.

    Arguments:
        total: In nats; None where it is infinite or there is none.
        sentence: What to say about the number, or why there is none.
        by_unit: That of each dimension by itself, or of each variable of several categories, in nats, shape (U,);
            None where it is not known.
    """

    total: float | None
    sentence: str
    by_unit: Tensor | None = None


class Pictures(Explorer):
    """An explorer of a run of images of one modality.

    Pictures are tensors (1, C, H, W) in the model's range.

    Arguments:
        run: The run, with its weights.

    Raises:
        VaekitError: The run has no `aggregate.safetensors`, and the training data that it comes from are not there.
    """

    def read(self, file: str | Path) -> Tensor:
        """Read an image file as the model takes it: centre crop, size, channels and range.

        Raises:
            VaekitError: The file cannot be read as an image, or the model does not take square images.
        """
        return self.run.read([file])

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the reconstruction at the posterior's mean (see `Posterior.point`), shape (C, H, W)."""
        return self.decode_latents(self.point(self.posterior(x.to(self.device))))[0]

    @torch.no_grad()
    def draws(self, x: Tensor, count: int = 6) -> Tensor:
        """Return what draws from the posterior decode to, shape (count, C, H, W)."""
        return self.decode_latents(self.posterior(x.to(self.device)).sample((count,)).squeeze(1))

    @torch.no_grad()
    def kl(self, x: Tensor) -> KL:
        """Return the KL between the posterior of a picture and the prior, as a whole and in its parts."""
        q = self.posterior(x.to(self.device))
        try:
            total = float(kl_divergence(q, self.prior, draw(q, _DRAWS)))
            closed = kl_method(q, self.prior) == "closed"
        except VaekitError as error:
            return KL(None, str(error))
        how = "in closed form" if closed else "estimated from draws of the posterior"
        # As a batch of equal posteriors: where there is no closed form, one draw of each is taken.
        each, _ = kl_by_unit(q.expand((_DRAWS,)), self.prior)
        if each is None:
            return KL(total, f"{how}; its parts are not known")
        by_unit = each.mean(0).cpu()
        parts = float(by_unit.sum())
        if abs(parts - total) > 0.02 * abs(total) + 0.05:
            how += f"; its parts by themselves add up to {parts:.2f} nats"
        return KL(total, how, by_unit)

    # ---- mixtures --------------------------------------------------------------------------------------------------

    @property
    @torch.no_grad()
    def component_count(self) -> int:
        """The number of components of every posterior: 0 where it is no mixture."""
        q = self.posterior(torch.zeros(1, *self.model.data_shape, device=self.device))
        return q.components if isinstance(q, GaussianMixture) and q.components > 1 else 0

    @torch.no_grad()
    def components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the components' weights (K,) and what their means decode to (K, C, H, W)."""
        q = self._mixture(x)
        return q.component_probs[0].cpu(), self.decode_latents(q.loc[0])

    @torch.no_grad()
    def component_draws(self, x: Tensor, component: int, count: int = 6) -> Tensor:
        """Return what draws from one component decode to, shape (count, C, H, W)."""
        q = self._mixture(x)
        loc, scale = q.loc[0, component], q.scale[0, component]
        return self.decode_latents(loc + scale * torch.randn(count, len(loc), device=loc.device))

    @torch.no_grad()
    def component_values(self, x: Tensor, component: int) -> list[float]:
        """Return the knobs at the mean of one component."""
        return self.knobs.values(self._mixture(x).loc[:, component])

    def _mixture(self, x: Tensor) -> GaussianMixture:
        q = self.posterior(x.to(self.device))
        if not isinstance(q, GaussianMixture):
            raise VaekitError("the posterior of this run is no mixture: it has no components to choose from")
        return q

    # ---- the way between two ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def walk(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Return the walk between two pictures, shape (steps, C, H, W); see `vaekit.evaluation.interpolate`."""
        return interpolate(self.model, first.to(self.device), second.to(self.device), steps)[:, 0].cpu()
