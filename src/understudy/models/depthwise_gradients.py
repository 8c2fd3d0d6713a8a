"""Gradients of depthwise convolutions, in fp32 where the bf16 kernels of a CPU are slow.

On a CPU, torch computes bf16 convolutions by oneDNN, whose fast kernels for the gradients of a
depthwise convolution are those of 3×3, without stride or dilation, on maps of at least 3×3. All
others take 2 to 50 times as long as in fp32, conversions included (torch 2.15, AVX512-BF16). The
forward pass is fast in every case and stays in bf16.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

FAST = 3
"""Side of the largest kernel, and of the smallest map, for which bf16 gradients are fast."""


def attach(module: nn.Module) -> list[RemovableHandle]:
    """Attach a hook to every depthwise convolution, and return the handles that remove them.

    The hooks act in training passes in bf16 on a CPU. They change no output, only how gradients
    are computed. Attach them before others, which then read outputs with these gradients.
    """
    return [
        layer.register_forward_hook(_with_fp32_gradient)
        for layer in module.modules()
        # Subclasses may convolve something else than their input, such as a padded copy of it.
        if type(layer) is nn.Conv2d and _is_depthwise(layer)
    ]


def _is_depthwise(layer: nn.Conv2d) -> bool:
    zeros_around = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer.groups == layer.in_channels == layer.out_channels > 1 and zeros_around


def _with_fp32_gradient(layer: nn.Conv2d, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    in_bf16 = output.dtype == torch.bfloat16 and output.device.type == "cpu"
    is_batch = len(args) == 1 and output.dim() == 4
    if not (in_bf16 and is_batch and output.requires_grad and _is_slow(layer, args[0])):
        return None
    x = args[0].to(output.dtype)
    # The output is kept, and its own gradient with the tensors saved for it is dropped.
    replaced: Tensor = _Fp32Gradient.apply(output.detach(), x, layer.weight, layer.bias, layer)
    return replaced


def _is_slow(layer: nn.Conv2d, x: Float[Tensor, "batch channels height width"]) -> bool:
    dense = layer.stride == layer.dilation == (1, 1)
    return not dense or max(layer.kernel_size) > FAST or min(x.shape[-2:]) < FAST


class _Fp32Gradient(torch.autograd.Function):
    """Return an output as it is, with the gradient of the convolution that has computed it.

    Input and weight enter the gradient as rounded to bf16, as they have entered the output.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.layer = layer
        return output.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), layer = ctx.saved_tensors, ctx.layer
        stride, padding, dilation = layer.stride, layer.padding, layer.dilation
        height, width = x.shape[-2:]
        top, left = padding
        wide = x
        if max(layer.kernel_size) <= FAST and stride == dilation == (1, 1):
            # A small map: with its zeros around it, it is large enough for a fast kernel.
            wide, padding = F.pad(x, (left, left, top, top)), (0, 0)
        d_input, d_weight, d_bias = torch.ops.aten.convolution_backward(
            grad.float(),
            wide.float(),
            weight.to(x.dtype).float(),
            ctx.bias_sizes,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            layer.groups,
            ctx.needs_input_grad[1:4],
        )
        if d_input is not None and wide is not x:
            d_input = d_input[..., top : top + height, left : left + width]
        return None, _to(d_input, x), _to(d_weight, weight), d_bias, None


def _to(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a gradient in the dtype of its tensor; None without a gradient."""
    return None if gradient is None else gradient.to(like.dtype)
