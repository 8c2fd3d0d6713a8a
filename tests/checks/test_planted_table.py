"""The table of planted faults in `docs/doctor.md`: complete, and as the tests have it."""

import re
from collections import Counter
from pathlib import Path

from tests.checks import (
    test_data_faults,
    test_detectors,
    test_end_to_end,
    test_plans,
    test_teacher_faults,
    test_training_faults,
)
from understudy import checks

FACTS = {"bank_savings"}
"""Checks that only give notes: what they say is no fault."""


def planted() -> Counter[str]:
    """Number of planted faults of each check."""
    of_training = test_training_faults
    tables = (
        test_data_faults.FAULTS,
        test_teacher_faults.TEACHERS,
        *(of_training.STEPS, of_training.MEASURED, of_training.ADVISED),
    )
    counts = Counter(fault.check for table in tables for fault in table)
    return counts + test_end_to_end.PLANTED + test_plans.PLANTED + test_detectors.PLANTED


def test_the_table_is_true() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (\d+) \|", Path("docs/doctor.md").read_text(), re.M)
    assert {name: int(count) for name, count in rows} == dict(planted())


def test_every_check_has_two_planted_faults() -> None:
    counts = planted()
    for name in {*checks.names(), "messages"} - FACTS:
        assert counts[name] >= 2, name
