"""What every golden-vector file has in common: cases found from the file's own contents.

A case is a set of named arrays recorded from the authors' code and the `kind` that says how to
check it. The kind is never taken from the case's own name or number.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Fields = Mapping[str, Any]
Check = Callable[[Fields], None]


@dataclass(frozen=True)
class Case:
    """One recorded case.

    Attributes:
        name: Its name in the file.
        kind: How to check it, a key of some module's `CHECKS`.
        fields: Field name → array.
    """

    name: str
    kind: str
    fields: Fields


def tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))


def leaf(array: Any) -> Tensor:
    """The array as a tensor that gradients are taken to."""
    return tensor(array).clone().requires_grad_()


def close(actual: Any, expected: Any, **tolerance: float) -> None:
    """Assert equality within the tolerance of the expected array's precision.

    Without a tolerance: float64 to 1e-9 relative, and 1e-12 of its largest entry (rounding noise
    around an analytic zero); float32 to 2e-5 relative and 1e-6 of its largest entry.
    """
    actual, expected = tensor(actual).detach(), tensor(expected).detach()
    scale = expected.abs().max().item() if expected.numel() else 0.0
    single = torch.float32 in (expected.dtype, actual.dtype)
    rtol, atol = (2e-5, 1e-6 * max(scale, 1e-3)) if single else (1e-9, 1e-12 * max(scale, 1))
    torch.testing.assert_close(
        actual,
        expected,
        rtol=tolerance.get("rtol", rtol),
        atol=tolerance.get("atol", atol),
        check_dtype=False,
    )


def gradients_close(leaves: Mapping[str, Tensor], fields: Fields, **tolerance: float) -> None:
    """Assert that every leaf's gradient equals the field `grad_<name>`."""
    for name, x in leaves.items():
        assert x.grad is not None, f"no gradient reached {name}"
        close(x.grad, fields[f"grad_{name}"], **tolerance)


def numbered(archive: Fields, prefix: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of `<prefix>00_...` to `<prefix><count - 1>_...`, in one- or two-digit form."""
    for number in range(count):
        names = {f"{prefix}{number:02d}_", f"{prefix}{number}_"}
        yield (
            f"{prefix}{number}",
            {
                key.removeprefix(name): archive[key]
                for key in archive
                for name in names
                if key.startswith(name)
            },
        )
