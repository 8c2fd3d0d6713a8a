"""Groups of keys of a recipe: data, networks, bank and training. Imports no torch.

The string under each field is its help. What may be `auto` is chosen by `experiment.defaults` for
the images and networks at hand; the papers' recipes state all of it (`recipes/_papers.yaml`).
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from understudy.config.image_size import ImageSize
from understudy.config.limits import (
    AUTO,
    Count,
    Epochs,
    InEpochs,
    MixingShape,
    NonNegative,
    OrAuto,
    PathText,
    Pixels,
    Positive,
    Range,
    Seed,
    Share,
    ShareBelowAll,
)


@dataclass(frozen=True)
class Data:
    """Source of the images, and how they are augmented."""

    source: str = "fashion"
    """Name of a data source: see `understudy list data`."""
    root: PathText = ""
    """Folder or file of the source; sources shipped with Understudy need none."""
    unlabelled: PathText = ""
    """Folder of images without labels that join the training images; default: a folder
    `unlabelled` beside `train` of the source `folder`. `none`: no such images."""
    size: ImageSize | None = None
    """Side of the training view in pixels, or its height and width, such as `224 160`; default: the
    source's own size, or 224."""
    augment: Annotated[
        Literal["none", "flip", "crop_flip", "resized_crop", "squash_flip", "scale_jitter"],
        OrAuto(),
    ] = AUTO
    """`crop_flip`: pad 4, crop, mirror (small images); `resized_crop`: as on ImageNet;
    `squash_flip`: the whole image as a square; `scale_jitter`: enlarged or reduced, with boxes."""
    seed: Seed | None = None
    """Seed of the views, and of what `images` and `labels` choose; default: the recipe's. Runs that
    share a bank need the same."""
    validation: Annotated[ShareBelowAll, OrAuto()] = AUTO
    """Share of the training images held out as the validation split, which chooses the best epoch;
    0: the source's own validation split, if it has one, which `auto` uses too. The test split stays
    what it is. All seeds hold out the same images, so that no teacher has seen them."""
    images: Count | None = None
    """Number of training images to use, the same number of every class; default: all."""
    labels: Count | None = None
    """Number of training images whose labels are used; the others count as unlabelled. Default:
    all."""
    labelled_share: Annotated[float, Range(above=0, most=1)] | None = None
    """Share of every batch that is drawn from labelled images, where other images have no label."""
    balance: Share = 0.0
    """Class-balanced sampling: 1 shows every class equally often, 0.5 by the square root of its
    number of images, 0 every image once. Images of rare classes repeat, in other views."""
    shuffle_buffer: Annotated[int, Range(least=0)] = 0
    """For sources of shards (`webdataset`, `parquet`): images among which each next one is drawn,
    so that few shards are read at a time. 0: all images of the split."""
    unreadable: Literal["skip", "fail"] = "skip"
    """For a file that is not an image: skip and count it, or stop."""
    faulty: Literal["repair", "skip", "fail"] = "repair"
    """For faulty annotations: repair boxes or drop them, and skip an image of which none is left;
    skip every faulty image; or stop."""
    difficult: Literal["ignore", "published"] = "ignore"
    """Objects marked difficult: `ignore` counts them neither as hit nor as error; `published`, as
    in LSHFM, counts them as present in multi-label training and removes them in detection, where
    detecting them is then an error."""
    workers: Annotated[int, Range(least=0, most=1024)] = 0
    """Processes that decode image files."""
    jitter: Annotated[float, Range(least=0, most=10)] = 0.0
    """Strength of a random change of brightness, contrast and saturation, as in torchvision."""
    transforms: Annotated[tuple[str | dict[str, Any], ...], OrAuto()] = AUTO
    """Further transforms of the training views, in order behind `augment` and `jitter`: names of
    torchvision's, such as `RandAugment`, `TrivialAugment` or `{name: RandomErasing, p: 0.25}`, or
    `path/to/file.py:factory`. With `before: true`, of the whole image before it is cropped. `[]`:
    none."""
    mixup: MixingShape = 0.0
    """Mix every batch with itself in reverse by a share from Beta(mixup, mixup); 0: no mixup."""
    cutmix: MixingShape = 0.0
    """Paste a box of the other image instead; with both, a step draws one of them. 0: no cutmix."""
    decoded: PathText = ""
    """Folder that stores every image decoded, so that it is decoded only once; default: none."""
    decoded_side: Pixels | None = None
    """Shorter side in pixels to which decoded images are reduced; default: unchanged."""


@dataclass(frozen=True)
class Network:
    """A network by name, with its weights and input."""

    shorthand: ClassVar[str] = "name"

    name: PathText = ""
    """`resnet8x4`, `timm:NAME`, `hf-hub:OWNER/NAME` (a model of timm on the hub of Hugging Face),
    `torchvision:NAME`, `hf:PATH` or `path/to/file.py:factory`."""
    weights: PathText = ""
    """`pretrained`, a run directory, or a file of weights that holds no code; `own` if the function
    of a Python file loads them itself."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the function that builds the network."""
    taps: dict[str, str] = field(default_factory=dict)
    """Feature name → module path, for features that are not found automatically."""
    classifier: str = ""
    """Path of the layer or module that computes the logits of the penultimate feature; default:
    found automatically; `none`: the network has none, and its output is the feature."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of its logits, of a network that is trained already;
    default: those that its weights name, or else the order of the data."""
    size: ImageSize | None = None
    """Side in pixels of the images this network takes, or their height and width; default: what it
    was trained with."""
    mean: tuple[float, ...] | None = None
    """Channel means this network subtracts, for values in [0, 1]."""
    std: tuple[Positive, ...] | None = None
    """Channel standard deviations this network divides by."""
    pool: Literal["", "gap", "gmp", "gwp"] = ""
    """Pooling of the last map: mean, maximum, or the mean of both; default: the network's own."""


@dataclass(frozen=True)
class Student(Network):
    """The network to train."""

    size: Annotated[ImageSize | None, OrAuto()] = AUTO
    """Side in pixels of the images this network takes, or their height and width; `auto`: that of
    `data.size`, if it is set, else what it was built for."""


@dataclass(frozen=True)
class Bank:
    """Stored outputs of the teacher; without a path the teacher runs in every step."""

    path: PathText = ""
    """Directory of the bank; created if missing, and filled as training meets new views."""
    features: tuple[str, ...] = ("penultimate", "logits")
    """Features that are stored; methods that read others are refused. Of a detector its maps are
    stored, from which all of its features are read."""
    dtype: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format; with `fp32` the student is the same to the bit as without a bank."""
    top_logits: Count | None = None
    """Store only this many of the largest logits, and one value for all others; default: all."""
    codes: bool = False
    """Also store what methods compute from the teacher alone, such as the hash bits of lshfm."""
    views: Count = 1
    """Views stored per image, where augmentation has more than a few."""


@dataclass(frozen=True)
class OneTeacher(Network):
    """One of several teachers: a network with its methods and its bank."""

    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label → hyper-parameters and `weight`, as `methods` of a recipe with one teacher."""
    bank: Bank = field(default_factory=Bank)
    """Stored outputs of this teacher."""


@dataclass(frozen=True)
class Training:
    """Optimizer, schedule, precision and evaluation."""

    epochs: Annotated[Epochs, OrAuto()] = AUTO
    """Passes over the training images; `auto`: by their number."""
    batch: Count = 64
    """Images per optimizer step, over all processes."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller than the others."""
    accumulate: Count = 1
    """Forward passes per optimizer step; more need less memory."""
    optimizer: Annotated[str, OrAuto()] = AUTO
    """Optimizer of the student and of the methods' parameters: `sgd` and `adamw` are those of
    torch, `timm:NAME` is any of timm, such as `timm:lion`. `auto`: by the student's family."""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, such as `betas`."""
    lr: Annotated[NonNegative, OrAuto()] = AUTO
    """Learning rate at its peak; `auto`: by the optimizer, the student's family and the batch."""
    momentum: ShareBelowAll = 0.9
    """Momentum of SGD, and of optimizers of timm that have one."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: Annotated[NonNegative, OrAuto()] = AUTO
    """Weight decay; `auto`: by the optimizer."""
    decay_norms: Annotated[bool, OrAuto()] = AUTO
    """Weight decay on norms and biases too, as in most papers; `auto`: for SGD alone."""
    layer_decay: Annotated[float, Range(above=0, most=1)] | None = None
    """Factor of the learning rate from each layer of the student to the one below it, for networks
    of timm that start from weights; default: one rate for all."""
    schedule: Annotated[Literal["constant", "step", "cosine", "linear"], OrAuto()] = AUTO
    """`step` multiplies by `gamma` at each milestone; `cosine` and `linear` decay to 0. `auto`:
    `cosine`, unless there are milestones."""
    milestones: tuple[Epochs, ...] = (150, 180, 210)
    """Epochs after which the step schedule multiplies by `gamma`."""
    gamma: Annotated[float, Range(above=0, most=1)] = 0.1
    """Factor of the step schedule."""
    warmup_epochs: Annotated[float, Range(least=0), InEpochs(whole=False), OrAuto()] = AUTO
    """Linear rise of the learning rate from 0 at the start; `auto`: a twentieth of the epochs."""
    clip: Positive | None = None
    """Largest norm of the gradient; default: no limit, or 10 for the hash losses of detectors."""
    multilabel_loss: Literal["bce", "asymmetric"] = "bce"
    """Loss on labels of `task: multilabel`; `asymmetric` gives absent ones less weight (Ridnik
    2021)."""
    asymmetry: tuple[NonNegative, NonNegative, ShareBelowAll] = (0.0, 4.0, 0.05)
    """Asymmetric loss: focusing of present classes, focusing of absent classes, clip."""
    class_weights: Literal["none", "balanced"] | tuple[NonNegative, ...] = "none"
    """Weights of the classes in the loss on labels: `balanced`, by how rare they are, or a list in
    the order of the classes. Their mean over the training labels is 1."""
    label_smoothing: ShareBelowAll = 0.0
    """Share of every label that is distributed over all classes."""
    only: tuple[str, ...] = ()
    """Train only these parameters of the student, such as `*.embedding.*`; default: all."""
    ema: ShareBelowAll | None = None
    """Decay of an exponential moving average of the student, which is then evaluated and saved;
    default: none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the networks; losses are always float32. `auto`: bf16 where it is fast."""
    teacher_precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the teacher; `auto` is that of the student."""
    compile: bool = False
    """Compile student, methods and teacher with torch.compile."""
    graphs: bool = True
    """On a GPU, capture whole steps on images in memory as CUDA graphs, sixteen in a launch."""
    channels_last: bool | None = None
    """Use the channels-last layout for images and convolutions; default: where it is faster."""
    evaluate_every: Count = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    best: Literal["validation", "test", "none"] = "validation"
    """Images that choose the epoch kept in `best/`: none is kept without a validation split. `test`
    is what many papers report, and flatters that epoch."""
    patience: Count | None = None
    """Evaluations on validation images without a better one, after which training ends; default:
    all epochs are trained."""
    checkpoint_minutes: NonNegative = 10.0
    """Minutes between saves within an epoch; the end of an epoch is always saved."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that receive the numbers of every epoch, besides the run directory."""
