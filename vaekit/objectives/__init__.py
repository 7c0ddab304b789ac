"""Objectives: what is minimised, as named terms and update phases."""

from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective, Phase
from vaekit.objectives.iwae import IWAE

__all__ = ["IWAE", "Adversary", "Objective", "Phase"]
