"""Shapes and features of small students and teachers, for the reference tests."""

from typing import Any

import torch
from torch import Tensor

from understudy.features import Features, Shapes


def shapes(owner: str, **sizes: Any) -> Shapes:
    """Shapes by name; a number stands for a vector of that dimension."""
    return Shapes(owner, {k: (v,) if isinstance(v, int) else v for k, v in sizes.items()})


def random(rows: int, **sizes: Any) -> Features:
    """Normal features of those sizes, in float64."""
    like = shapes("", **sizes)
    return {name: torch.randn(rows, *like[name], dtype=torch.float64) for name in like}


def angle(degrees: float, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Two unit vectors of that angle, in random directions, as rows."""
    basis = torch.linalg.qr(torch.randn(dim, 2, dtype=torch.float64)).Q.T
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return (turn.cos() * basis[:1] + turn.sin() * basis[1:]), basis[:1]
