"""Recognises networks that return probabilities instead of logits: by their graph, and by sums."""

import torch
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.models.last_products import LastProducts
from understudy.models.outputs import pick
from understudy.models.taps import dry_run
from understudy.models.traced_pass import TracedPass


def refuse(module: nn.Module, images: Tensor, traced: TracedPass) -> None:
    """Refuse a network that returns probabilities, their logarithms, or means or multiples of them.

    Args:
        module: In evaluation mode.
        images: The images of the traced pass.
        traced: A pass of the module.

    Raises:
        NetworkError: The output went through a softmax, a log-softmax or a sigmoid.
    """
    function = _function_of_sums(traced.output) or LastProducts.final_function(traced)
    if not function and _have_equal_sums(traced.output):
        # Equal by chance for two images, they would not be for four.
        others = dry_run(module, images.flip(0, -1) * 0.5, lambda value: pick(value, traced.key))
        function = (
            "softmax" if _have_equal_sums(torch.cat([traced.output, others.detach()])) else ""
        )
    if function:
        layers = [
            c.path
            for c in traced.calls
            if traced.record.shares_memory(c.output)
            and type(c.module).__name__ in ("Softmax", "LogSoftmax", "Sigmoid")
        ]
        how = f"replace its module {layers[-1]!r} by nn.Identity()" if layers else "remove it"
        raise NetworkError(
            f"The network ends in a {function}: it returns probabilities and not logits, and a "
            f"loss would apply the {function} once more. Let it return the logits: {how}."
        )


def _function_of_sums(y: Tensor) -> str:
    """Return the function whose rows sum to one, or whose exponentials do; "" for others."""
    if y.ndim != 2 or y.shape[1] < 2:
        return ""
    y = y.double()
    positive, negative = bool((y >= 0).all()), bool((y <= 0).all())
    sums = y.sum(1) if positive else y.exp().sum(1)
    one = (positive or negative) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    return ("softmax" if positive else "log_softmax") if one else ""


def _have_equal_sums(y: Tensor) -> bool:
    """Return True if rows differ and their sums do not, as of probabilities times a number."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype not in (torch.float32, torch.float64):
        return False
    y = y.double() * y.sum().sign()
    sums, largest = y.sum(1), float(y.abs().max())
    differ = float((y[0] - y[1]).abs().max()) > 1e-3 * largest
    return differ and bool((y >= 0).all()) and torch.allclose(sums, sums[:1], rtol=1e-6, atol=0)
