"""A run that was killed at any write, or met a full disk there, ends in the same bits."""

import json
from pathlib import Path

import pytest

from tests.support.kills import REFUSED
from tests.support.processes import Fresh

POINTS = {"train": 14, "distill": 14, "compare": 14, "bank build": 14, "export": 4}
"""Writes of each command at which it is killed; at a third as many the disk is full."""


@pytest.mark.parametrize("command", POINTS)
def test_a_kill_or_a_full_disk_changes_no_bit(tmp_path: Path, command: str) -> None:
    process = Fresh("-m", "tests.support.kills", tmp_path, str(POINTS[command]), command)
    results = [json.loads(line) for line in process.finish().splitlines()]
    assert [r for r in results if r["second"] or r["differs"] or r["left"]] == []

    killed = [r for r in results if r["act"].endswith("kill")]
    assert len(killed) == POINTS[command]
    assert {r["first"] for r in killed} == {-9}

    full = [r for r in results if r["act"].endswith("full")]
    assert len(full) == POINTS[command] // 3
    # 0: what is not needed, such as notes about the images, is done without.
    assert {r["first"] for r in full} <= {0, REFUSED}
    said = [r["said"] for r in full if r["first"]]
    assert all("disk is full" in each or "No space" in each for each in said)
