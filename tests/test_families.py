"""Every contestant in the folder is found unasked and holds the public contract."""

import importlib.util

import pytest

from assay.checks import CheckFailed, check_candidate
from assay.families.base import RUNGS, Candidate
from assay.registry import discover

FOUND = discover("assay.families", Candidate)
NEEDS_PARAMS = {"tabpfn": "needs weights: tests/test_in_context.py", "tabicl": "needs weights: tests/test_in_context.py",
                "llm": "needs an endpoint: tests/test_llm.py", "hf": "needs a folder: tests/test_encoders.py", "student": "needs a teacher: tests/test_student.py",
                "vision": "slow without params: tests/test_pretrained.py", "finetune": "needs a folder: tests/test_pretrained.py",
                "external": "needs a model: tests/test_external.py", "ensemble": "is made of others: tests/test_after.py",
                "chronos": "needs a folder: tests/test_neural_forecasters.py", "llm_forecast": "needs an endpoint: tests/test_neural_forecasters.py",
                "statistical": "fits each series as it is asked, for seconds: tests/test_forecasters.py"}


def test_all_six_rungs_are_alive():
    assert {c.rung for c in FOUND.values()} == set(RUNGS)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_contestant_holds_its_contract(name):
    if name in NEEDS_PARAMS:
        pytest.skip(NEEDS_PARAMS[name])
    missing = [p for p in FOUND[name].needs if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    check_candidate(FOUND[name])


def test_the_check_catches_a_contestant_that_breaks_its_contract():
    from dataclasses import replace

    from assay.families.naive import Naive

    class Forgetful(Naive):
        def load(self, folder):
            super().load(folder)
            self.answer = self.answer[::-1]
            return self

    with pytest.raises(CheckFailed, match="after dump and load"):
        check_candidate(replace(FOUND["naive"], build=Forgetful))
