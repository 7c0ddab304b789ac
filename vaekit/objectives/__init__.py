"""Objectives: what is minimised, as named terms and update phases."""

from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective, Phase
from vaekit.objectives.iwae import IWAE
from vaekit.objectives.joint import Independent, Joint
from vaekit.objectives.masked import Masked, Mixture
from vaekit.objectives.mmvae import MMVAE
from vaekit.objectives.mmvae_plus import MMVAEPlus
from vaekit.objectives.mmvm import MMVM
from vaekit.objectives.mopoe import MoPoE
from vaekit.objectives.multimodal import MultimodalObjective
from vaekit.objectives.mvae import MVAE
from vaekit.objectives.mvtcae import MVTCAE

__all__ = [
    "IWAE",
    "MMVAE",
    "MMVM",
    "MVAE",
    "MVTCAE",
    "Adversary",
    "Independent",
    "Joint",
    "MMVAEPlus",
    "Masked",
    "Mixture",
    "MoPoE",
    "MultimodalObjective",
    "Objective",
    "Phase",
]
