"""Wide residual networks: Zagoruyko & Komodakis, arXiv 1605.07146.

`wrn_d_w` has depth d = 6n + 4 and widths 16, 16w, 32w, 64w. Blocks are pre-activated, so the
stages end in raw residual sums, which is where the distillation papers read them; `stage1/preact`
is such a sum after the norm that follows it, `penultimate` after the last norm and activation.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.initialisation import he, zero_bias


class Block(nn.Module):
    """Pre-activated block: norm, activation and 3×3 convolution, twice, and a shortcut.

    A projected shortcut starts from the first activation.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = (
            None if width_in == width else nn.Conv2d(width_in, width, 1, stride, bias=False)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Compute the sum of branch and shortcut, without activation."""
        y = self.act1(self.bn1(x))
        branch: Tensor = self.conv2(self.act2(self.bn2(self.conv1(y))))
        return branch + (x if self.shortcut is None else self.shortcut(y))


class WideResNet(nn.Module):
    """Wide residual network of three stages.

    Args:
        num_classes: Number of classes.
        depth: 6n + 4.
        width: Widening factor w.
    """

    classifier_path = "fc"

    def __init__(self, num_classes: int, *, depth: int, width: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Block(widths[i], widths[i + 1], stride=min(i + 1, 2)),
                    *(Block(widths[i + 1], widths[i + 1], stride=1) for _ in range(blocks - 1)),
                )
                for i in range(3)
            )
        )
        self.bn = nn.BatchNorm2d(widths[-1])
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = {"stem": "stem", "penultimate": "fc:input"}
        for number, norm in enumerate(("stages.1.0.bn1", "stages.2.0.bn1", "bn")):
            self.taps[f"stage{number + 1}"] = f"stages.{number}"
            self.taps[f"stage{number + 1}/preact"] = norm
        self.apply(self.initialise)

    @staticmethod
    def initialise(layer: nn.Module) -> None:
        """Initialise convolutions He-normal; PyTorch's linear layers, with zero bias."""
        he(layer)
        zero_bias(layer)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        x = self.act(self.bn(self.stages(self.stem(images))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


MODELS = {
    f"wrn_{depth}_{width}": partial(WideResNet, depth=depth, width=width)
    for depth in (16, 40)
    for width in (1, 2)
}
