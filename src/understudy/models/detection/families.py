"""Families of detectors over any backbone, built as plain modules of torchvision.

| name | detector | maps of the backbone |
|---|---|---|
| `fasterrcnn` | `FasterRCNN` over a feature pyramid, p2 to p6 | strides 4, 8, 16, 32 |
| `retinanet`, `fcos` | `RetinaNet`, `FCOS` over a feature pyramid, p3 to p7 | strides 8, 16, 32 |
| `ssdlite`, `ssd` | `SSD` with a depthwise or a plain head, six levels | strides 16, 32 |

Options are `backbone` (`resnet50`, `vgg16`, `mobilenet_v2`, `timm:NAME`, …), `backbone_weights`
(`pretrained`, a name of torchvision's such as `IMAGENET1K_V1`, a file or a run of a classifier),
`trainable_layers`, `channels` of the pyramid, `anchors`, `min_size` and `max_size` of the images;
for SSD one `size` and the channels of its `extra` levels; and all other keywords of the class of
torchvision.

`anchors` is one size in pixels per map, finest first. torchvision's are [32, 64, 128, 256, 512] in
Faster R-CNN and, each in three scales, in RetinaNet; objects in small images need smaller ones. In
FCOS, where they are [8, 16, 32, 64, 128], an object belongs to the map where the farthest side of
its box is 4 to 8 of these sizes away. The boxes of SSD are proportional to the image.

A detector with a pyramid over a backbone of torchvision needs nothing of Understudy to run; this
builds the module to load its weights into:

    from torchvision.models import resnet18
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    layers, widths = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    detector = FasterRCNN(BackboneWithFPN(resnet18(), layers, widths, 256), num_classes=21)

RetinaNet and FCOS have `extra_blocks=LastLevelP6P7(256, 256)`, and the layers of strides 8, 16 and
32. A VGG is cut after each max-pool (Wang, Ge & Wu, arXiv 2011.01424). For other detectors `build`
of this file builds the module to load into; it needs two short modules of Understudy,
`backbones.NumberedMaps` and `SingleMaps`.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
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

from understudy.config.limits import Count, PathText, Pixels, Positive, Share, Whole
from understudy.config.schema import convert
from understudy.errors import NetworkError, suggestion
from understudy.models.detection.backbones import Backbone, build_backbone

EXTRA = (512, 256, 256, 128)
"""Channels of the levels that SSD and SSDlite add to the maps of the backbone."""


def build(
    family: str,
    num_classes: int,
    *,
    backbone: str = "resnet50",
    backbone_weights: str = "",
    trainable_layers: int | None = None,
    **options: Any,
) -> nn.Module:
    """Build a detector of a family.

    Args:
        family: One of `NAMES`.
        num_classes: Number of classes, with the background.
        backbone: Name of the backbone: see `backbones.build_backbone`.
        backbone_weights: Weights of the backbone: see `backbones.build_backbone`.
        trainable_layers: Number of the backbone's last stages to train.
        options: See the docstring of this module.

    Raises:
        NetworkError: The backbone cannot be built, or an option does not exist.
    """
    make, kind, own, strides = _FAMILIES[family]
    check_options(family, kind, options, own)
    of_backbone = {"backbone": backbone, "backbone_weights": backbone_weights}
    check_values(of_backbone | {"trainable_layers": trainable_layers})
    base = build_backbone(backbone, strides, weights=backbone_weights, trainable=trainable_layers)
    statistics = {"image_mean": list(base.mean), "image_std": list(base.std)}
    try:
        detector: nn.Module = make(base, num_classes, **{**statistics, **options})
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{family} does not take the options {options}: {error}.") from error
    return detector


def check_options(
    name: str, kind: type[nn.Module], options: Mapping[str, Any], own: Sequence[str] = ()
) -> None:
    """Refuse unknown options, which a class of torchvision would accept in `kwargs` and ignore.

    Args:
        name: Name of the detector, for the message.
        kind: Class of the detector.
        options: The options asked for.
        own: Names of options that the class itself does not have.

    Raises:
        NetworkError: There is no option of that name.
        RecipeError: The value of one makes no sense.
    """
    known = [*own, *(key for key in signature(kind).parameters if key != "kwargs")]
    for key in options:
        if key not in known:
            raise NetworkError(
                f"{name} has no option {key!r}{suggestion(key, known)}. It has: {', '.join(known)}."
            )
    check_values(options)


_VALUES: dict[str, Any] = {
    "backbone*": PathText,
    "trainable_layers": Whole,
    "min_size": Pixels | tuple[Pixels, ...],
    "max_size": Pixels,
    "size": Pixels | tuple[Pixels, Pixels],
    "image_mean": tuple[float, ...],
    "image_std": tuple[Positive, ...],
    "channels": Count,
    "widths": tuple[Count, ...],
    "*_thresh": Share,
    "*positive_fraction": Share,
    **dict.fromkeys(("*_per_img", "*_per_image", "*_top_n_*", "topk_candidates"), Count),
}
"""Types and limits of options by their names, of which torchvision checks hardly any."""


def check_values(options: Mapping[str, Any]) -> None:
    """Refuse values of options that make no sense; None is a default.

    Raises:
        RecipeError: Names the option and what it can be.
    """
    for key, value in options.items():
        hints = [hint for pattern, hint in _VALUES.items() if fnmatchcase(key, pattern)]
        if hints and value is not None:
            convert(hints[0], value, f"options.{key}")


# ---- over a feature pyramid ----------------------------------------------------------------------


def _pyramid(base: Backbone, channels: int, extra: ExtraFPNBlock) -> BackboneWithFPN:
    # torchvision's class builds its body from children that run in sequence. Those of timm do not,
    # so that it gets a placeholder, and the body afterwards.
    placeholder = nn.Sequential(nn.Identity())
    pyramid = BackboneWithFPN(placeholder, {"0": "0"}, base.widths, channels, extra)
    pyramid.body = base.body
    return pyramid


_MAPS = 5
"""Number of maps of every pyramid."""


def _anchors(
    sizes: Sequence[int], ratios: tuple[float, ...], scales: tuple[float, ...] = (1.0,)
) -> AnchorGenerator:
    """Build anchors of one size per map, in all given ratios of height to width and scales."""
    if len(sizes) != _MAPS or any(size <= 0 for size in sizes):
        raise ValueError(f"anchors are {_MAPS} sizes above 0, one for each map")
    by_map = tuple(tuple(int(size * scale) for scale in scales) for size in sizes)
    return AnchorGenerator(by_map, (ratios,) * _MAPS)


def _fasterrcnn(
    base: Backbone,
    classes: int,
    *,
    channels: int = 256,
    anchors: Sequence[int] = (),
    **options: Any,
) -> nn.Module:
    pyramid = _pyramid(base, channels, LastLevelMaxPool())
    if anchors:
        options["rpn_anchor_generator"] = _anchors(anchors, _RATIOS)
    detector: nn.Module = FasterRCNN(pyramid, classes, **options)
    return detector


def _dense(
    kind: Callable[..., nn.Module],
    generator: Callable[[Sequence[int]], AnchorGenerator],
    base: Backbone,
    classes: int,
    *,
    channels: int = 256,
    anchors: Sequence[int] = (),
    **options: Any,
) -> nn.Module:
    pyramid = _pyramid(base, channels, LastLevelP6P7(channels, channels))
    if anchors:
        options["anchor_generator"] = generator(anchors)
    return kind(pyramid, classes, **options)


_RATIOS, _OCTAVE = (0.5, 1.0, 2.0), (1, 2 ** (1 / 3), 2 ** (2 / 3))
_fcos = partial(_dense, FCOS, partial(_anchors, ratios=(1.0,)))
_retinanet = partial(_dense, RetinaNet, partial(_anchors, ratios=_RATIOS, scales=_OCTAVE))


# ---- over single maps ----------------------------------------------------------------------------


@final
class SingleMaps(nn.Module):
    """Maps of a backbone and further maps, each of half the resolution of the one before.

    Args:
        body: Returns maps, named `0`, `1` and so on.
        widths: Channels of each of them.
        extra: Channels of each further map.
    """

    def __init__(self, body: nn.Module, widths: Sequence[int], extra: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.names = [str(i) for i in range(len(widths))]
        self.extra = nn.ModuleList(
            _halving_block(*pair) for pair in zip([widths[-1], *extra[:-1]], extra, strict=True)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Compute all maps, named `0`, `1` and so on, the finest first."""
        of_body = self.body(images)
        # By name and not by their number, so that torch.fx can follow.
        maps = [of_body[name] for name in self.names]
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), x) for i, x in enumerate(maps))


_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
_layer = partial(Conv2dNormActivation, norm_layer=_norm, activation_layer=nn.ReLU6)


def _halving_block(inputs: int, outputs: int) -> nn.Sequential:
    """Build a block that halves the resolution of a map, as torchvision's SSDlite does."""
    inner = outputs // 2
    return nn.Sequential(
        _layer(inputs, inner, kernel_size=1),
        _layer(inner, inner, stride=2, groups=inner),
        _layer(inner, outputs, kernel_size=1),
    )


def _ssd(
    head: Callable[..., nn.Module],
    base: Backbone,
    classes: int,
    *,
    size: int = 320,
    extra: Sequence[int] = EXTRA,
    **options: Any,
) -> nn.Module:
    widths = [*base.widths, *extra]
    anchors = DefaultBoxGenerator([[2, 3]] * len(widths), min_ratio=0.2, max_ratio=0.95)
    maps = SingleMaps(base.body, base.widths, extra)
    heads = head(widths, anchors.num_anchors_per_location(), classes)
    detector: nn.Module = SSD(maps, anchors, (size, size), classes, head=heads, **options)
    return detector


_PYRAMID, _SINGLE = ("backbone", "channels", "anchors"), ("backbone", "extra")
_Family = tuple[Callable[..., Any], type[nn.Module], tuple[str, ...], tuple[int, ...]]
_FAMILIES: dict[str, _Family] = {
    "fasterrcnn": (_fasterrcnn, FasterRCNN, _PYRAMID, (4, 8, 16, 32)),
    "fcos": (_fcos, FCOS, _PYRAMID, (8, 16, 32)),
    "retinanet": (_retinanet, RetinaNet, _PYRAMID, (8, 16, 32)),
    "ssd": (partial(_ssd, SSDHead), SSD, _SINGLE, (16, 32)),
    "ssdlite": (partial(_ssd, partial(SSDLiteHead, norm_layer=_norm)), SSD, _SINGLE, (16, 32)),
}
"""Name → builder, class, options that are not the class's, and strides of the backbone's maps."""
NAMES = tuple(_FAMILIES)
"""Names of the families."""
