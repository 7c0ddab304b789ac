from vaekit.training.listeners import Listener as Listener
from vaekit.training.loop import Fit as Fit
from vaekit.training.trainer import Trainer as Trainer
