"""Random numbers without a generator: a hash of counters, the same in any order and process.

There is no state that could depend on what was drawn before. The hash is the finalizer of
SplitMix64 (Steele, Lea, Flood 2014) applied once per counter; torch's int64 multiplication wraps
around modulo 2^64, which is exactly the arithmetic the hash wants.
"""

import torch
from jaxtyping import Int64
from torch import Tensor


def counter_hash(*counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """A hash of some counters, uniform over all 64-bit integers: SplitMix64 over a chain."""
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = (state ^ counter) - 0x61C8864680B583EB  # 0x9E37… as a signed number
        state = (state ^ _shift(state, 30)) * -0x40A7B892E31B1A47  # 0xBF58…
        state = (state ^ _shift(state, 27)) * -0x6B2FB644ECCEEE15  # 0x94D0…
        state = state ^ _shift(state, 31)
    return state


def uniform(below: int, *counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """An integer in [0, below) for the counters; its bias is below 2^-50 for `below` < 2^13."""
    return _shift(counter_hash(*counters), 1) % below


def _shift(x: Int64[Tensor, " batch"], bits: int) -> Int64[Tensor, " batch"]:
    # torch shifts the sign in from the left; the hash wants zeros there.
    return (x >> bits) & ((1 << (64 - bits)) - 1)
