"""What a page asks of any run: a knob for each latent dimension, where to start, and what is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.exploring.knobs import Knobs
from vaekit.registry import posteriors
from vaekit.run import Run

__all__ = ["Explorer"]


class Explorer:
    """A run that is asked one thing after another: latents in, samples out.

    Samples have names, those of the modalities; of a run of one modality the name is empty.

    Arguments:
        run: The run, with its weights.

    Attributes:
        knobs: The latent space as knobs.
        ranges: Name to the interval of its images.

    Raises:
        VaekitError: The run has no `aggregate.safetensors`, and the training data that it comes from are not there.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.model = run.model.eval()
        self.device = self.model.last_layer.device
        with torch.no_grad():
            self.prior: Distribution = self.model.prior()
            self.knobs = Knobs(posteriors.info(run.config.posterior["name"]).support, self.prior, run.aggregate)
        self.ranges: dict[str, tuple[float, float]] = {"": self.model.data_range}

    @property
    def title(self) -> str:
        """What the run is called."""
        return f"{self.run.config.recipe or 'run'} on {self.run.config.data['name']}"

    @property
    def about(self) -> str:
        """Return a sentence about the latent space."""
        parts, count = self.run.config, self.model.latent_dim
        active = "" if self.discrete else f", {self.run.aggregate.active_units} of them active"
        return f"posterior {parts.posterior['name']}, prior {parts.prior['name']}, {count} latent dimensions{active}"

    @property
    def discrete(self) -> bool:
        """Whether latents are counts or categories, so that a mean is none of them."""
        return self.knobs.space in ("counts", "one-hot")

    # ---- where to start --------------------------------------------------------------------------------------------

    @property
    def has_prior_mean(self) -> bool:
        """Whether the prior's mean lies in the latent space, or near it for counts."""
        return self.knobs.space not in ("sphere", "one-hot")

    @torch.no_grad()
    def prior_mean(self) -> list[float]:
        """Return the knobs at the prior's mean; its nearest counts where latents are counts."""
        return self.knobs.values(self.prior.mean)

    @torch.no_grad()
    def prior_draw(self) -> list[float]:
        """Return the knobs at a draw from the prior."""
        return self.knobs.values(self.prior.sample())

    def first(self) -> list[float]:
        """Return the knobs that a page begins with."""
        return self.prior_mean() if self.has_prior_mean else self.prior_draw()

    def random_sample(self) -> Any:
        """Return one validation sample at random, as the model takes it.

        Raises:
            VaekitError: The data are not there.
        """
        return self.run.draw_data(1, "valid")

    @torch.no_grad()
    def values_of(self, x: Any) -> list[float]:
        """Return the knobs at the posterior's mean of a sample; at a draw where latents are counts or categories."""
        q = self.posterior(x)
        return self.knobs.values(q.sample() if self.discrete else self.point(q))

    def posterior(self, x: Any) -> Distribution:
        """Return q(z|x) of one sample."""
        q: Distribution = self.model.encode(x)
        return q

    def point(self, q: Distribution) -> Tensor:
        """Return the latent (1, D) that stands for a posterior where nothing is drawn."""
        z: Tensor = self.model.posterior.point(q)
        return z

    # ---- what comes out --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, values: Sequence[float]) -> dict[str, Tensor]:
        """Return the mean of p(x|z), shape X, at the values of the knobs."""
        return {"": self.decode_latents(self.knobs.latent(values))[0]}

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return means of p(x|z), shape (N, *X), for latents (N, D)."""
        mean: Tensor = self.model.decode(z.to(self.device)).mean
        return mean.cpu()
