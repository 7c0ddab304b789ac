"""Objectives: what is minimised, as named terms and update phases."""

from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective, Phase

__all__ = ["Adversary", "Objective", "Phase"]
