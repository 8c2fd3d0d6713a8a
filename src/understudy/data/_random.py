"""Random numbers without a generator: hashes of counters, the same in any order and process.

A generator's state would depend on everything drawn before, and would have to be saved for a
restart. The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014), applied once per
counter; torch's int64 multiplication wraps around modulo 2^64, as SplitMix64 requires.
"""

import torch
from jaxtyping import Int64
from torch import Tensor


def counter_hash(*counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Hash a sequence of counters, such as (seed, image, view), to a uniform 64-bit integer."""
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        # torch has no arithmetic on uint64: the constants of SplitMix64 are written as int64.
        state = (state ^ counter) - 0x61C8864680B583EB  # 0x9E37…
        state = (state ^ _shift(state, 30)) * -0x40A7B892E31B1A47  # 0xBF58…
        state = (state ^ _shift(state, 27)) * -0x6B2FB644ECCEEE15  # 0x94D0…
        state = state ^ _shift(state, 31)
    return state


def uniform(below: int, *counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Hash counters to a uniform integer in [0, below); bias < 2^-50 for `below` < 2^13."""
    return _shift(counter_hash(*counters), 1) % below


def _shift(x: Int64[Tensor, " batch"], bits: int) -> Int64[Tensor, " batch"]:
    """Shift right logically: torch's own shift copies the sign bit in from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def permutation(n: int, *counters: int) -> Int64[Tensor, " n"]:
    """Return a random permutation of 0 … n - 1 that depends on the counters alone."""
    generator = torch.Generator().manual_seed(int(counter_hash(*counters)))
    return torch.randperm(n, generator=generator)
