"""What a page asks of a run of several modalities: all of them from some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import VaekitError
from vaekit.exploring.explorer import Explorer
from vaekit.multimodal_run import MultimodalRun

__all__ = ["Modalities"]


class Modalities(Explorer):
    """An explorer of a run of several modalities.

    Arguments:
        run: The run, with its weights.

    Raises:
        VaekitError: The run has no `aggregate.safetensors`, and the training data that it comes from are not there.
    """

    run: MultimodalRun

    def __init__(self, run: MultimodalRun) -> None:
        super().__init__(run)
        self.names: tuple[str, ...] = self.model.names
        self.shapes: dict[str, tuple[int, ...]] = self.model.data_shape
        self.ranges = self.model.data_range

    def posterior(self, x: Any) -> Distribution:
        """Return q(z|x) given all that is there of one sample; of its first modality where they share no latent."""
        q: Distribution = self.model.marginal(x)
        return q

    def point(self, q: Distribution) -> Tensor:
        """Return the latent (1, D) that stands for a posterior where nothing is drawn."""
        return q.mean[:1]

    @torch.no_grad()
    def decode(self, values: Sequence[float]) -> dict[str, Tensor]:
        """Return the mean of p(x_m|z), shape X_m, of every modality; private latents are at their prior's mean."""
        z = self.knobs.latent(values).to(self.device)
        each = z.unsqueeze(-2).expand(-1, len(self.names), -1)
        if self.model.private is not None:
            each = torch.cat([each, self.model.private_prior(z).mean], -1)
        return {name: p.mean[0].cpu() for name, p in self.model.decode(each).items()}

    def read(self, name: str, given: str) -> Tensor:
        """Read one sample (1, *X_m) of a modality: an image file, numbers parted by commas or the number of a class.

        Raises:
            VaekitError: It cannot be read.
        """
        if len(self.shapes[name]) != 3 and given.endswith(".npy"):  # A page opens no file but one that is dropped.
            raise VaekitError(f"give numbers of {name} parted by commas, or the number of a class")
        return self.run.read_modality(name, given)

    def sample_of_each(self) -> dict[str, Tensor]:
        """Return one validation sample at random, (1, *X_m) of each modality that is there.

        Raises:
            VaekitError: The data are not there.
        """
        x = self.random_sample()
        there = x.available[0].tolist()
        return {name: x.values[name].cpu() for name, available in zip(x.names, there, strict=True) if available}

    def generate(self, given: Mapping[str, Tensor], chosen: Sequence[str], count: int = 6) -> dict[str, Tensor]:
        """Return draws (count, *X_m) of every modality from the chosen ones.

        Arguments:
            given: Modality to a sample (1, *X_m), as `read` gives it.
            chosen: Those to generate from.
            count: How many draws.

        Raises:
            VaekitError: None is chosen, or a chosen one is not given.
        """
        missing = [name for name in chosen if name not in given]
        if missing or not chosen:
            raise VaekitError(
                f"nothing is given of {', '.join(missing)} yet: give a sample of it, or leave it out"
                if missing
                else "choose one modality or more to generate from"
            )
        return self.run.generate({name: given[name] for name in chosen}, count).modalities
