"""vaekit's own contract for posteriors, run over this one."""

from vaekit.testing import PosteriorContract


class TestStudentT(PosteriorContract):
    """Every test of the contract, with the part's default options."""

    name = "student_t"
