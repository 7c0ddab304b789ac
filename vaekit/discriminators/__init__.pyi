from vaekit.discriminators.base import Discriminator as Discriminator
from vaekit.discriminators.losses import BCE as BCE
from vaekit.discriminators.losses import AdversarialLoss as AdversarialLoss
from vaekit.discriminators.losses import Hinge as Hinge
from vaekit.discriminators.losses import LeastSquares as LeastSquares
from vaekit.discriminators.patchgan import PatchGAN as PatchGAN
