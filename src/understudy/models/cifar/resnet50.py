"""ResNet50 with a 3×3 stem and no max-pool, for small images: He et al., arXiv 1512.03385."""

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.initialisation import he


class Bottleneck(nn.Module):
    """Bottleneck block: 1×1, 3×3 and 1×1 convolutions, the last four times as wide; a shortcut."""

    def __init__(self, width_in: int, narrow: int, stride: int) -> None:
        super().__init__()
        wide = 4 * narrow
        self.branch = nn.Sequential(
            nn.Conv2d(width_in, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != wide:
            self.shortcut.append(nn.Conv2d(width_in, wide, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(wide))
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b wide h2 w2"]:
        """Compute the activated sum of branch and shortcut."""
        out: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return out


class ResNet50(nn.Module):
    """ResNet50: stages of 3, 4, 6 and 3 bottlenecks, with a penultimate vector of width 2048."""

    classifier_path = "fc"
    blocks = (3, 4, 6, 3)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.stages = nn.Sequential()
        self.taps = {"stem": "stem", "penultimate": "fc:input"}
        width_in = 64
        for number, blocks in enumerate(self.blocks):
            narrow = 64 * 2**number
            rest = (Bottleneck(4 * narrow, narrow, 1) for _ in range(blocks - 1))
            self.stages.append(
                nn.Sequential(Bottleneck(width_in, narrow, min(number + 1, 2)), *rest)
            )
            self.taps[f"stage{number + 1}/preact"] = f"stages.{number}.{blocks - 1}.act:input"
            self.taps[f"stage{number + 1}"] = f"stages.{number}"
            width_in = 4 * narrow
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width_in, num_classes)
        self.apply(self.initialise)

    initialise = staticmethod(he)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        logits: Tensor = self.fc(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits


MODELS = {"resnet50": ResNet50}
