"""Names of the classes of ImageNet, by logit: as words, and as its folders are called."""

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn
from torchvision.models import ResNet18_Weights

Names = tuple[str, ...]


def spellings(module: nn.Module) -> list[Names]:
    """Return every spelling of the classes of pretrained weights of timm; empty if not known.

    Args:
        module: Network of timm, with as many classes as its weights.
    """
    names = getattr(module, "pretrained_cfg", {}).get("label_names") or ()
    subset = infer_imagenet_subset(module)
    # Names that come with the weights are certain; a subset is guessed from their number.
    own = [tuple(map(str, names))] if names else []
    return own + (_of_subset(subset) if subset is not None else [])


def with_folders(words: Names) -> list[Names]:
    """Return the class names of weights of torchvision, and ImageNet's folders if they are its."""
    return _of_subset("imagenet-1k") if words == _WORDS else [words]


def _of_subset(subset: str) -> list[Names]:
    """Return words, WordNet ids (`n01440764`) and descriptions with synonyms."""
    info = ImageNetInfo(subset)
    numbers = range(info.num_classes())
    described = tuple(info.index_to_description(k) for k in numbers)
    first = tuple(text.partition(",")[0] for text in described)
    # torchvision's words differ for each class, as the first of the synonyms do not.
    words = _WORDS if len(_WORDS) == len(numbers) else first
    return [words, tuple(info.index_to_label_name(k) for k in numbers), described, first]


_WORDS: Names = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
