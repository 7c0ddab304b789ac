"""MLflow."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.registry import loggers
from vaekit.training.loggers.base import Logger, require

__all__ = ["MLflow"]

# A server takes no longer parameters, and no more of them at once.
_LONGEST, _MOST = 6000, 100


@loggers.register(
    "mlflow",
    about="MLflow: a server, or a database in the run directory",
    source="Zaharia et al., Accelerating the Machine Learning Lifecycle with MLflow, IEEE Data Eng. Bull. 41(4), 2018",
    needs=("the extra vaekit[mlflow]",),
)
class MLflow(Logger):
    """Sends to an MLflow server, or writes a database that `mlflow ui --backend-store-uri` shows.

    Source: M. Zaharia et al., Accelerating the Machine Learning Lifecycle with MLflow, IEEE Data Engineering Bulletin
    41(4), 2018.

    Arguments:
        experiment: The experiment, made where there is none of that name.
        uri: The server or database; `None` for that of the environment variable `MLFLOW_TRACKING_URI`, and where there
            is none for `mlflow/mlflow.db` in the run directory.

    Raises:
        VaekitError: MLflow is not installed.
    """

    def __init__(self, *, experiment: str = "vaekit", uri: str | None = None) -> None:
        require("mlflow", "mlflow")
        self._experiment, self._uri = experiment, uri

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        """Create a run, or open the one of that id again."""
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        uri, artifacts = self._uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if uri is None:
            folder = (out / "mlflow").resolve()
            folder.mkdir(exist_ok=True)
            uri, artifacts = f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if identity is None:
            with contextlib.suppress(MlflowException):  # Another run has made it already.
                self._client.create_experiment(self._experiment, artifact_location=artifacts)
            experiment: Any = self._client.get_experiment_by_name(self._experiment)
            tags = {"mlflow.note.content": "\n\n".join(notes)}
            identity = str(self._client.create_run(experiment.experiment_id, run_name=out.name, tags=tags).info.run_id)
            params = [Param(name, value[:_LONGEST]) for name, value in _flat(config)]
            for first in range(0, len(params), _MOST):
                self._client.log_batch(identity, params=params[first : first + _MOST])
        else:
            self._client.update_run(identity, status="RUNNING")
        self._identity = identity
        return identity

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log all values in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._identity, metrics=[Metric(name, v, now, step) for name, v in values.items()])

    def picture(self, name: str, file: Path, step: int) -> None:
        """Copy the file to the artifacts."""
        self._client.log_artifact(self._identity, str(file), "pictures")

    def finish(self, complete: bool) -> None:
        """Mark the run as finished or killed."""
        self._client.set_terminated(self._identity, "FINISHED" if complete else "KILLED")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested mappings under dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
