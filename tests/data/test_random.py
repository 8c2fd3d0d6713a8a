"""The hash of counters: SplitMix64, and uniform."""

import torch

from understudy.data._random import counter_hash, uniform


def test_hash_is_splitmix64() -> None:
    # The first outputs of the published generator from the state 0, and its chaining by hand.
    assert int(counter_hash(0)) % 2**64 == 0xE220A8397B1DCDAF
    mask = 2**64 - 1

    def step(state: int, counter: int) -> int:
        z = ((state ^ counter) + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    expected = step(step(step(0, 5), 2**40), 3)
    assert int(counter_hash(5, torch.tensor([2**40]), torch.tensor([3]))) % 2**64 == expected


def test_numbers_are_equally_likely() -> None:
    draws = uniform(162, 3, torch.arange(300)[:, None], torch.arange(540)[None, :])
    counts = torch.bincount(draws.flatten(), minlength=162).double()
    expected = 300 * 540 / 162
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert len(counts) == 162
    # Mean 161, deviation 18: five deviations would not happen to a uniform hash.
    assert 161 - 5 * 18 < chi_squared < 161 + 5 * 18
