"""Networks whose output is an invertible map: the transforms of normalising flows. The one module that imports zuko."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, Transform
from torch.distributions.transforms import _InverseTransform

from vaekit.backbones.layers import require_layers, require_positive
from vaekit.errors import VaekitError

__all__ = ["Autoregressive", "shifted"]

# zuko switches the validation of all distributions off when it is imported, takes away the warning about distributions
# without constraints and renames a class of torch's. Whoever imports vaekit has not asked for that.
_before = (vars(Distribution)["_validate_args"], vars(Distribution)["arg_constraints"], _InverseTransform.__name__)
import zuko  # noqa: E402

Distribution._validate_args, Distribution.arg_constraints, _InverseTransform.__name__ = _before  # type: ignore[method-assign]


class Autoregressive(nn.Module):
    r"""A chain of autoregressive transforms $y_i=f(x_i;\,x_{<i},c)$, every other one in the reverse order.

    The parameters of f come from a masked network, in one pass. `affine` is $f(x)=e^{a}x+b$; `spline` is a monotonic
    rational-quadratic spline on [-5, 5] and the identity elsewhere.

    The dimensions are taken in `passes` blocks, and a dimension sees those of earlier blocks. Going backwards takes
    as many passes. There are at most as many blocks as hidden units, since each unit sees what one block may see.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv 1606.04934.
        Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou and Murray, 2017, arXiv 1705.07057.
        Neural Spline Flows, Durkan, Bekasov, Murray and Papamakarios, 2019, arXiv 1906.04032.

    Arguments:
        dimensions: The number D of dimensions.
        context: The number of features that the transform depends on; 0 for none.
        univariate: `"affine"` or `"spline"`.
        transforms: The number of transforms in the chain.
        hidden: The widths of the hidden layers of each network.
        bins: The number of bins of a spline.
        coupling: Whether there are two blocks (a coupling), and not as many as there can be.

    Raises:
        VaekitError: An option is not positive, or there is no hidden layer.

    Examples:
        >>> transform = Autoregressive(3, context=8)(torch.randn(5, 8))
        >>> transform(torch.randn(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dimensions: int,
        context: int = 0,
        *,
        univariate: Literal["affine", "spline"] = "affine",
        transforms: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
        coupling: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            raise VaekitError("hidden of a flow is empty: give its networks one hidden layer or more, such as [64, 64]")
        require_layers("a flow", transforms=transforms)
        require_positive("a flow", bins=bins, **{f"hidden[{i}]": n for i, n in enumerate(hidden)})
        if bins < 2:
            raise VaekitError(f"bins = {bins} of a flow is not valid: a spline needs 2 or more")
        self._words = f"{dimensions}, context={context}, univariate={univariate!r}, transforms={transforms}"
        passes = 2 if coupling else min(dimensions, *hidden)
        options = {"passes": passes, "hidden_features": hidden, "activation": nn.ELU}
        if univariate == "spline":
            options |= {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        self.chain = zuko.flows.MAF(dimensions, context, transforms=transforms, **options).transform
        if dimensions == 1 and not context:
            # Without a network zuko begins at standard normal parameters, with a density of narrow peaks.
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(0.1)

    def forward(self, context: Tensor | None = None) -> Transform:
        """Return the transform for a context (..., context); it maps (..., D) to (..., D)."""
        transform: Transform = self.chain(context)
        return transform

    def __repr__(self) -> str:
        # The layers' own representation would draw random numbers.
        return f"{type(self).__name__}({self._words})"


def shifted(loc: Tensor, scale: Tensor, transform: Transform) -> Transform:
    r"""Return the transform of $\mu+\sigma x$.

    Arguments:
        loc: The shift μ, shape (..., D).
        scale: The scale σ, shape (..., D), positive.
        transform: What comes after.
    """
    composed: Transform = zuko.transforms.ComposedTransform(AffineTransform(loc, scale, event_dim=1), transform)
    return composed
