"""The multimodal model as Pyro programs, for ELBOs of any subset of its modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from vaekit.distributions import ExpertMixture, unstack
from vaekit.errors import VaekitError
from vaekit.fusions.base import PrivateFusion
from vaekit.models.subset import SubsetPosterior
from vaekit.observed import Observed
from vaekit.priors.base import Prior

if TYPE_CHECKING:
    from vaekit.models.encoded import Encoded
    from vaekit.models.modality import Modality

__all__ = ["Programs"]

Distribution = torch.distributions.Distribution


class Programs(nn.Module):
    r"""The Pyro `model` and `guide` of a multimodal VAE.

    Sites: `z` (shared by all modalities), `z_<modality>` (private, or the modality's own where none is shared) and
    `x_<modality>`. Both programs are scaled by one over the batch size, so that a loss of Pyro's is in nats per sample
    and equals the objective's at beta 1. A modality that is not available is masked, sample by sample.

    Three sets of modalities, masks (B, M), say which ELBO is meant; what is not available is left out of each. Model
    and guide take the same arguments:

    - none, the objective `joint`: $\mathbb E_{q(z\mid x)}\log p(x\mid z)-\mathrm{KL}(q(z\mid x)\,\|\,p(z))$;
    - `seen=S, observed=S`, the ELBO of a subset, in `mvae` and `masked`:
      $\mathbb E_{q(z\mid x_S)}\log p(x_S\mid z)-\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))$;
    - `seen=S`, the objective `mixture`:
      $\mathbb E_{q(z\mid x_S)}\log p(x\mid z)-\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))$;
    - `given=S, observed=~S`, the second half of `masked`:
      $\mathbb E_{q(z\mid x)}\log p(x_{\setminus S}\mid z)-\mathrm{KL}(q(z\mid x)\,\|\,q(z\mid x_S))$.

    Without a shared latent it is the objective `independent`. `aggregate=True` puts the mean of all posteriors in the
    prior's place: with `Trace_ELBO`, the objective `mmvm` with the divergence `jensen_shannon` and alpha 0.

    `TraceMeanField_ELBO` takes closed forms of the KLs where there are any, `Trace_ELBO` none.

    References:
        Pyro: Deep Universal Probabilistic Programming, Bingham et al., 2019, Journal of Machine Learning Research 20.
    """

    prior: Prior
    private: PrivateFusion | None
    names: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether all modalities share a latent."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, Modality]:
        """The modalities by name."""
        raise NotImplementedError

    def encode(self, x: Observed) -> Encoded:
        """Return the batch, encoded."""
        raise NotImplementedError

    def private_prior(self, z: Tensor) -> Distribution:
        """Return the prior of the private latents for shared draws (S, B, D)."""
        raise NotImplementedError

    def model(
        self,
        x: Observed,
        *,
        seen: Tensor | None = None,
        observed: Tensor | None = None,
        given: Tensor | None = None,
        aggregate: bool = False,
    ) -> None:
        """Pyro model, in nats per sample.

        Arguments:
            x: The data.
            seen: Read by the guide.
            observed: The modalities whose values are explained; all by default.
            given: The modalities whose posterior is the prior; none by default, which leaves p(z).
            aggregate: Whether each modality has a latent of its own, and the mean of all posteriors for its prior.

        Raises:
            VaekitError: `seen` or `given`, where each modality has a latent of its own, or `aggregate` with private
                latents.
        """
        pyro.module("vae", self)
        explained = x.available if observed is None else x.available & observed
        with pyro.plate("data", len(x)), poutine.scale(scale=1.0 / len(x)):
            if self._separate(seen, given, aggregate):
                p = self._aggregate(x) if aggregate else self.prior()
                latents = self._separate_latents(x, dict.fromkeys(self.names, p))
            else:
                prior = SubsetPosterior(self.prior(), None if self.private is None else self.private_prior)
                latents = self._shared_latents(prior if given is None else self.encode(x).posterior(given))
            for (name, modality), there in zip(self.parts.items(), explained.unbind(-1), strict=True):
                with poutine.mask(mask=there):
                    pyro.sample(f"x_{name}", modality.decode(latents[name]), obs=x.values[name])

    def guide(
        self,
        x: Observed,
        *,
        seen: Tensor | None = None,
        observed: Tensor | None = None,
        given: Tensor | None = None,
        aggregate: bool = False,
    ) -> None:
        """Pyro guide: the posterior given the modalities that it sees, in nats per sample.

        Arguments:
            x: The data.
            seen: The modalities that the posterior is given; all by default.
            observed: Read by the model.
            given: Read by the model.
            aggregate: Whether each modality has a latent of its own, with the mean of all posteriors for its prior.

        Raises:
            VaekitError: `seen` or `given`, where each modality has a latent of its own, or `aggregate` with private
                latents.
        """
        pyro.module("vae", self)
        encoded = self.encode(x)
        with pyro.plate("data", len(x)), poutine.scale(scale=1.0 / len(x)):
            if self._separate(seen, given, aggregate):
                self._separate_latents(x, dict(zip(self.names, unstack(encoded.experts), strict=True)))
            else:
                self._shared_latents(encoded.posterior(seen))

    def _aggregate(self, x: Observed) -> Distribution:
        return ExpertMixture(self.encode(x).experts, x.available, validate_args=False)

    def _separate(self, seen: Tensor | None, given: Tensor | None, aggregate: bool) -> bool:
        separate = aggregate or not self.shared
        if aggregate and self.private is not None:
            raise VaekitError("an aggregate prior is for models without private latents: leave 'aggregate' out")
        if separate and not (seen is None and given is None):
            raise VaekitError(
                "where each modality has a latent of its own no posterior is of a subset: leave 'seen' and 'given' out"
            )
        return separate

    def _separate_latents(self, x: Observed, laws: Mapping[str, Any]) -> dict[str, Tensor]:
        """Sample every modality's own latent."""
        latents = {}
        for (name, law), there in zip(laws.items(), x.available.unbind(-1), strict=True):
            with poutine.mask(mask=there):
                latents[name] = pyro.sample(f"z_{name}", law)
        return latents

    def _shared_latents(self, law: SubsetPosterior) -> dict[str, Tensor]:
        """Sample the shared latent and the private ones; return what each decoder takes."""
        z = pyro.sample("z", law.shared)
        if law.private is None:
            return dict.fromkeys(self.names, z)
        laws = zip(self.names, unstack(law.private(z.unsqueeze(0))), strict=True)
        private = {name: pyro.sample(f"z_{name}", own).squeeze(0) for name, own in laws}
        return {name: torch.cat([z, own], -1) for name, own in private.items()}
