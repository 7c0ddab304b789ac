"""Several vectors that share Gaussian latents linearly: a model of which everything is known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from vaekit.errors import VaekitError

__all__ = ["LinearGaussian"]


class LinearGaussian:
    r"""M vectors that are linear in one standard normal latent, with isotropic noise:

    $$z\sim\mathcal N(0,I_L),\qquad x_m\mid z\sim\mathcal N(W_mz+b_m,\sigma^2I).$$

    For every subset S of the modalities, with $W_S$ and $b_S$ stacked,

    $$p(x_S)=\mathcal N(b_S,\;W_SW_S^\top+\sigma^2I),\qquad
    p(z\mid x_S)=\mathcal N\bigl(\Sigma_SW_S^\top(x_S-b_S)/\sigma^2,\;\Sigma_S\bigr),\qquad
    \Sigma_S=(I+W_S^\top W_S/\sigma^2)^{-1}.$$

    All in float64 and in nats. A subset is a sequence of numbers of modalities, all of them where it is `None`; data
    are one tensor (..., D_m) for each modality, in order, missing ones included, as a sequence or by name.

    References:
        Probabilistic Principal Component Analysis, Tipping and Bishop, 1999, Journal of the Royal Statistical Society
        B 61(3), 611-622.
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380 (several modalities).

    Arguments:
        weights: $W_m$ of every modality, shape (D_m, L).
        biases: $b_m$ of every modality, shape (D_m,).
        sigma: The standard deviation σ of the noise.

    Raises:
        VaekitError: Shapes do not fit together, or σ is not above 0.

    Examples:
        >>> p = LinearGaussian([torch.ones(1, 1), torch.ones(2, 1)], [torch.zeros(1), torch.zeros(2)])
        >>> p.posterior([torch.tensor([3.0]), torch.zeros(2)], [0]).mean.tolist()
        [1.5]
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], sigma: float = 1.0) -> None:
        self.weights = [weight.double() for weight in weights]
        self.biases = [bias.double() for bias in biases]
        self.sigma = sigma
        shapes = {(tuple(bias.shape), weight.shape[1:]) for weight, bias in zip(weights, biases, strict=True)}
        if shapes != {((len(weight),), weights[0].shape[1:]) for weight in weights}:
            raise VaekitError("weights must be of shapes (D_m, L) and biases of shapes (D_m,), with one L for all")
        if not sigma > 0:
            raise VaekitError(f"sigma must be above 0, not {sigma:g}")

    def __repr__(self) -> str:
        return f"LinearGaussian({self.latent_dim} latent, {' + '.join(map(str, self.sizes))} observed dimensions)"

    # ---- making one ----------------------------------------------------------------------------------------------

    @classmethod
    def benchmark(cls, seed: int | np.random.Generator = 0, *, sparse: bool = False) -> LinearGaussian:
        """Return a model of the linear-Gaussian benchmark: five modalities of 30 to 59 dimensions, σ = 1.

        Every $W_m$ has orthonormal columns, so that every posterior has independent dimensions. Dense: all five latents
        are shared. Sparse: five private latents for each modality come first, then five shared ones, 30 in all.

        References:
            Learning multi-modal generative models with permutation-invariant encoders and tighter variational
            objectives, Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

        Arguments:
            seed: Seed, or a generator, whose next draws are then those of the data (`sample`).
            sparse: Whether there are private latents.

        Examples:
            >>> LinearGaussian.benchmark(0)
            LinearGaussian(5 latent, 55 + 49 + 45 + 38 + 39 observed dimensions)
        """
        random, count, base = np.random.default_rng(seed), 5, 5
        weights, biases = [], []
        for number, size in enumerate(random.integers(30, 60, size=count)):
            columns, _ = np.linalg.qr(random.uniform(-1.0, 1.0, (size, 2 * base if sparse else base)))
            weight = columns
            if sparse:
                weight = np.zeros((size, base * (count + 1)))
                weight[:, base * number : base * (number + 1)] = columns[:, :base]
                weight[:, base * count :] = columns[:, base:]
            weights.append(torch.from_numpy(weight))
            biases.append(torch.from_numpy(random.normal(size=size)))
        return cls(weights, biases)

    @classmethod
    def from_moments(
        cls, mean: Tensor, covariance: Tensor, sizes: Sequence[int], latent_dim: int, sigma: float = 1.0
    ) -> LinearGaussian:
        r"""Return the model nearest to data of these moments, $W=U_L(\Lambda_L-\sigma^2I)_+^{1/2}$ and $b$ the mean.

        Nearest in $\mathrm{KL}(\text{data}\,\|\,p)$: probabilistic PCA with fixed noise.

        References:
            Probabilistic Principal Component Analysis, Tipping and Bishop, 1999, Journal of the Royal Statistical
            Society B 61(3), 611-622.

        Arguments:
            mean: The mean of all modalities, one after the other, shape (D,).
            covariance: Their covariance, shape (D, D).
            sizes: The numbers D_m of dimensions.
            latent_dim: The number L of latent dimensions.
            sigma: The standard deviation σ of the noise, which is not fitted.

        Examples:
            >>> p = LinearGaussian.from_moments(torch.zeros(2), torch.diag(torch.tensor([5.0, 0.5])), [1, 1], 1)
            >>> [abs(weight.item()) for weight in p.weights]
            [2.0, 0.0]
        """
        values, vectors = torch.linalg.eigh(covariance.double())
        signal = (values[-latent_dim:] - sigma**2).clamp_min(0.0)
        weight = vectors[:, -latent_dim:] * signal.sqrt()
        return cls(weight.split(list(sizes)), mean.split(list(sizes)), sigma)

    @classmethod
    def maximum_likelihood(
        cls, x: Sequence[Tensor] | Mapping[str, Tensor], latent_dim: int, sigma: float = 1.0
    ) -> LinearGaussian:
        """Return the model of greatest likelihood for data of N samples: see `from_moments`.

        Arguments:
            x: The data, one tensor (N, D_m) for each modality.
            latent_dim: The number L of latent dimensions.
            sigma: The standard deviation σ of the noise, which is not fitted.
        """
        parts = _parts(x)
        joined = torch.cat(parts, -1)
        covariance = torch.cov(joined.T, correction=0)
        return cls.from_moments(joined.mean(0), covariance, [part.shape[-1] for part in parts], latent_dim, sigma)

    # ---- what is known of it -------------------------------------------------------------------------------------

    @property
    def latent_dim(self) -> int:
        """The number L of latent dimensions."""
        return self.weights[0].shape[1]

    @property
    def sizes(self) -> list[int]:
        """The number D_m of dimensions of every modality."""
        return [len(bias) for bias in self.biases]

    def marginal(self, subset: Sequence[int] | None = None) -> LowRankMultivariateNormal:
        """Return p(x_S), the modalities of S one after the other: `event_shape (D_S,)`."""
        weight, bias = self._stacked(subset)
        noise = torch.full_like(bias, self.sigma**2)
        return LowRankMultivariateNormal(bias, weight, noise, validate_args=False)

    def posterior(
        self, x: Sequence[Tensor] | Mapping[str, Tensor], subset: Sequence[int] | None = None
    ) -> MultivariateNormal:
        """Return p(z|x_S): `batch_shape (...)`, `event_shape (L,)`.

        Arguments:
            x: The data, one tensor (..., D_m) for each modality.
            subset: The modalities S that are given; all where `None`.
        """
        weight, bias = self._stacked(subset)
        precision = torch.eye(self.latent_dim, dtype=weight.dtype) + weight.T @ weight / self.sigma**2
        natural = (self._joined(x, subset) - bias) @ weight / self.sigma**2
        mean = torch.linalg.solve(precision, natural.unsqueeze(-1)).squeeze(-1)
        return MultivariateNormal(mean, precision_matrix=precision, validate_args=False)

    def log_prob(
        self,
        x: Sequence[Tensor] | Mapping[str, Tensor],
        subset: Sequence[int] | None = None,
        given: Sequence[int] = (),
    ) -> Tensor:
        r"""Return $\log p(x_S\mid x_G)$ in nats, shape (...).

        Arguments:
            x: The data, one tensor (..., D_m) for each modality.
            subset: The modalities S; all that are not given where `None`.
            given: The modalities G that are given, none of them in S; none by default.

        Examples:
            >>> p = LinearGaussian([torch.ones(1, 1), torch.ones(1, 1)], [torch.zeros(1), torch.zeros(1)])
            >>> x = [torch.tensor([1.0]), torch.tensor([2.0])]
            >>> bool(torch.isclose(p.log_prob(x, [0]) + p.log_prob(x, given=[0]), p.log_prob(x)))
            True
        """
        if subset is None:
            subset = [number for number in range(len(self.weights)) if number not in given]
        both = [*subset, *given]
        log_prob: Tensor = self.marginal(both).log_prob(self._joined(x, both))
        if given:
            log_prob = log_prob - self.marginal(given).log_prob(self._joined(x, given))
        return log_prob

    def entropy(self, subset: Sequence[int] | None = None) -> Tensor:
        """Return the entropy of x_S in nats: the best that any model's mean of -log p(x_S) can come to."""
        return self.marginal(subset).entropy()

    def sample(self, count: int, random: np.random.Generator) -> list[Tensor]:
        """Return `count` draws, one tensor (count, D_m) for each modality.

        Arguments:
            count: How many.
            random: Where they come from: the latents first, then the noise of each modality.
        """
        z = torch.from_numpy(random.normal(size=(count, self.latent_dim)))
        return [
            z @ weight.T + bias + self.sigma * torch.from_numpy(random.normal(size=(count, len(bias))))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]

    def signal(self) -> Tensor:
        r"""Return the eigenvalues of $WW^\top$ that can be above 0, the largest first, shape (L,).

        They say how much each latent direction explains, whichever way the latents are turned. A direction that the
        model does not use has 0.
        """
        weight, _ = self._stacked(None)
        return torch.linalg.eigvalsh(weight.T @ weight).flip(0)

    def _stacked(self, subset: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        chosen = range(len(self.weights)) if subset is None else subset
        empty = self.weights[0][:0]
        weight = torch.cat([empty, *(self.weights[number] for number in chosen)])
        return weight, torch.cat([empty[:, 0], *(self.biases[number] for number in chosen)])

    def _joined(self, x: Sequence[Tensor] | Mapping[str, Tensor], subset: Sequence[int] | None) -> Tensor:
        parts = _parts(x)
        chosen = range(len(parts)) if subset is None else subset
        return torch.cat([parts[0][..., :0], *(parts[number] for number in chosen)], -1)


def _parts(x: Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
    return [part.double() for part in (x.values() if isinstance(x, Mapping) else x)]
