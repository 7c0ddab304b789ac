"""A penalty on the size of the codes."""

from __future__ import annotations

from torch import Tensor

from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer

__all__ = ["CodeNorm"]


@regularizers.register(
    "code_norm",
    about="Half the squared length of the code: keeps an autoencoder's latents near the origin",
    source="Ghosh et al., From Variational to Deterministic Autoencoders, 2019, arXiv 1903.12436",
)
class CodeNorm(Regularizer):
    r"""$\frac1B\sum_i\frac12\,\mathbb E_{q_i}\lVert z\rVert^2$, which is what -log N(z; 0, I) sees of z.

    For the posterior `delta` it is the term of a regularised autoencoder. No entropy balances it: it is no bound.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black and Schölkopf, 2019,
        arXiv 1903.12436.

    Arguments:
        weight: A number or a schedule.

    Examples:
        >>> CodeNorm(weight=0.1)
        CodeNorm(weight=0.1)
    """

    def forward(self, latents: Latents) -> Tensor:
        """Return the batch mean."""
        return 0.5 * latents.expect(latents.z.square().sum(-1)).mean()
