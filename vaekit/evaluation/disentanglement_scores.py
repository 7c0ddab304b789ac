r"""How well single codes stand for single factors: mutual information gap, attribute predictability and DCI.

Codes $z$ of shape (N, D) are what a model says of N samples, factors $v$ of shape (N, K) the integers that the samples
were made from. A factor with one value says nothing and is refused. A code that never changes knows nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError

__all__ = ["DCI", "as_tables", "dci", "mig", "mutual_information", "sap"]


def as_tables(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes (N, D) in float64 and factors (N, K) with their values numbered from 0, both on the CPU.

    Raises:
        VaekitError: They are not two tables of one length of two or more, a code is not finite, or a factor has one
            value.
    """
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < 2:
        raise VaekitError(
            f"codes of shape {tuple(codes.shape)} and factors of shape {tuple(factors.shape)} do not belong together: "
            "give codes (N, D) and factors (N, K) of two samples or more"
        )
    if not codes.isfinite().all():
        raise VaekitError("some codes are not finite: look at the model that made them")
    numbered = torch.stack([column.unique(return_inverse=True)[1] for column in factors.cpu().unbind(1)], 1)
    if len(constant := (numbered.amax(0) == 0).nonzero()):
        raise VaekitError(f"factor {int(constant[0])} has the same value in all samples: leave it out")
    return codes.detach().double().cpu(), numbered


def mutual_information(codes: Tensor, factors: Tensor, bins: int = 20) -> Tensor:
    r"""Return the mutual information of every code and every factor in nats, shape (D, K).

    It is that of counts: each code falls into bins of equal width between its smallest and its largest value. Counts
    of few samples overstate it, by about $(B-1)(V-1)/2N$ nats for B bins and V values that have nothing in common.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K).
        bins: How many bins.

    Raises:
        VaekitError: As `as_tables`.

    Examples:
        >>> v = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> (mutual_information(v[:, :1], v) / math.log(2)).tolist()
        [[1.0, 0.0]]
    """
    z, v = as_tables(codes, factors)
    low, high = z.aminmax(dim=0)
    width = (high - low).clamp(min=torch.finfo(z.dtype).tiny)
    cells = ((z - low) / width * bins).long().clamp(max=bins - 1) + bins * torch.arange(z.shape[1])
    columns = []
    for factor in v.unbind(1):
        values = int(factor.max()) + 1
        counts = torch.bincount((cells * values + factor.unsqueeze(1)).flatten(), minlength=z.shape[1] * bins * values)
        joint = counts.view(-1, bins, values).double() / len(z)
        columns.append(_entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1)))
    return torch.stack(columns, 1).clamp(min=0.0)


def mig(codes: Tensor, factors: Tensor, bins: int = 20) -> Tensor:
    r"""Return the mutual information gap of each factor, shape (K,), from 0 to 1; its mean is the MIG.

    $$\mathrm{MIG}_k=\frac{I(z_{(1)};v_k)-I(z_{(2)};v_k)}{H(v_k)},$$

    where $z_{(1)}$ and $z_{(2)}$ are the two codes that say most about factor k. The mutual information is
    `mutual_information`, that of codes in bins. Chen et al. take that of draws from the posterior instead, which is
    lower: figures of the two kinds do not compare. A factor of more values than bins cannot reach 1.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse and Duvenaud, 2018,
        arXiv 1802.04942. Codes in 20 bins: Challenging Common Assumptions in the Unsupervised Learning of Disentangled
        Representations, Locatello et al., 2018, arXiv 1811.12359.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K).
        bins: How many bins.

    Raises:
        VaekitError: As `as_tables`.

    Examples:
        >>> v = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> mig(v, v).tolist(), mig(v[:, [0, 0]], v).tolist()
        ([1.0, 1.0], [0.0, 0.0])
    """
    _, v = as_tables(codes, factors)
    entropy = torch.stack([_entropy(column.bincount()[None] / len(v))[0] for column in v.unbind(1)])
    return _gap(mutual_information(codes, factors, bins)) / entropy


def sap(codes: Tensor, factors: Tensor) -> Tensor:
    r"""Return the separated attribute predictability of each factor, shape (K,); its mean is the SAP score.

    It is the difference between the two codes that predict the factor best, each on its own. What is compared is the
    balanced accuracy of a classifier by thresholds, one fewer than the factor has values: a tree of so many leaves on
    classes of equal weight, judged on the samples that it was fitted to, as published for categorical factors. Guessing
    has the balanced accuracy 1/V for V values, so that a perfect code beside independent ones has $1-1/V$.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, Kumar, Sattigeri and
        Balakrishnan, 2018, arXiv 1711.00848.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K).

    Raises:
        VaekitError: As `as_tables`.

    Examples:
        >>> v = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> sap(v, v).tolist(), sap(v[:, [0, 0]], v).tolist()
        ([0.5, 0.5], [0.0, 0.0])
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    z, v = as_tables(codes, factors)
    scores = torch.zeros(z.shape[1], v.shape[1], dtype=torch.float64)
    for k, factor in enumerate(v.numpy().T):
        tree = DecisionTreeClassifier(max_leaf_nodes=int(factor.max()) + 1, class_weight="balanced", random_state=0)
        for d, code in enumerate(z.numpy().T):
            if code.min() < code.max():
                column = code[:, None]
                scores[d, k] = balanced_accuracy_score(factor, tree.fit(column, factor).predict(column))
    return _gap(scores)


@dataclass(frozen=True, eq=False)
class DCI:
    r"""What predictors of the factors say of the codes.

    Arguments:
        importance: How much predictor k relies on code d, shape (D, K), not negative.
        informativeness: The accuracy of each predictor on samples that it was not fitted to, shape (K,).

    Examples:
        >>> found = DCI(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.ones(2))
        >>> round(found.disentanglement, 4), found.completeness.tolist()
        (0.3333, [1.0, 0.0])
    """

    importance: Tensor
    informativeness: Tensor

    @property
    def disentanglement(self) -> float:
        r"""Whether each code serves one factor.

        $\sum_d\rho_d\,(1-H_K(P_d))$ with the entropy, to base K, of $P_{dk}=R_{dk}/\sum_kR_{dk}$, and the share
        $\rho_d$ of code d in all importance R.
        """
        weight = self.importance.sum(1)
        return float((weight * _concentration(self.importance, 1)).sum() / weight.sum().clamp(min=1e-300))

    @property
    def completeness(self) -> Tensor:
        r"""Whether each factor is served by one code, shape (K,).

        $1-H_D(P_k)$ with the entropy, to base D, of $P_{dk}=R_{dk}/\sum_dR_{dk}$.
        """
        return _concentration(self.importance, 0)


def dci(codes: Tensor, factors: Tensor, *, seed: int = 0, progress: Progress | None = None) -> DCI:
    """Return importance and accuracy of predictors of each factor from all codes.

    Predictors are gradient-boosted trees with the defaults of scikit-learn (100 rounds of trees of depth 3, one tree a
    value), as in Locatello et al., fitted to two thirds of the samples and judged on the rest. The importance is the
    mean decrease of impurity. Eastwood and Williams take lasso or random forests, and the error in place of the
    accuracy.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations, Eastwood and Williams, 2018, ICLR;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, Locatello et al.,
        2018, arXiv 1811.12359.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K).
        seed: Seed of the choice of samples to fit to.
        progress: Called as `progress(done, total, what)` after every predictor.

    Raises:
        VaekitError: As `as_tables`, or a factor has one value in the samples to fit to.

    Examples:
        >>> v = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(20, 1)
        >>> found = dci(v, v)
        >>> round(found.disentanglement, 6), found.informativeness.tolist()
        (1.0, [1.0, 1.0])
    """
    from sklearn.ensemble import GradientBoostingClassifier

    z, v = as_tables(codes, factors)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    fitted, judged = (index.numpy() for index in order.tensor_split([2 * len(z) // 3]))
    importance, accuracy = torch.zeros(z.shape[1], v.shape[1], dtype=torch.float64), []
    for k, factor in enumerate(v.numpy().T):
        if (factor[fitted] == factor[fitted][0]).all():
            raise VaekitError(f"factor {k} has one value in the samples that are fitted to: take more samples")
        predictor = GradientBoostingClassifier(random_state=0).fit(z.numpy()[fitted], factor[fitted])
        importance[:, k] = torch.from_numpy(predictor.feature_importances_)
        accuracy.append(float(predictor.score(z.numpy()[judged], factor[judged])))
        if progress is not None:
            progress(k + 1, v.shape[1], "disentanglement: predictors of factors")
    return DCI(importance, torch.tensor(accuracy, dtype=torch.float64))


def _entropy(shares: Tensor) -> Tensor:
    return torch.special.entr(shares.double()).sum(1)


def _gap(scores: Tensor) -> Tensor:
    """Return the largest less the second largest of scores (D, K), none of them negative; 0 is second to one alone."""
    first, second = torch.cat([scores, torch.zeros_like(scores[:1])]).topk(2, 0).values
    return first - second


def _concentration(importance: Tensor, dim: int) -> Tensor:
    """Return 1 less the normalised entropy along a dimension; 0 where there is no importance at all."""
    total = importance.sum(dim, keepdim=True)
    entropy = torch.special.entr(importance / total.clamp(min=1e-300)).sum(dim)
    # Of a single one the entropy is 0, and so is the logarithm.
    return torch.where(total.squeeze(dim) > 0, 1.0 - entropy / math.log(max(importance.shape[dim], 2)), 0.0)
