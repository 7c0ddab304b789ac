"""What the latent representation is good for: neighbours of one class, neurons in use, sparse firing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.errors import VaekitError
from vaekit.evaluation.information import kl_by_dimension
from vaekit.models.vae import VAE

__all__ = ["active_neurons", "knn_accuracy", "lifetime_sparsity", "representation"]


@torch.no_grad()
def representation(model: VAE, batches: Iterable[Tensor]) -> Tensor:
    r"""Return one feature vector per sample, shape (N, D): what the posterior's head says, without a draw.

    The log-rates of a Poisson posterior (distances between them are those of $\log\delta r$), the logits of a
    categorical one, the mean of any other.

    Arguments:
        model: The model, in evaluation mode.
        batches: Batches (B, *X) on the model's device.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("vae")), (1, 8, 8)).eval()
        >>> representation(model, [torch.rand(4, 1, 8, 8), torch.rand(2, 1, 8, 8)]).shape
        torch.Size([6, 16])
    """
    return torch.cat([_features(model.encode(x)) for x in batches])


def _features(q: Distribution) -> Tensor:
    own = q.base_dist if isinstance(q, Independent) else q
    for name in ("log_rate", "logits"):
        if isinstance(found := getattr(own, name, None), Tensor) and found[0].numel() == q.event_shape.numel():
            return found.flatten(1)
    return q.mean


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, neighbours: int = 5) -> float:
    """Return the share of test samples whose class is that of most of their nearest training samples (Euclidean).

    Arguments:
        train: Features (N, D) of training samples.
        train_labels: Their classes (N,).
        test: Features (M, D) of test samples.
        test_labels: Their classes (M,).
        neighbours: How many neighbours vote, all with the same weight.

    Raises:
        VaekitError: There are fewer training samples than neighbours.

    Examples:
        >>> x, y = torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([0, 0, 1, 1])
        >>> knn_accuracy(x, y, torch.tensor([[0.5], [9.5], [2.0]]), torch.tensor([0, 1, 1]), neighbours=1)
        0.6666666666666666
    """
    from sklearn.neighbors import KNeighborsClassifier

    if not 1 <= neighbours <= len(train):
        raise VaekitError(f"{neighbours} neighbours cannot vote among {len(train)} training samples")
    classifier = KNeighborsClassifier(neighbours).fit(train.cpu().numpy(), train_labels.cpu().numpy())
    return float(classifier.score(test.cpu().numpy(), test_labels.cpu().numpy()))


@torch.no_grad()
def active_neurons(model: VAE, batches: Iterable[Tensor], threshold: float = 0.01) -> float:
    r"""Return the share of latent dimensions whose KL to the prior, averaged over samples, exceeds a threshold in nats.

    Arguments:
        model: The model, in evaluation mode; posterior and prior have independent dimensions and a closed-form KL.
        batches: Batches (B, *X) on the model's device.
        threshold: The threshold.

    Raises:
        VaekitError: There is no batch, or no KL of single dimensions in closed form.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("vae")), (1, 8, 8)).eval()
        >>> active_neurons(model, [torch.rand(4, 1, 8, 8)], threshold=100.0)
        0.0
    """
    total, count = torch.zeros(()), 0
    for x in batches:
        kl = kl_by_dimension(model.encode(x), model.prior())
        total, count = total.to(kl.device) + kl.sum(0), count + len(x)
    if count == 0:
        raise VaekitError("active neurons need at least one batch")
    return float((total / count > threshold).double().mean())


def lifetime_sparsity(responses: Tensor) -> Tensor:
    r"""Return how rarely each latent dimension responds over N samples, shape (D,), between 0 and 1.

    $$s_d=\frac{1-\bigl(\sum_nz_{nd}\bigr)^2/\bigl(N\sum_nz_{nd}^2\bigr)}{1-1/N},$$

    which is 0 for equal responses to all samples and 1 for a response to a single one; a silent dimension has 1 as
    well. The transposed responses give population sparsity.

    References:
        Sparse Coding and Decorrelation in Primary Visual Cortex During Natural Vision, Vinje and Gallant, 2000,
        Science 287.

    Arguments:
        responses: Responses z that are not negative, such as counts or rates, shape (N, D).

    Raises:
        VaekitError: There are fewer than two samples.

    Examples:
        >>> lifetime_sparsity(torch.tensor([[0.0, 1.0], [0.0, 1.0], [4.0, 1.0]]))
        tensor([1., 0.], dtype=torch.float64)
    """
    if len(responses) < 2:
        raise VaekitError(f"lifetime sparsity needs 2 samples or more, not {len(responses)}")
    z, count = responses.double(), len(responses)
    power = z.square().sum(0)
    heard = torch.where(power > 0, z.sum(0).square() / power, 1.0)  # in effect, how many samples are responded to
    return (1.0 - heard / count) / (1.0 - 1.0 / count)
