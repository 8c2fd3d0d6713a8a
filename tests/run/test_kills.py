"""A run that was killed at any write, or met a full disk there, ends in the same bits."""

import json
from typing import Any

import pytest

from tests.support.kills import REFUSED
from tests.support.processes import Fresh

POINTS = 14
"""Writes of each command at which it is killed; at a third as many the disk is full."""

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    process = Fresh("-m", "tests.support.kills", tmp_path_factory.mktemp("kills"), str(POINTS))
    return [json.loads(line) for line in process.finish().splitlines()]


@pytest.mark.parametrize("command", ["train", "distill", "compare", "bank build"])
def test_what_was_killed_ends_in_the_same_bits(results: Results, command: str) -> None:
    killed = [r for r in results if r["command"] == command and r["act"].endswith("kill")]
    assert len(killed) >= min(POINTS, 12)
    assert {r["first"] for r in killed} == {-9}
    assert [r for r in killed if r["second"] or r["differs"] or r["left"]] == []


@pytest.mark.parametrize("command", ["train", "distill", "compare", "bank build"])
def test_a_full_disk_is_a_sentence_and_loses_nothing(results: Results, command: str) -> None:
    full = [r for r in results if r["command"] == command and r["act"].endswith("full")]
    assert len(full) >= POINTS // 3
    # 0: what is not needed, such as notes about the images, is done without.
    assert {r["first"] for r in full} <= {0, REFUSED}
    for result in full:
        assert (
            result["first"] == 0 or "disk is full" in result["said"] or "No space" in result["said"]
        )
    assert [r for r in full if r["second"] or r["differs"] or r["left"]] == []


def test_there_are_fifty_kills(results: Results) -> None:
    assert sum(r["act"].endswith("kill") for r in results) >= 50
