"""Fréchet and kernel distance, precision and recall, inception score, sharpness: from features alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaekit import VaekitError
from vaekit.evaluation import frechet_distance, sharpness
from vaekit.evaluation.fidelity import class_score, kernel_distance, precision_and_recall


def test_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(1)
    rows = torch.randn(2000, 2, dtype=torch.float64)
    rows = (rows - rows.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T  # exactly N(0, I)
    other = rows * torch.tensor([2.0, 3.0]) + torch.tensor([1.0, -1.0])
    assert frechet_distance(rows, other) == pytest.approx(2.0 + 1.0 + 4.0, rel=1e-9)
    assert frechet_distance(other, rows) == pytest.approx(7.0, rel=1e-9)
    assert abs(frechet_distance(other, other)) < 1e-3


def test_moments_are_streamed_without_cancellation() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics

    from vaekit.evaluation.fidelity import _statistics

    rows = 1e4 + torch.randn(1301, 5)  # three parts, the last of them short; far from the origin
    expected, found = fid_features_to_statistics(rows.double()), _statistics(rows)
    for name in ("mu", "sigma"):
        torch.testing.assert_close(torch.from_numpy(found[name]), torch.from_numpy(expected[name]), rtol=1e-9, atol=0)


def test_kernel_distance_of_a_known_shift() -> None:
    """With subsets that are the whole sets it is the unbiased estimate, in closed form."""
    a, b = torch.randn(60, 3), 0.5 + torch.randn(60, 3)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / 3 + 1) ** 3

    def within(x: torch.Tensor) -> torch.Tensor:
        return (kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (60 * 59)

    expected = within(a) + within(b) - 2 * kernel(a, b).mean()
    found = kernel_distance(a, b)
    assert found["mean"] == pytest.approx(float(expected), rel=1e-4)
    assert found["std"] == pytest.approx(0.0, abs=1e-5)
    assert kernel_distance(a, b, subset_size=20)["std"] > 1e-3


def test_precision_and_recall_of_sets_on_a_line() -> None:
    """Real ones 0, 1, ..., 9 reach as far as their third neighbour: 2 inside the line, 3 at its ends."""
    real = torch.arange(10.0).unsqueeze(1)
    near, far = torch.tensor([[4.45], [4.5], [4.55], [4.6]]), torch.tensor([[50.0], [50.1], [50.2], [50.3]])
    found = precision_and_recall(near, real)
    assert found["precision"] == 1.0
    assert found["recall"] == 0.0
    found = precision_and_recall(torch.cat([real + 0.01, far]), real)
    assert found["precision"] == pytest.approx(10 / 14)
    assert found["recall"] == 1.0
    assert found["f_score"] == pytest.approx(2 * 10 / 24)


@pytest.mark.parametrize("count", [37, 1100])
def test_figures_are_those_of_torch_fidelity(count: int) -> None:
    """However small the parts are that they are computed in."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    generated, real, logits = torch.randn(count, 8), 0.3 + torch.randn(count + 5, 8), 3 * torch.randn(count, 7)
    expected = prc_features_to_metric(generated, real, verbose=False)
    assert precision_and_recall(generated, real) == pytest.approx(expected)
    expected = isc_features_to_metric(logits)
    assert class_score(logits) == pytest.approx(
        {"mean": expected["inception_score_mean"], "std": expected["inception_score_std"]}, rel=1e-9
    )


def test_inception_score_of_sure_and_unsure_classifiers() -> None:
    order = torch.randperm(4000)
    sure = 100.0 * torch.eye(4).repeat(1000, 1)[order]
    assert class_score(sure)["mean"] == pytest.approx(4.0, rel=0.01)
    assert class_score(torch.zeros(100, 4)) == pytest.approx({"mean": 1.0, "std": 0.0})


def test_too_few_rows_and_other_features_are_refused() -> None:
    with pytest.raises(VaekitError, match=r"equally many features, not \(4, 2\) and \(4, 3\)"):
        frechet_distance(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(VaekitError, match="Fréchet distance, each set needs 2 or more rows"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(4, 2))
    with pytest.raises(VaekitError, match="kernel distance, each set needs 2 or more rows"):
        kernel_distance(torch.zeros(4, 2), torch.zeros(1, 2))
    with pytest.raises(VaekitError, match="precision and recall, each set needs 4 or more rows"):
        precision_and_recall(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(VaekitError, match="inception score, each set needs 10 or more rows"):
        class_score(torch.zeros(9, 2))


def test_sharpness_falls_when_an_image_is_blurred() -> None:
    images = torch.rand(4, 1, 16, 16)
    blurred = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert (sharpness(blurred) < sharpness(images)).all()
    impulse = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    impulse[..., 2, 2] = 1.0
    assert sharpness(impulse).item() == pytest.approx(20 / 9, abs=1e-12)
