"""Scores of codes against known factors: values worked out by hand, the published edge cases, and the metric."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from helpers import built, tiny
from torch import Tensor

from vaekit.data import Dataset, Split, load
from vaekit.errors import VaekitError
from vaekit.evaluation import disentanglement as module
from vaekit.evaluation.disentanglement import disentanglement
from vaekit.evaluation.disentanglement_scores import DCI, dci, mig, mutual_information, sap
from vaekit.evaluation.factor_votes import beta_vae_score, factor_vae_score
from vaekit.evaluation.protocol import Options

pytestmark = pytest.mark.usefixtures("float64")


def grid(*sizes: int, times: int = 1) -> Tensor:
    """Every combination of factors of these sizes."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes)).repeat(times, 1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def turned(v: Tensor) -> Tensor:
    """Two codes that are each a mixture of both factors."""
    return torch.stack([v[:, 0] + v[:, 1], v[:, 0] - v[:, 1]], 1)


# ---- mutual information ----------------------------------------------------------------------------------------------


def test_mutual_information_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import mutual_info_score

    z, v = noise(500, 3), torch.randint(0, 6, (500, 2), generator=torch.Generator().manual_seed(1))
    z[:, 0] += v[:, 0]
    found = mutual_information(z, v, bins=13)
    for d in range(3):
        edges = np.histogram(z[:, d].numpy(), 13)[1]
        cells = np.digitize(z[:, d].numpy(), edges[1:-1])
        for k in range(2):
            assert found[d, k].item() == pytest.approx(mutual_info_score(cells, v[:, k].numpy()), abs=1e-12)


def test_mutual_information_is_biased_as_documented() -> None:
    v = torch.randint(0, 8, (2000, 1), generator=torch.Generator().manual_seed(2))
    z = torch.rand(2000, 50, generator=torch.Generator().manual_seed(3))
    assert mutual_information(z, v).mean().item() == pytest.approx(19 * 7 / 4000, rel=0.05)


NOISY = torch.tensor([[0], [0], [0], [1], [1], [1], [1], [0]])
HALVES = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 1]])
QUARTER = 0.25 * math.log2(0.25) + 0.75 * math.log2(0.75) + 1.0  # bits that a code tells that errs in a quarter

SQUARE = grid(2, 2)


@pytest.mark.parametrize(
    ("codes", "factors", "expected"),
    [
        (grid(3, 4, 5), grid(3, 4, 5), [1.0, 1.0, 1.0]),
        (SQUARE[:, [0, 0, 1, 1]], SQUARE, [0.0, 0.0]),
        (SQUARE[:, [0, 1, 1]], SQUARE, [1.0, 0.0]),
        (SQUARE[:, :1], SQUARE, [1.0, 0.0]),
        (torch.zeros(4, 3), SQUARE, [0.0, 0.0]),
        # One code of both factors, one of the second.
        (torch.stack([2 * SQUARE[:, 0] + SQUARE[:, 1], SQUARE[:, 1]], 1), SQUARE, [1.0, 0.0]),
        # Each of the turned codes tells half a bit of each factor.
        (turned(SQUARE), SQUARE, [0.0, 0.0]),
        (turned(SQUARE)[:, :1], SQUARE, [0.5, 0.5]),
        (NOISY, HALVES, [QUARTER, 0.0]),
        # Two values share a bin.
        (grid(40), grid(40), [math.log(20) / math.log(40)]),
    ],
)
def test_gaps_by_hand(codes: Tensor, factors: Tensor, expected: list[float]) -> None:
    assert mig(codes, factors).tolist() == pytest.approx(expected, abs=1e-12)


def test_more_bins_take_more_values() -> None:
    assert mig(grid(40), grid(40), bins=40).tolist() == pytest.approx([1.0])
    # Values of a factor are names: other numbers, in another order, are the same factor.
    renamed = torch.tensor([7, -3, 100])[SQUARE[:, :1]]
    assert mig(SQUARE, torch.cat([renamed, SQUARE], 1)).tolist() == [1.0, 1.0, 1.0]


# ---- attribute predictability ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "factors", "expected"),
    [
        # Beside an independent code, which is right once in V times; beside none, or a dead one.
        (grid(3, 4, 5), grid(3, 4, 5), [2 / 3, 3 / 4, 4 / 5]),
        (grid(5), grid(5), [1.0]),
        (torch.cat([grid(5), torch.ones(5, 2)], 1), grid(5), [1.0]),
        (SQUARE[:, [0, 0, 1]], SQUARE, [0.0, 0.5]),
        (torch.zeros(4, 2), SQUARE, [0.0, 0.0]),
        (NOISY, HALVES[:, :1], [0.75]),
        (torch.cat([NOISY, HALVES[:, :1]], 1), HALVES[:, :1], [0.25]),
        # Classes have equal weight: two of three right for one value, all for the other.
        (torch.tensor([[0], [0], [1], [1]]), torch.tensor([[0], [0], [0], [1]]), [5 / 6]),
        # Values need not be in order, and those of the middle are told as well.
        (torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]]), torch.tensor([[1], [1], [2], [2], [0], [0]]), [1.0]),
        # Two values by turns cannot be told by one threshold.
        (grid(4), grid(4) % 2, [0.75]),
    ],
)
def test_predictability_by_hand(codes: Tensor, factors: Tensor, expected: list[float]) -> None:
    assert sap(codes, factors).tolist() == pytest.approx(expected)


# ---- DCI -------------------------------------------------------------------------------------------------------------


def formula(importance: list[list[float]] | Tensor) -> tuple[float, list[float]]:
    found = DCI(torch.as_tensor(importance), torch.ones(1))
    return found.disentanglement, found.completeness.tolist()


def test_formulas_by_hand() -> None:
    eye = 5.0 * torch.eye(5)
    two_of_ten, two_of_three = 1 - math.log(2) / math.log(10), 1 - math.log(2) / math.log(3)
    assert formula(eye) == (1.0, [1.0] * 5)
    # A code that is not used, a factor that is missed, codes given twice, and two factors to a code.
    assert formula([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]) == (1.0, [1.0, 1.0])
    assert formula(eye[:2]) == (1.0, [1.0, 1.0, 0.0, 0.0, 0.0])
    assert formula(torch.cat([eye, eye])) == (1.0, pytest.approx([two_of_ten] * 5))
    assert formula(torch.cat([eye, eye], 1)) == (pytest.approx(two_of_ten), [1.0] * 10)
    assert formula(torch.zeros(4, 3)) == (0.0, [0.0] * 3)
    # Codes weigh as much as they matter: 1 with a third, 0 with two thirds.
    assert formula([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]) == (pytest.approx(1 / 3), pytest.approx([two_of_three, 1.0]))
    assert formula(torch.ones(3, 4)) == (pytest.approx(0.0), pytest.approx([0.0] * 4))
    # A single code, or a single factor, has nothing to be mixed with.
    assert formula([[1.0, 1.0]]) == (pytest.approx(0.0), [1.0, 1.0])
    assert formula([[1.0], [1.0]]) == (1.0, pytest.approx([0.0]))


def test_predictors() -> None:
    v = grid(3, 3, times=30)
    perfect = dci(torch.cat([v, noise(len(v), 2), torch.ones(len(v), 1)], 1), v)
    assert perfect.disentanglement == pytest.approx(1.0)
    assert perfect.completeness.tolist() == pytest.approx([1.0, 1.0])
    assert perfect.informativeness.tolist() == [1.0, 1.0]
    doubled = dci(v[:, [0, 1, 0, 1]] + 1e-9 * noise(len(v), 4), v)
    assert doubled.disentanglement == pytest.approx(1.0)
    assert doubled.importance[[0, 2], 0].sum().item() == pytest.approx(1.0)
    mixed = dci(turned(v), v)
    assert mixed.disentanglement < 0.1
    assert mixed.completeness.max() < 0.1
    assert mixed.informativeness.tolist() == [1.0, 1.0]
    nothing = dci(noise(len(v), 3), v)
    assert nothing.disentanglement < 0.1
    assert nothing.informativeness.max() < 0.5
    dead = dci(torch.zeros(len(v), 2), v)
    assert (dead.disentanglement, dead.completeness.tolist()) == (0.0, [0.0, 0.0])


# ---- votes -----------------------------------------------------------------------------------------------------------


def test_perfect_codes_win_every_vote() -> None:
    for v in (grid(3, 4, 5), grid(2, 3)):
        assert factor_vae_score(v, v) == 1.0
        assert factor_vae_score(torch.cat([v, noise(len(v), 3)], 1), v) == 1.0
        assert beta_vae_score(v, v) == 1.0
    # Twice the same code stands for one factor twice.
    assert factor_vae_score(grid(3, 4)[:, [0, 0, 1]], grid(3, 4)) == 1.0


def test_votes_by_hand() -> None:
    v, every = grid(4, 4), grid(4, 4, 4)
    # One code always wins, and stands for one of two factors.
    assert factor_vae_score(v[:, :1], v) == pytest.approx(0.5, abs=0.02)
    # It wins whenever its factor is fixed, and against another code of its kind in half of the other votes.
    assert factor_vae_score(every[:, [0, 2]], every[:, :2]) == pytest.approx(0.75, abs=0.02)
    # beta-VAE's score does not notice that the second factor has no code.
    assert beta_vae_score(v[:, :1], v) == 1.0
    # Either factor moves turned codes in the same way.
    for score in (factor_vae_score, beta_vae_score):
        assert score(turned(v), v) == pytest.approx(0.5, abs=0.03)


def test_collapsed_codes_take_no_part() -> None:
    v = grid(4, 4).double()
    v[:, 1] *= 0.1  # variance 0.0125
    assert factor_vae_score(v, grid(4, 4)) == pytest.approx(0.5, abs=0.02)
    assert factor_vae_score(v, grid(4, 4), collapsed=0.01) == 1.0
    assert factor_vae_score(torch.cat([v, torch.ones(16, 1)], 1), grid(4, 4), collapsed=0.0) == 1.0
    assert factor_vae_score(0.0 * v, grid(4, 4), collapsed=0.0) == 0.0
    assert beta_vae_score(0.0 * v, grid(4, 4)) == pytest.approx(0.5, abs=0.02)


def test_groups_share_the_value_of_the_factor() -> None:
    from vaekit.evaluation.factor_votes import _Groups

    generator = torch.Generator().manual_seed(0)
    v = torch.stack([torch.randint(0, size, (300,), generator=generator) for size in (2, 7, 50)], 1)
    groups = _Groups(noise(300, 1), v, seed=0)
    factor, sample = groups.draw(2000, 5)
    rows = groups.partners(sample, factor)
    assert torch.equal(v[rows, factor], v[sample, factor])
    # All samples of a value are drawn alike.
    first = v[:, 0] == 0
    drawn = groups.partners(torch.full((1, 100_000), int(first.nonzero()[0])), torch.tensor([[0]]))
    counts = drawn.flatten().bincount(minlength=300)
    assert not counts[~first].any()
    share = 100_000 / int(first.sum())
    assert (counts[first] - share).abs().max() < 5 * math.sqrt(share)


def test_values_that_one_sample_has_are_no_votes() -> None:
    v = torch.cat([grid(3, 3), torch.tensor([[0, 3], [0, 4], [0, 5], [0, 6]])])
    assert factor_vae_score(v, v) == 1.0
    alone = torch.arange(6).unsqueeze(1).repeat(1, 2)
    with pytest.raises(VaekitError, match="no two samples share"):
        factor_vae_score(alone, alone)


# ---- what changes nothing --------------------------------------------------------------------------------------------


def test_order_and_units_change_nothing() -> None:
    v = grid(2, 3, times=20)
    z = torch.cat([v + 0.4 * noise(len(v), 2), noise(len(v), 1)], 1)
    gaps, separated, first = mig(z, v), sap(z, v), dci(z, v)
    votes = {score: score(z, v) for score in (factor_vae_score, beta_vae_score)}
    assert (gaps > 0.1).all()
    others = {
        "codes in another order": (z[:, [2, 0, 1]], v, slice(None)),
        "factors in another order": (z, v[:, [1, 0]], [1, 0]),
        "other units and signs": (z * torch.tensor([8.0, -4.0, 2.0]) + 32.0, v, slice(None)),
    }
    for name, (codes, factors, back) in others.items():
        assert mig(codes, factors)[back].tolist() == pytest.approx(gaps.tolist(), abs=1e-9), name
        assert sap(codes, factors)[back].tolist() == pytest.approx(separated.tolist(), abs=1e-9), name
        second = dci(codes, factors)
        assert second.disentanglement == pytest.approx(first.disentanglement, abs=0.02), name
        assert second.completeness[back].tolist() == pytest.approx(first.completeness.tolist(), abs=0.02), name
        for score, expected in votes.items():
            assert score(codes, factors) == pytest.approx(expected, abs=0.02), name
    shuffled = torch.randperm(len(v), generator=torch.Generator().manual_seed(1))
    assert mig(z[shuffled], v[shuffled]).tolist() == pytest.approx(gaps.tolist())
    assert sap(z[shuffled], v[shuffled]).tolist() == pytest.approx(separated.tolist())


def test_the_seed_decides_the_draws() -> None:
    v = grid(2, 3, times=8)
    z = v + noise(len(v), 2)
    for score in (factor_vae_score, beta_vae_score):
        first, again, other = score(z, v), score(z, v), score(z, v, seed=1)
        assert first == again != other == pytest.approx(first, abs=0.05)
    assert not torch.equal(dci(z, v, seed=1).importance, dci(z, v).importance)


@pytest.mark.parametrize("score", [mig, sap, dci, factor_vae_score, beta_vae_score, mutual_information])
def test_what_is_refused(score: object) -> None:
    v = grid(2, 2)
    for codes, factors, words in (
        (v, torch.cat([v, torch.ones(4, 1, dtype=torch.int64)], 1), "factor 2 has the same value"),
        (v[:3], v, "do not belong together"),
        (v, v[:, 0], "do not belong together"),
        (v[:1], v[:1], "do not belong together"),
        (v / 0.0, v, "not finite"),
    ):
        with pytest.raises(VaekitError, match=words):
            score(codes, factors)  # type: ignore[operator]


def test_one_factor_has_no_votes() -> None:
    for score in (factor_vae_score, beta_vae_score):
        with pytest.raises(VaekitError, match="two factors or more"):
            score(grid(4), grid(4))


def test_a_value_that_predictors_never_see() -> None:
    def judged(seed: int) -> int:
        return int(torch.randperm(3, generator=torch.Generator().manual_seed(seed))[2])

    rare = torch.tensor([[0, 0], [0, 0], [1, 1]])
    with pytest.raises(VaekitError, match="factor 0 has one value in the samples that are fitted to"):
        dci(noise(3, 2), rare, seed=next(seed for seed in range(99) if judged(seed) == 2))


# ---- the metric ------------------------------------------------------------------------------------------------------


def coded(codes: Tensor, factors: Tensor, names: tuple[str, ...]) -> Dataset:
    """Return data whose samples are codes, so that a model that changes nothing has a known answer."""
    split = Split(codes.float(), factors=factors)
    return Dataset("coded", split, split, split, is_image=False, factor_names=names)


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> object:
    """A model whose representation is the sample itself."""
    monkeypatch.setattr(module, "representation", lambda model, batches: torch.cat(list(batches)))
    return built(tiny("vae"), (3,))[0].eval()


def test_metric_of_known_codes(unchanged: object) -> None:
    v = grid(3, 4, 1, times=15)
    data = coded(torch.cat([v[:, :2], torch.full((180, 1), 0.5)], 1), v, ("hue", "size", "never"))
    seen: list[tuple] = []
    options = Options(split="valid", batch_size=7, progress=lambda *step: seen.append(step))
    (found,) = disentanglement(unchanged, data, options)
    assert found.values == {
        "mig": pytest.approx(1.0),
        "sap": pytest.approx((2 / 3 + 3 / 4) / 2),
        "disentanglement": pytest.approx(1.0),
        "completeness": pytest.approx(1.0),
        "informativeness": 1.0,
        "factor_vae": 1.0,
        "beta_vae": 1.0,
        "factors": {
            "hue": pytest.approx({"mig": 1.0, "sap": 2 / 3, "completeness": 1.0, "informativeness": 1.0}),
            "size": pytest.approx({"mig": 1.0, "sap": 3 / 4, "completeness": 1.0, "informativeness": 1.0}),
        },
    }
    assert found.protocol["factors"] == ["hue", "size"]
    json.dumps(found.protocol)
    assert found.notes == [
        "left out, since it has one value in these samples: the factor never",
        "1 of 3 codes have a variance below 0.05 and take no part in factor_vae; the threshold is meant for a prior "
        "of unit variance",
    ]
    assert seen[-1] == (2, 2, "disentanglement: predictors of factors")


def test_factors_follow_chosen_samples(unchanged: object) -> None:
    v = grid(3, 4, times=30)
    data = coded(torch.cat([v, noise(360, 1)], 1), v, ("hue", "size"))
    values = [next(disentanglement(unchanged, data, Options(samples=150, seed=seed))).values for seed in (0, 1)]
    for found in values:
        assert (found["mig"] > 0.7, found["factor_vae"], found["informativeness"]) == (True, 1.0, 1.0)
    assert values[0]["mig"] != values[1]["mig"]


def test_metric_of_a_model_does_not_depend_on_batches() -> None:
    torch.set_default_dtype(torch.float32)
    whole = load("shapes", image_size=8, limit=60)
    names = whole.factor_names[:2]
    small = {name: Split(split.samples, factors=split.factors[:, :2]) for name, split in whole.splits.items()}
    data = Dataset("two", small["train"], small["valid"], small["test"], factor_names=names)
    model = built(tiny("vae"))[0].eval()
    one, other = (next(disentanglement(model, data, Options(batch_size=size))).values for size in (7, 64))
    assert one["factors"]["shape"] == pytest.approx(other["factors"]["shape"], abs=0.02)
    assert one["factor_vae"] == pytest.approx(other["factor_vae"], abs=0.01)


def test_metric_needs_factors_that_vary(unchanged: object) -> None:
    plain = Dataset("plain", Split(torch.zeros(9, 3)), Split(torch.zeros(9, 3)), is_image=False)
    with pytest.raises(VaekitError, match="data set 'plain' has none: take 'shapes'"):
        next(disentanglement(unchanged, plain, Options(split="valid")))
    v = grid(3, 1, 1, times=5)
    with pytest.raises(VaekitError, match="needs two factors that vary, and 1 of those of 'coded' do"):
        next(disentanglement(unchanged, coded(noise(15, 3), v, ("a", "b", "c")), Options()))
