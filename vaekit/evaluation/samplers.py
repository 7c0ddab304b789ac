"""Where latents are drawn from: one place for samples, pictures and metrics."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.data import Dataset, PairedSplit, Split, make_batches
from vaekit.data.batches import mixed_seed
from vaekit.data.dataset import Progress
from vaekit.distributions.kl import space_of
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.expost import EXPOST, Expost
from vaekit.files import load_tensors, save_tensors
from vaekit.models import Model, MultimodalVAE
from vaekit.sources import SOURCES

__all__ = ["BLOCK", "Sampler", "list_sources"]

#: Latents in a block; each block is seeded by itself.
BLOCK = 500
_FITTED_TO = 10_000
_ENCODED = 50  # Samples at a time where posteriors are drawn from: the draws follow from how samples are cut.


def list_sources(model: Model) -> tuple[str, ...]:
    """Return the sources that suit the latents of a model: no Gaussian stands for counts, categories or directions.

    Examples:
        >>> import vaekit as vk
        >>> list_sources(vk.recipe("categorical-vae", data="digits").model)
        ('prior', 'aggregate-mixture')
    """
    if space_of(model.prior()) in ("counting", "one-hot", "sphere"):
        return "prior", "aggregate-mixture"
    return tuple(SOURCES)


class Sampler:
    r"""Draws latents of a model, from any of `vaekit.sources.SOURCES`.

    | source | latents |
    |---|---|
    | `prior` | $p(z)$ |
    | `aggregate-gaussian` | a diagonal Gaussian with the moments of $q(z)=\frac1N\sum_iq(z\mid x_i)$ |
    | `aggregate-mixture` | q(z) itself: a training sample at random, then its posterior |
    | `expost-mixture` | ten Gaussians with full covariances, fitted to draws of q(z): `ExpostMixture` |
    | `expost-flow` | a normalising flow, fitted to draws of q(z): `ExpostFlow` |

    The samples i are those of the training split. What `aggregate-mixture` gives is near-reconstructions of them.

    The last two are fitted when they are first asked for, to one posterior draw of each of 10,000 training samples (or
    of all, where there are fewer). They leave torch's random state alone. In a folder they are kept: with other weights
    or another seed, and where the file is damaged, they are fitted again.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black and Schölkopf, 2019,
        arXiv 1903.12436 (densities that are fitted ex post).

    Arguments:
        model: The model, in evaluation mode; its weights must not change afterwards.
        data: The data set whose training split is meant, or what loads it where a source needs it.
        binarize: Whether grey values are drawn as black or white, as in training.
        batch_size: Samples at a time while moments are computed. Draws do not depend on it.
        seed: Seed of the fits, and of the choice of training samples for them.
        folder: Where fits are kept, as safetensors; `None` to keep none.
        aggregate: The file in which a run keeps the moments of its aggregate posterior; they are computed where there
            is none.
        progress: Called as `progress(done, total, what)` while densities are fitted.

    Raises:
        VaekitError: The batch size is below 1, or the seed below 0.

    Examples:
        >>> import vaekit as vk
        >>> run = vk.recipe("vae", data="digits", latent_dim=3)
        >>> sampler = Sampler(run.model.eval(), run.data)
        >>> sampler.draw("aggregate-mixture", 4, seed=0).shape
        torch.Size([4, 3])
        >>> first, second = sampler.draw("prior", 700, seed=0).split(500)
        >>> bool((second == sampler.draw("prior", 200, seed=0, block=1)).all())
        True
    """

    def __init__(
        self,
        model: Model,
        data: Dataset | Callable[[], Dataset],
        *,
        binarize: bool = False,
        batch_size: int = 64,
        seed: int = 0,
        folder: Path | None = None,
        aggregate: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        if batch_size < 1 or seed < 0:
            raise VaekitError(f"batch_size must be 1 or more and seed 0 or more, not {batch_size} and {seed}")
        self.model = model
        self.binarize = binarize
        self.batch_size = batch_size
        self.seed = seed
        self.folder = folder
        self.progress = progress
        self._data = data
        self._aggregate = aggregate
        self._fits: dict[str, Expost] = {}

    @torch.no_grad()
    def draw(self, source: str, count: int, seed: int | None = None, block: int = 0) -> Tensor:
        """Draw latents (count, D), on the model's device.

        They are drawn in blocks of 500. Block i of a seed is the same whatever was drawn before it: 1,000 latents are
        those of block 0 and of block 1.

        With a seed torch's random state is set, and stays so: what a decoder draws next follows from it too.

        Arguments:
            source: Where they are drawn from.
            count: How many.
            seed: Seed of the draws; `None` to go on with the current random state.
            block: The number of the first block.

        Raises:
            VaekitError: There is no such source, it does not suit the latents, `count` is below 1, the seed below 0,
                or the training data that the source needs are not there.
        """
        if count < 1:
            raise VaekitError(f"the number of samples must be 1 or more, not {count}")
        if seed is not None and seed < 0:
            raise VaekitError(f"seed must be 0 or more, not {seed}")
        self._require(source)
        density = None if source == "aggregate-mixture" else self.density(source)
        parts = []
        for number, start in enumerate(range(0, count, BLOCK), block):
            if seed is not None:
                torch.manual_seed(mixed_seed(seed, number))
            size = min(BLOCK, count - start)
            parts.append(self._around(size) if density is None else density.sample((size,)))
        return torch.cat(parts)

    @torch.no_grad()
    def density(self, source: str) -> Distribution:
        """Return the distribution that a source draws from, `batch_shape ()`, `event_shape (D,)`.

        Arguments:
            source: Any but `aggregate-mixture`, which has as many components as there are training samples.

        Raises:
            VaekitError: As `draw`; and for `aggregate-mixture`.
        """
        self._require(source)
        if source == "prior":
            p: Distribution = self.model.prior()
            return p
        if source == "aggregate-gaussian":
            found, device = self.aggregate, self._device
            mean, scale = found.mean.float().to(device), found.variance.sqrt().float().to(device)
            return dist.Normal(mean, scale, validate_args=False).to_event(1)
        if source not in EXPOST:
            raise VaekitError(f"'{source}' can be drawn from, and has no density at hand: take another source")
        if source not in self._fits:
            self._fits[source] = self._fit(source)
        fitted: Distribution = self._fits[source].to(self._device)()
        return fitted

    @cached_property
    def data(self) -> Dataset:
        """The data set, loaded when first needed."""
        return self._data if isinstance(self._data, Dataset) else self._data()

    @cached_property
    def aggregate(self) -> Aggregate:
        """The moments of the aggregate posterior over the training split."""
        if self._aggregate is not None and self._aggregate.is_file():
            try:
                found = Aggregate.from_tensors(load_tensors(self._aggregate))
                if found.mean.shape != (self.model.latent_dim,):
                    raise VaekitError("they are those of another latent space")
            except VaekitError as error:
                raise VaekitError(
                    f"{self._aggregate} cannot be used ({error}): remove it, and it is made again from the data"
                ) from error
            return found
        what = "moments of the aggregate posterior"
        return aggregate_posterior(self.encode, self._batches(self.data.train, self.batch_size, self.seed, what))

    def encode(self, x: Any) -> Distribution:
        """Return what stands for data in the latent space: q(z|x), or `MultimodalVAE.marginal`, `batch_shape (N,)`.

        Arguments:
            x: A batch (B, *X), or `Observed`.
        """
        return self.model.marginal(x) if isinstance(self.model, MultimodalVAE) else self.model.encode(x)

    # ---- training samples ------------------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return self.model.last_layer.device

    def _require(self, source: str) -> None:
        """Refuse a source that there is not, or that does not suit the latents."""
        if source not in SOURCES:
            raise VaekitError(f"there is no source of latents '{source}': {suggest(source, SOURCES)}")
        if source not in list_sources(self.model):
            raise VaekitError(
                "the posterior of this model has no Gaussian draws: sample from 'prior' or 'aggregate-mixture'"
            )

    def _batches(self, rows: Split | PairedSplit, size: int, seed: int, what: str | None = None) -> Iterator[Any]:
        """Yield training samples on the model's device, and report on them where there are words for it."""
        batches = make_batches(
            self.data,
            rows,
            min(size, len(rows)),
            self.model.data_range,
            device=self._device,
            shuffle=False,
            binarize=self.binarize,
            seed=seed,
            drop_last=False,
        )
        for number, x in enumerate(batches.epoch(0), 1):
            yield x
            if what is not None and self.progress is not None:
                self.progress(number, len(batches), what)

    def _drawn(self, chosen: Tensor, what: str | None = None) -> Tensor:
        """Return a draw of the posterior of each chosen training sample; without a shared latent, of each modality."""
        black_and_white = int(torch.randint(2**31, ()))
        batches = self._batches(self.data.train.rows(chosen), _ENCODED, black_and_white, what)
        return torch.cat([self.encode(x).sample() for x in batches])

    def _around(self, count: int) -> Tensor:
        """Draw from the posteriors of training samples chosen at random with replacement."""
        # In ascending order, so that a file is read forwards.
        z = self._drawn(torch.randint(len(self.data.train), (count,)).sort().values)
        return z if len(z) == count else z[torch.randperm(len(z))[:count].to(z.device)]

    # ---- densities that are fitted ---------------------------------------------------------------------------------

    def _fit(self, source: str) -> Expost:
        """Return a density of this model's latents, one that was kept or a new one."""
        device = self._device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            density = EXPOST[source](self.model.latent_dim).to(device).eval()
            made: dict[str, str] = {}
            if self.folder is not None:
                made = {"fit": density.settings, "weights": self._weights, "seed": str(self.seed)}
                made["binarize"] = str(self.binarize)
                if density.restore(self.folder / f"{source}.safetensors", made):
                    return density
            torch.manual_seed(self.seed)  # All densities see the same latents.
            chosen = torch.randperm(len(self.data.train))[:_FITTED_TO].sort().values
            density.fit(self._drawn(chosen, f"encoding for {source}"), self.progress)
        if self.folder is not None:
            # What is kept saves time and nothing else: a run that may only be read can be drawn from.
            with contextlib.suppress(VaekitError):
                save_tensors(self.folder / f"{source}.safetensors", density.state_dict(), made)
        return density

    @cached_property
    def _weights(self) -> str:
        """The hash of the model's weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()
