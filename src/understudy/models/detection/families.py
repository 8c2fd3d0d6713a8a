"""Families of detectors over any backbone: plain modules of torchvision, put together here.

| name | detector | maps of the backbone |
|---|---|---|
| `fasterrcnn` | `FasterRCNN` over a feature pyramid, p2 to p6 | strides 4, 8, 16, 32 |
| `retinanet`, `fcos` | `RetinaNet`, `FCOS` over a feature pyramid, p3 to p7 | strides 8, 16, 32 |
| `ssdlite`, `ssd` | `SSD` with a light or a plain head, six levels | strides 16, 32 |

Options are `backbone` (`resnet50`, `vgg16`, `mobilenet_v2`, `timm:NAME`, …), `backbone_weights`
(`pretrained`, a name of torchvision's such as `IMAGENET1K_V1`, a file or a run of a classifier),
`trainable_layers`, `channels` of the pyramid, `anchors`, `min_size` and `max_size` of the images,
or of SSD the one `size` and the channels of its `extra` levels, and all other keywords of the class
of torchvision.

`anchors` are one size in pixels for each map, finest first. torchvision's are [32, 64, 128, 256,
512] in Faster R-CNN and, each in three scales, in RetinaNet; small images have smaller objects. In
FCOS, where they are [8, 16, 32, 64, 128], an object belongs to the map where its farthest side is 4
to 8 sizes away. The boxes of SSD are shares of the image.

What is built over a backbone of torchvision by a pyramid needs nothing of Understudy to run; this
loads what is saved of it:

    from torchvision.models import resnet18
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    layers, widths = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    detector = FasterRCNN(BackboneWithFPN(resnet18(), layers, widths, 256), num_classes=21)

Dense heads have `extra_blocks=LastLevelP6P7(256, 256)`, and the layers of strides 8, 16 and 32. A
VGG is cut after each max-pool (Wang, Ge & Wu, arXiv 2011.01424). Otherwise `build` of this file
gives the module to load into: `backbones.Numbered` and `Levels` are two modules of a few lines.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import signature
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from understudy.errors import NetworkError, suggestion
from understudy.models.detection.backbones import Trunk, trunk

EXTRA = (512, 256, 256, 128)
"""Channels of the levels that SSDlite adds to the maps of its backbone."""


def build(
    family: str,
    num_classes: int,
    *,
    backbone: str = "resnet50",
    backbone_weights: str = "",
    trainable_layers: int | None = None,
    **options: Any,
) -> nn.Module:
    """A detector of a family.

    Args:
        family: One of `NAMES`.
        num_classes: With the background.
        backbone: As `backbones.trunk` takes it.
        backbone_weights: As `backbones.trunk` takes them.
        trainable_layers: How many of the backbone's last stages are trained.
        options: See the text of this module.

    Raises:
        NetworkError: The backbone cannot be built, or an option does not exist.
    """
    make, kind, own, strides = _FAMILIES[family]
    check_options(family, kind, options, own)
    found = trunk(backbone, strides, weights=backbone_weights, trainable=trainable_layers)
    statistics = {"image_mean": list(found.mean), "image_std": list(found.std)}
    try:
        detector: nn.Module = make(found, num_classes, **{**statistics, **options})
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{family} does not take the options {options}: {error}.") from error
    return detector


def check_options(
    name: str, kind: type[nn.Module], options: Iterable[str], own: Sequence[str] = ()
) -> None:
    """Refuse what a class of torchvision would take and not look at.

    Args:
        name: Of the detector, for the message.
        kind: Its class.
        options: Asked for.
        own: Those that are not the class's.

    Raises:
        NetworkError: There is no option of that name.
    """
    known = [*own, *(key for key in signature(kind).parameters if key != "kwargs")]
    for key in options:
        if key not in known:
            raise NetworkError(
                f"{name} has no option {key!r}{suggestion(key, known)}. It has: {', '.join(known)}."
            )


# ---- over a feature pyramid ----------------------------------------------------------------------


def _pyramid(trunk: Trunk, channels: int, extra: ExtraFPNBlock) -> BackboneWithFPN:
    # torchvision's class makes its body of parts that run one after the other, as timm's do not.
    found = BackboneWithFPN(nn.Sequential(nn.Identity()), {"0": "0"}, trunk.widths, channels, extra)
    found.body = trunk.body
    return found


_MAPS = 5
"""Of every pyramid."""


def _anchors(
    sizes: Sequence[int], ratios: tuple[float, ...], scales: tuple[float, ...] = (1.0,)
) -> AnchorGenerator:
    """Anchors of one size for each map, in some ratios of height to width and some scales."""
    if len(sizes) != _MAPS or any(size <= 0 for size in sizes):
        raise ValueError(f"anchors are {_MAPS} sizes above 0, one for each map")
    each = tuple(tuple(int(size * scale) for scale in scales) for size in sizes)
    return AnchorGenerator(each, (ratios,) * _MAPS)


def _fasterrcnn(
    trunk: Trunk, classes: int, *, channels: int = 256, anchors: Sequence[int] = (), **options: Any
) -> nn.Module:
    pyramid = _pyramid(trunk, channels, LastLevelMaxPool())
    if anchors:
        options["rpn_anchor_generator"] = _anchors(anchors, _RATIOS)
    detector: nn.Module = FasterRCNN(pyramid, classes, **options)
    return detector


def _dense(
    kind: Callable[..., nn.Module],
    generator: Callable[[Sequence[int]], AnchorGenerator],
    trunk: Trunk,
    classes: int,
    *,
    channels: int = 256,
    anchors: Sequence[int] = (),
    **options: Any,
) -> nn.Module:
    pyramid = _pyramid(trunk, channels, LastLevelP6P7(channels, channels))
    if anchors:
        options["anchor_generator"] = generator(anchors)
    return kind(pyramid, classes, **options)


_RATIOS, _OCTAVE = (0.5, 1.0, 2.0), (1, 2 ** (1 / 3), 2 ** (2 / 3))
_fcos = partial(_dense, FCOS, partial(_anchors, ratios=(1.0,)))
_retinanet = partial(_dense, RetinaNet, partial(_anchors, ratios=_RATIOS, scales=_OCTAVE))


# ---- over single maps ----------------------------------------------------------------------------


@final
class Levels(nn.Module):
    """Maps of a backbone and, each of half the resolution, some more.

    Args:
        body: Gives maps by name.
        width: Channels of the last of them.
        extra: Channels of each further map.
    """

    def __init__(self, body: nn.Module, width: int, extra: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.extra = nn.ModuleList(
            _halving(*pair) for pair in zip([width, *extra[:-1]], extra, strict=True)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """All maps by number, the finest first."""
        maps = list(self.body(images).values())
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), each) for i, each in enumerate(maps))


_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
_layer = partial(Conv2dNormActivation, norm_layer=_norm, activation_layer=nn.ReLU6)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    inner = outputs // 2  # as in torchvision's SSDlite
    return nn.Sequential(
        _layer(inputs, inner, kernel_size=1),
        _layer(inner, inner, stride=2, groups=inner),
        _layer(inner, outputs, kernel_size=1),
    )


def _ssd(
    head: Callable[..., nn.Module],
    trunk: Trunk,
    classes: int,
    *,
    size: int = 320,
    extra: Sequence[int] = EXTRA,
    **options: Any,
) -> nn.Module:
    widths = [*trunk.widths, *extra]
    anchors = DefaultBoxGenerator([[2, 3]] * len(widths), min_ratio=0.2, max_ratio=0.95)
    counts = anchors.num_anchors_per_location()
    levels = Levels(trunk.body, trunk.widths[-1], extra)
    scores = head(widths, counts, classes)
    detector: nn.Module = SSD(levels, anchors, (size, size), classes, head=scores, **options)
    return detector


_PYRAMID, _SINGLE = ("backbone", "channels", "anchors"), ("backbone", "extra")
_FAMILIES: dict[
    str, tuple[Callable[..., Any], type[nn.Module], tuple[str, ...], tuple[int, ...]]
] = {
    "fasterrcnn": (_fasterrcnn, FasterRCNN, _PYRAMID, (4, 8, 16, 32)),
    "fcos": (_fcos, FCOS, _PYRAMID, (8, 16, 32)),
    "retinanet": (_retinanet, RetinaNet, _PYRAMID, (8, 16, 32)),
    "ssd": (partial(_ssd, SSDHead), SSD, _SINGLE, (16, 32)),
    "ssdlite": (partial(_ssd, partial(SSDLiteHead, norm_layer=_norm)), SSD, _SINGLE, (16, 32)),
}
NAMES = tuple(_FAMILIES)
"""Of the families."""
