"""Contract tests: what every registered part promises, as pytest classes that a part's author subclasses.

    # test_mine.py of a plug-in package
    from vaekit.testing import PosteriorContract

    class TestMine(PosteriorContract):
        name = "mine"

vaekit runs the same suites over everything it registers. This package needs pytest (`pip install pytest`).
"""

import pytest

# Before the modules are imported: failed assertions then show their values, as in a test file.
_MODULES = (
    "contract",
    "data",
    "fusions",
    "multimodal",
    "networks",
    "private_fusions",
    "probability",
    "terms",
    "training",
)
pytest.register_assert_rewrite(*(f"vaekit.testing.{module}" for module in _MODULES))

from vaekit.testing.contract import Contract, ModuleContract  # noqa: E402
from vaekit.testing.data import DatasetContract  # noqa: E402
from vaekit.testing.fusions import FusionContract  # noqa: E402
from vaekit.testing.multimodal import (  # noqa: E402
    MultimodalObjectiveContract,
    small_multimodal_data,
    small_multimodal_vae,
)
from vaekit.testing.networks import AdversarialLossContract, BackboneContract, DiscriminatorContract  # noqa: E402
from vaekit.testing.private_fusions import PrivateFusionContract  # noqa: E402
from vaekit.testing.probability import LikelihoodContract, PosteriorContract, PriorContract  # noqa: E402
from vaekit.testing.terms import ObjectiveContract, RegularizerContract  # noqa: E402
from vaekit.testing.training import LoggerContract, OptimizerContract, ScheduleContract  # noqa: E402

__all__ = [
    "AdversarialLossContract",
    "BackboneContract",
    "Contract",
    "DatasetContract",
    "DiscriminatorContract",
    "FusionContract",
    "LikelihoodContract",
    "LoggerContract",
    "ModuleContract",
    "MultimodalObjectiveContract",
    "ObjectiveContract",
    "OptimizerContract",
    "PosteriorContract",
    "PriorContract",
    "PrivateFusionContract",
    "RegularizerContract",
    "ScheduleContract",
    "small_multimodal_data",
    "small_multimodal_vae",
]
