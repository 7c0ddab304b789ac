"""Experiment trackers by name, with typed options; what they need is imported when a run begins."""

from vaekit.training.loggers.base import Logger
from vaekit.training.loggers.mlflow import MLflow
from vaekit.training.loggers.tensorboard import TensorBoard
from vaekit.training.loggers.trackio import Trackio
from vaekit.training.loggers.wandb import WeightsAndBiases

__all__ = ["Logger", "MLflow", "TensorBoard", "Trackio", "WeightsAndBiases"]
