"""Objectives: what is minimised, as named terms and update phases."""

from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective, Phase
from vaekit.objectives.iwae import IWAE
from vaekit.objectives.multimodal import Independent, Joint, MultimodalObjective

__all__ = ["IWAE", "Adversary", "Independent", "Joint", "MultimodalObjective", "Objective", "Phase"]
