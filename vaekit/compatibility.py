"""Which posteriors, priors and terms go together: read from the metadata, without importing a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vaekit.registry import Info, posteriors, priors

__all__ = ["PLACES", "Kind", "Pair", "missing", "pair"]

Kind: TypeAlias = Literal["closed", "bound", "sampled", "infinite", "impossible"]

#: The words of `Info.support`, explained.
PLACES = {
    "real": "all of real space",
    "interval": "a box",
    "counts": "counts",
    "one-hot": "one-hot vectors",
    "sphere": "a sphere",
    "point": "a point",
}

_WORDS = {
    "factorised": "independent dimensions",
    "moments": "an exact mean and variance",
    "reparameterised": "reparameterised draws",
    "density": "a density that holds for its draws in training",
    "gaussian components": "Gaussian components",
}


@dataclass(frozen=True)
class Pair:
    """How a posterior's KL to a prior is computed, and why not, where it is not.

    Arguments:
        kind: `"closed"`: in closed form; `"bound"`: sampled, with closed-form bounds; `"sampled"`; `"infinite"`: the
            two share a space and the posterior reaches beyond the prior or has no density, so that only terms without a
            KL can be used;
            `"impossible"`: they do not share a space, or one of them is made for others.
        reason: For the last two, why, as half a sentence.
    """

    kind: Kind
    reason: str = ""


def pair(posterior: str, prior: str) -> Pair:
    """Return how a posterior and a prior go together, by name.

    Raises:
        VaekitError: One of the names is unknown.

    Examples:
        >>> pair("gaussian", "standard_normal").kind
        'closed'
    """
    q, p = posteriors.info(posterior), priors.info(prior)
    for one, family, other in ((q, "priors", p), (p, "posteriors", q)):
        allowed = one.only_with.get(family, (other.name,))
        if other.name not in allowed:
            return Pair("impossible", f"'{one.name}' works with {' or '.join(allowed)} only")
    if prior in q.closed_kl:
        return Pair("closed")
    if q.support and p.support:
        reason = f"'{q.name}' lives on {PLACES[q.support]} and '{p.name}' on {PLACES[p.support]}"
        if _space(q) != _space(p):
            return Pair("impossible", reason)
        if q.support == "point":
            return Pair("infinite", f"'{q.name}' gives a point, which has no density")
        if p.support == "interval":
            return Pair("infinite", f"{reason}, which does not hold it")
    return Pair("bound" if prior in q.bounded_kl else "sampled")


def _space(info: Info) -> str:
    return "real" if info.support in ("interval", "point") else info.support


def missing(part: Info, posterior: str, prior: str) -> str:
    """Return why a regularizer or an objective cannot be used with a posterior and a prior; empty if it can.

    Arguments:
        part: The metadata of the regularizer or objective.
        posterior: The posterior's name.
        prior: The prior's name.
    """
    for family, name in (("posteriors", posterior), ("priors", prior)):
        allowed = part.only_with.get(family, (name,))
        if name not in allowed:
            return f"'{part.name}' works with {' or '.join(allowed)} only"
    both = pair(posterior, prior)
    if both.kind == "impossible":
        return both.reason
    if "finite KL" in part.requires and both.kind == "infinite":
        return f"it needs a finite KL, and {both.reason}"
    for kind, name, info in (
        ("posterior", posterior, posteriors.info(posterior)),
        ("prior", prior, priors.info(prior)),
    ):
        needed = [
            what for what in part.requires if what != "finite KL" and what.endswith(" prior") == (kind == "prior")
        ]
        if lacking := [what for what in needed if what.removesuffix(" prior") not in info.supports]:
            words = " and ".join(_WORDS.get(what.removesuffix(" prior"), what) for what in lacking)
            return f"it needs a {kind} with {words}, which '{name}' does not offer"
    return ""
