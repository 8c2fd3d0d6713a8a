"""A network as Understudy sees it: any module, its input contract, and its features by name."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Observation, Shapes
from understudy.layers.kd_layer import Followed, drop_idle, recorded
from understudy.layers.reused_head import LAST_MAP, fill, is_average, translators
from understudy.models import insertion_points
from understudy.models.base import Wrapped
from understudy.models.embedding import Embedded, classifier_like, linear_like
from understudy.models.feature_discovery import Anatomy, discover
from understudy.models.pooling import Pool, averages, put
from understudy.models.preprocessing import ANY_INPUT, Input
from understudy.models.taps import attach, first_tensor, run, settle, still, taken, vector

DRY_SIZE = 224
"""Side of the images of the dry pass of a network that takes any size."""


class Network(Wrapped):
    """Any module that maps images to logits (or vectors, without a classifier), features by name.

    `network.module` stays the plain network: nothing is added to its state dict. Features are read
    by taps (forward hooks), found automatically unless the module declares them itself.

    Args:
        module: Takes normalised images `(batch, 3, height, width)`.
        input: How images in [0, 1] are resized and normalised for it.
        taps: Feature name → `module.path` (its output) or `module.path:input`; adds to the taps
            found, or replaces them.
        classifier: Path of the last layer; None finds it, "" says there is none.
        pool: How the last map becomes `penultimate`, if other than by the average: see `pooling`.
        name: What errors and tables call the network.

    Raises:
        NetworkError: The module does not accept the images, or a tap's path does not exist, is
            never called or is called twice in a pass.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input: Input = ANY_INPUT,
        taps: Mapping[str, str] | None = None,
        classifier: str | None = None,
        pool: Pool = "",
        name: str = "",
    ) -> None:
        super().__init__()
        self.module = module
        self.input = input
        self.name = name or type(module).__name__
        like = next(module.parameters(), torch.empty(0))
        for key, values in (("_mean", input.mean), ("_std", input.std)):
            self.register_buffer(key, like.new_tensor(values).view(-1, 1, 1), persistent=False)
        if pool:
            put(module, pool, self._dry_images(), self.name)
        self._anatomy = self._examine(classifier)
        self.taps: dict[str, str] = {**self._anatomy.taps, **self._places(), **(taps or {})}
        if "penultimate" in self.taps:  # features are listed in the order of the computation
            self.taps["penultimate"] = self.taps.pop("penultimate")
        self._embedded, self._reheaded = "", False
        self._handles: list[RemovableHandle] = []
        self._attach()

    # ---- what it computes -----------------------------------------------------------------------

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Features:
        """Every tapped feature, `penultimate`, and `logits` if there is a classifier.

        Args:
            images: Values in [0, 1], of any size.
        """
        output = first_tensor(self.module(self._normalise(images)))
        assert output is not None  # the dry pass has seen one
        found = taken(self._taps)
        if self.classifier:
            return found | {"logits": output}
        return found if "penultimate" in found else found | {"penultimate": vector(output)}

    def observe(self, batch: Batch) -> Observation:
        """Features of whole images."""
        return Observation(self.features(batch.images), batch)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits; the penultimate vector if there is no classifier."""
        features = self.features(images)
        return features["logits" if self.classifier else "penultimate"]

    # ---- what is known of it --------------------------------------------------------------------

    @property
    def shapes(self) -> Shapes:
        """Shape of every feature at the network's own input size (`DRY_SIZE` if it takes any)."""
        return self._shapes

    @property
    def classifier(self) -> str:
        """Path of the last layer inside `module`; empty if there is none."""
        return self._anatomy.classifier

    @property
    def num_classes(self) -> int | None:
        """Width of the logits; None without a classifier."""
        return self.shapes.width("logits") if self.classifier else None

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the last layer; None without a classifier."""
        return self._layer().weight.flatten(1) if self.classifier else None

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the last layer; None if it has none, or without a classifier."""
        return self._layer().bias if self.classifier else None

    def feature_table(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, place in the module and shape of every feature."""
        return [(name, self.taps.get(name, "output"), shape) for name, shape in self.shapes.items()]

    # ---- how it is changed ----------------------------------------------------------------------

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the classifier, which is made anew.

        The embedding has a bias, no norm and no activation (Wang, Ge & Wu, arXiv 2011.01424);
        `penultimate` becomes its output. A dropout that stood before the classifier still does.

        Raises:
            NetworkError: There is no linear classifier whose output is the logits, or the network
                is embedded already.
        """
        if self._embedded and self.shapes.vector("penultimate") == dim:
            return  # it came with the weights, from a first stage of training
        old = self._layer() if self.classifier else None
        if self._embedded or not isinstance(old, nn.Linear) or not self._anatomy.exact:
            raise NetworkError(
                f"{self.name} cannot take an embedding layer: it needs one linear classifier that "
                "gives the logits, and no embedding yet; its classifier is "
                f"{self.classifier or 'missing'!r}."
            )
        path, dropout = self.classifier, self._anatomy.dropout
        embedding = linear_like(old, old.in_features, dim, bias=True)
        classifier = linear_like(old, dim, old.out_features, bias=old.bias is not None)
        for layer in (embedding, classifier):
            self._initialise(layer)
        drop = self.module.get_submodule(dropout) if dropout else nn.Identity()
        if dropout:
            self.module.set_submodule(dropout, nn.Identity())
        self.module.set_submodule(path, Embedded(embedding, drop, classifier))
        self._embedded = path
        self._anatomy = replace(self._anatomy, classifier=f"{path}.classifier")
        self.taps["penultimate"] = f"{path}.embedding"
        self._attach()

    def insert(
        self, feature: str, layer: nn.Module, taps: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Let a map pass through one more layer, which stays, also in `plain()`.

        Args:
            feature: The map, which from now on is what the layer gives.
            layer: Gives a map of the same shape.
            taps: Feature name → path inside the layer, for what is read there.

        Raises:
            NetworkError: The feature is no map that a module gives.
        """
        if self.shapes.kind(feature) != "map" or self.taps[feature].endswith(":input"):
            raise NetworkError(
                f"No layer can be put at {feature!r} of {self.name}, which must be a map that a "
                "module gives; name such a module by a tap."
            )
        path = self.taps[feature]
        self._follow(path, layer)
        self.taps |= {name: f"{path}.layer.{inner}" for name, inner in taps.items()}
        self._attach()

    def depends_only_on_mean(self, feature: str) -> bool:
        """Whether nothing but the mean over the locations of a map matters to the output."""
        if self._places().get("penultimate/map") != self.taps[feature]:
            return False  # later layers may let nothing pass as yet, and do so once trained
        with still(self.module):
            return averages(self.module, self.taps[feature], self._dry_images())

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Let the last map pass through a layer that stays, and classify its average anew.

        Args:
            layer: Gives a map of any shape, from now on `penultimate/map`.
            classifier: Stays frozen, for `take_classifier` to fill.

        Raises:
            NetworkError: The classifier is not linear, or reads more than the map's average.
        """
        if self._embedded or self._reheaded or not self._reads_average():
            raise NetworkError(
                f"{self.name} cannot take another head: its classifier must be a linear layer that "
                f"reads the average of {LAST_MAP!r} and gives the logits, with no layer added yet."
            )
        self._rehead(self.taps[LAST_MAP], layer, classifier)
        self._attach()

    def take_classifier(self, other: Wrapped) -> None:
        """Fill the classifier of a new head with another network's; any other stays as it is."""
        if self._reheaded:
            fill(self._layer(), other.classifier_weight, other.classifier_bias)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Insert the layers that a state dict is of; their values are still to be loaded."""
        embedding = state.get(f"{self.classifier}.embedding.weight")
        if embedding is not None:
            self.embed(len(embedding))
        for path, layer in recorded(state):
            self._follow(path, layer)
        for path, translator in translators(state):
            self._rehead(path, translator, nn.Linear(*state[f"{self.classifier}.weight"].T.shape))
        self._attach()

    def renew_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for another number of classes.

        Raises:
            NetworkError: There is no classifier.
        """
        if not self.classifier:
            raise NetworkError(
                f"{self.name} has no classifier that could be made anew for {num_classes} classes; "
                "name its path with `classifier`."
            )
        for path in filter(None, (self.classifier, self._anatomy.second)):
            new = classifier_like(self._layer(path), num_classes)
            self._initialise(new)
            self.module.set_submodule(path, new)
        self._attach()

    def plain(self) -> nn.Module:
        """The network to deploy: a copy in eval mode, without taps, the embedding folded in.

        With embedding g ↦ A g + a and classifier f ↦ C f + c, the folded classifier is
        g ↦ (C A) g + (C a + c), computed in float64.
        """
        copy = deepcopy(self)
        copy._detach()
        if copy._embedded:
            block = copy.module.get_submodule(copy._embedded)
            assert isinstance(block, Embedded)
            copy.module.set_submodule(copy._embedded, block.fold())
            if copy._anatomy.dropout:
                copy.module.set_submodule(copy._anatomy.dropout, block.dropout)
        drop_idle(copy.module)
        return copy.module.eval()

    # ---- inside ---------------------------------------------------------------------------------

    def _normalise(self, images: Tensor) -> Tensor:
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        # In place: a second batch of floats would cost several times the division itself.
        return (self.input.resize(images) - mean).div_(std)

    def _dry_images(self) -> Tensor:
        """Two images of noise as the module wants them; the global random state is not touched."""
        size = self.input.size or DRY_SIZE
        noise = torch.rand(
            2, len(self.input.mean), size, size, generator=torch.Generator().manual_seed(0)
        )
        mean = self.get_buffer("_mean")
        return self._normalise(noise.to(mean.device, mean.dtype))

    def _examine(self, classifier: str | None) -> Anatomy:
        """Taps and classifier: as the module declares them, else as a traced pass shows them."""
        declared = getattr(self.module, "taps", None)
        if isinstance(declared, Mapping):
            path = getattr(self.module, "classifier_path", "") if classifier is None else classifier
            return Anatomy(dict(declared), path)
        with still(self.module):
            return discover(self.module, self._dry_images(), classifier)

    def _places(self) -> dict[str, str]:
        with still(self.module):
            return insertion_points.find(self.module, self._dry_images())

    def _follow(self, path: str, layer: nn.Module) -> None:
        """Put a layer behind the module at a path; taps inside that module move with it."""
        body, like = self.module.get_submodule(path), self.get_buffer("_mean")
        with still(self.module):
            taps, _, _ = settle(self.module, {"map": path}, self._dry_images())
        layer.to(like.device, like.dtype).train(body.training)
        channels_last = taps["map"].layout == "channels last"
        self.module.set_submodule(path, Followed(body, layer, channels_last=channels_last))
        inside, moved = f"{path}.", f"{path}.body."
        self.taps = {
            name: place.replace(inside, moved, 1) if place.startswith(inside) else place
            for name, place in self.taps.items()
        }

    def _reads_average(self) -> bool:
        """Whether the classifier, linear and last, reads just the average of the last map."""
        linear = self.classifier and isinstance(self._layer(), nn.Linear) and self._anatomy.exact
        if not linear or self.shapes.kind(LAST_MAP) != "map":
            return False
        with still(self.module):
            run(self.module, self._dry_images())
        found = taken(self._taps)
        return is_average(found["penultimate"], found[LAST_MAP])

    def _rehead(self, path: str, layer: nn.Module, classifier: nn.Linear) -> None:
        self._follow(path, layer)
        classifier.requires_grad_(False).to(self._layer().weight)
        self.module.set_submodule(self.classifier, classifier)
        # Whatever else was read at that place is still what the module gives.
        others = {k for k, place in self.taps.items() if place == path} - {LAST_MAP}
        self.taps |= dict.fromkeys(others, f"{path}.body")
        self._reheaded = True

    def _attach(self) -> None:
        self._detach()
        with still(self.module):
            self._taps, shapes, output = settle(self.module, self.taps, self._dry_images())
        self._handles = [
            attach(self.module, self.taps[name], tap) for name, tap in self._taps.items()
        ]
        if self.classifier:
            shapes["logits"] = tuple(output.shape[1:])
        elif "penultimate" not in shapes:
            shapes["penultimate"] = tuple(vector(output).shape[1:])
        self._shapes = Shapes(self.name, shapes)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _initialise(self, layer: nn.Module) -> None:
        """As the module initialises its own layers; else PyTorch's default stays."""
        initialise = getattr(self.module, "initialise", None)
        if initialise is not None:
            initialise(layer)

    def _layer(self, path: str = "") -> nn.Linear | nn.Conv2d:
        path = path or self.classifier
        layer = self.module.get_submodule(path)
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise NetworkError(
                f"The classifier {path!r} of {self.name} is a {type(layer).__name__}; "
                "it must be a linear layer or a 1×1 convolution."
            )
        return layer
