"""Hadamard matrices: orthogonal matrices whose entries all have the same magnitude.

Sylvester's doubling of a matrix of order 1 or of one of Paley's: order q + 1 for a prime q with
remainder 3 modulo 4 (type I), and 2(q + 1) for one with remainder 1 (type II). These cover the
widths of published transformers: 384, 768, 1024, 1152, 1280, 1408, 1536 and 4096. For any other
order, `rotation` makes a random matrix of signs orthogonal.
"""

from math import isqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ONE = torch.ones(1, 1, dtype=torch.long)

_SEED = 20412
"""Seed of the signs of an order without a Hadamard matrix."""


def rotation(order: int) -> Float[Tensor, "order order"]:
    """Return an orthogonal matrix in float64: Hadamard's over √order, or of random signs.

    Made of random signs, its entries have about the same magnitude, not exactly.
    """
    signs = hadamard(order)
    if signs is not None:
        scaled: Tensor = signs.double() / order**0.5
        return scaled
    random = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(2, (order, order), generator=random).double() * 2 - 1
    orthogonal: Tensor = torch.linalg.qr(drawn).Q
    return orthogonal


def hadamard(order: int) -> Int[Tensor, "order order"] | None:
    """Return a matrix H of ±1 with H Hᵀ = order · I; None if no construction above has one."""
    rest, doublings = order, 0
    while True:
        # A power of two is doubled from 1, though Paley has one of order 4, 8 and others too.
        core = _paley(rest) if order & (order - 1) else _ONE if rest == 1 else None
        if core is not None:
            return _doubled(core, doublings)
        if rest % 2:
            return None
        rest, doublings = rest // 2, doublings + 1


def _doubled(core: Int[Tensor, "order order"], times: int) -> Int[Tensor, "larger larger"]:
    for _ in range(times):
        core = torch.kron(torch.tensor([[1, 1], [1, -1]]), core)
    return core


def _paley(order: int) -> Int[Tensor, "order order"] | None:
    if _is_prime(order - 1) and (order - 1) % 4 == 3:
        return _paley_one(order - 1)
    if order % 2 == 0 and _is_prime(order // 2 - 1) and (order // 2 - 1) % 4 == 1:
        return _paley_two(order // 2 - 1)
    return None


def _paley_one(q: int) -> Int[Tensor, "order order"]:
    """Return I + S for the skew matrix S of the residues modulo q."""
    skew = _bordered(q)
    skew[1:, 0] = -1
    return skew + torch.eye(q + 1, dtype=torch.long)


def _paley_two(q: int) -> Int[Tensor, "order order"]:
    """Return the symmetric conference matrix C of q, each entry replaced by a 2×2 block."""
    conference = _bordered(q)
    nonzero, zero = torch.tensor([[1, 1], [1, -1]]), torch.tensor([[1, -1], [-1, -1]])
    identity = torch.eye(q + 1, dtype=torch.long)
    blocks: Tensor = torch.kron(conference, nonzero) + torch.kron(identity, zero)
    return blocks


def _bordered(q: int) -> Int[Tensor, "order order"]:
    """Return χ(i − j) modulo q with a border of ones and a zero in the corner.

    χ is 1 for squares, −1 for other numbers and 0 for 0.
    """
    character = torch.full((q,), -1)
    character[torch.arange(1, q).square() % q] = 1
    character[0] = 0
    numbers = torch.arange(q)
    result = torch.ones(q + 1, q + 1, dtype=torch.long)
    result[1:, 1:] = character[(numbers[:, None] - numbers) % q]
    result[0, 0] = 0
    return result


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))
