"""Wrapper of an image network: any module, its input contract, and its features by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Observation, Shapes
from understudy.layers.kd_layer import WithLayer, kd_layers_in, remove_idle_layers
from understudy.layers.reused_head import LAST_MAP, is_average, load_linear, translators_in
from understudy.models import depthwise_gradients, insertion_points
from understudy.models.base import Wrapped
from understudy.models.class_order import select_rows
from understudy.models.classifier_layers import (
    check_embeddable,
    classifier_layer,
    classifier_layers,
    reset_layer,
)
from understudy.models.embedding import EmbeddedClassifier, fold_into, layers_like
from understudy.models.feature_discovery import structure
from understudy.models.initialisation import initialise_like
from understudy.models.layout_size import layout_size
from understudy.models.outputs import ClassifierOutput, as_row, pick, warn_if_random
from understudy.models.pooling import Pool, depends_only_on_mean, replace_pooling
from understudy.models.preprocessing import ANY_INPUT, Input
from understudy.models.taps import (
    attach_hook,
    build_taps,
    copied,
    dry_run,
    eval_mode,
    pool_to_vector,
    take_features,
)
from understudy.models.token_grids import grids

DEFAULT_SIZE = 224
"""Side of the images of dry passes, for a network that takes any size."""


class Network(Wrapped):
    """Wrapper of a module that maps images to logits, or to vectors if it has no classifier.

    `network.module` stays the plain network: nothing is added to its state dict. Features are read
    by taps (forward hooks), found automatically unless the module declares them itself by an
    attribute `taps`, with the path of its classifier in `classifier_path`.

    Args:
        module: Takes normalised images `(batch, 3, height, width)`.
        input: How images in [0, 1] are resized and normalised for it.
        example_size: Height and width of dry passes, if it takes any; default: `DEFAULT_SIZE`.
        taps: Feature name → `module.path` (its output), `module.path:input` or, of several calls,
            `module.path:last input`; added to the taps found, or instead of those of that name.
        classifier: Path of the last layer, or of a module that holds it and computes the logits
            of its input; None finds it, "" means there is none and the output is a feature.
        pool: Pooling of the last map to `penultimate`, instead of the module's: see `pooling`.
        name: Name for errors and tables; default: the module's class.

    Raises:
        NetworkError: The module does not accept the images, or a tap's path does not exist, is
            never called or is called twice in a pass; or the module returns probabilities, or it is
            not certain which of its tensors are the logits or what they are computed of.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input: Input = ANY_INPUT,
        example_size: tuple[int, int] | None = None,
        taps: Mapping[str, str] | None = None,
        classifier: str | None = None,
        pool: Pool = "",
        name: str = "",
    ) -> None:
        super().__init__()
        self.module = module
        self.input = input
        self.name = name or type(module).__name__
        self.example_size = input.sides(example_size or DEFAULT_SIZE)
        self._layout_size = layout_size(module, input.channels, self.example_size)
        parameter = next(module.parameters(), torch.empty(0))
        for key, values in (("_mean", input.mean), ("_std", input.std)):
            self.register_buffer(key, parameter.new_tensor(values).view(-1, 1, 1), persistent=False)
        if pool:
            replace_pooling(module, pool, self._dry_images(), self.name)
        own_taps = dict(taps or {})
        with eval_mode(module):
            self._structure = structure(
                module, self._dry_images(), classifier, own_taps.get("penultimate", "")
            )
        self._head = self._structure.head
        self.taps: dict[str, str] = {
            **self._structure.taps,
            **self._insertion_points(),
            **own_taps,
        }
        if "penultimate" in self.taps:  # last, as features are listed in the order of computation
            self.taps["penultimate"] = self.taps.pop("penultimate")
        self._embedded, self._reheaded = "", False
        self._classified = ClassifierOutput()
        self._handles: list[RemovableHandle] = []
        warn_if_random(self.name, self._structure.example, self._attach_taps())

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Features:
        """Compute every tapped feature, `penultimate`, and `logits` if there is a classifier.

        Args:
            images: Values in [0, 1], of any size; as the module takes them if `input.as_given`.

        Raises:
            DataError: The images are integers of an unknown range, or have other channels.
        """
        self._classified.clear()
        value = self.module(self._normalise(images))
        output = pick(value, self._structure.output, self.num_classes, self._classified.take())
        assert output is not None  # the dry pass of the constructor refuses such modules
        features = take_features(self._taps)
        if self._head.logits:
            features["logits"] = as_row(output)
        elif "penultimate" not in features:
            features["penultimate"] = pool_to_vector(output)
        return features

    def observe(self, batch: Batch) -> Observation:
        """Compute the features of whole images."""
        return Observation(self.features(batch.images), batch)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Compute the logits, or the penultimate vector if there is no classifier."""
        features = self.features(images)
        return features["logits" if self._head.logits else "penultimate"]

    @property
    def shapes(self) -> Shapes:
        """Shape of every feature at the network's input size (`DEFAULT_SIZE` if it takes any)."""
        return self._shapes

    @property
    def classifier(self) -> str:
        """Path of the linear layer inside `module` that computes the logits; "" if none does."""
        return self._head.classifier

    @property
    def num_classes(self) -> int | None:
        """Number of logits; None without a classifier."""
        return self.shapes.width("logits") if self._head.logits else None

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the last layer, of two averaged layers their mean; None if there is none."""
        weights = [layer.weight.flatten(1) for layer in self._classifier_layers()]
        return sum(weights[1:], weights[0]) / len(weights) if weights else None

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the last layer, of two averaged layers their mean; None if there is none."""
        biases = [layer.bias for layer in self._classifier_layers() if layer.bias is not None]
        return sum(biases[1:], biases[0]) / len(biases) if biases else None

    def feature_table(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """List name, tap path (`output` for the module's own) and shape of every feature."""
        return [(name, self.taps.get(name, "output"), shape) for name, shape in self.shapes.items()]

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before a new classifier.

        The embedding has no norm and no activation (Wang, Ge & Wu, arXiv 2011.01424), and a bias
        if the classifier has one, so that both fold into a layer like the classifier. `penultimate`
        becomes its output. A dropout before the classifier stays right before it.

        Raises:
            NetworkError: There is no plain linear layer or 1×1 convolution whose output is the
                logits, or the network has an embedding layer of another width.
        """
        if self._embedded and self.shapes.vector("penultimate") == dim:
            return  # the weights of a first stage of training have brought it
        embedded = self.shapes.vector("penultimate") if self._embedded else 0
        check_embeddable(self.module, self._head, self.name, embedded)
        old, path, dropout = self._classifier_layer(), self.classifier, self._head.dropout
        embedding, classifier = layers_like(old, dim)
        for layer in (embedding, classifier):
            initialise_like(self.module, layer)
        drop = self.module.get_submodule(dropout) if dropout else nn.Identity()
        if dropout:
            self.module.set_submodule(dropout, nn.Identity())
        self.module.set_submodule(path, EmbeddedClassifier(embedding, drop, classifier))
        self._embedded = path
        self._head = replace(self._head, classifier=f"{path}.classifier")
        self.taps["penultimate"] = f"{path}.embedding"
        self._attach_taps()

    def insert(
        self, feature: str, layer: nn.Module, taps: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Insert a layer behind a map; it stays in the network, also in `plain()`.

        Args:
            feature: Name of the map, which from now on is the layer's output.
            layer: Maps it to a map of the same shape.
            taps: Feature name → path inside the layer, for features to read there.

        Raises:
            NetworkError: The feature is not a map, or not the output of a module.
        """
        kind, path = self.shapes.kind(feature), self.taps[feature]
        if ":" in path or (kind != "map" and feature not in self.shapes.grids):
            raise NetworkError(
                f"No layer can be put at {feature!r} of {self.name}, which must be a map, or "
                "tokens of a grid, that is the output of a module; name such a module by a tap."
            )
        self._insert_behind(path, layer)
        self.taps |= {name: f"{path}.layer.{inner}" for name, inner in taps.items()}
        self._attach_taps()

    def depends_only_on_mean(self, feature: str) -> bool:
        """Return True if the output depends only on the spatial mean of the map `feature`."""
        # Of an earlier map it may be true now and false after training: layers after it may still
        # have weights of zero.
        places = self._insertion_points() if self.shapes.kind(feature) == "map" else {}
        if places.get(LAST_MAP) != self.taps[feature]:
            return False
        with eval_mode(self.module):
            return depends_only_on_mean(self.module, self.taps[feature], self._dry_images())

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Insert a layer behind the last map, and a new classifier that reads its spatial mean.

        Args:
            layer: Maps the last map to a map of any shape, from now on `penultimate/map`.
            classifier: Replaces the classifier and is frozen; `copy_classifier` fills it.

        Raises:
            NetworkError: The present classifier is not linear, or reads more than the map's mean.
        """
        if self._embedded or self._reheaded or not self._reads_average():
            raise NetworkError(
                f"{self.name} cannot take another head: its classifier must be a linear layer that "
                f"reads the average of {LAST_MAP!r} and computes the logits, with no layer added "
                "yet."
            )
        self._put_new_head(self.taps[LAST_MAP], layer, classifier)
        self._attach_taps()

    def copy_classifier(self, other: Wrapped) -> None:
        """Copy another network's classifier into the new head; without one, change nothing."""
        if self._reheaded:
            load_linear(self._classifier_layer(), other.classifier_weight, other.classifier_bias)

    def insert_saved_layers(self, state: Mapping[str, Tensor]) -> None:
        """Insert the layers that a state dict was saved with; their values are not loaded."""
        embedding = state.get(f"{self.classifier}.embedding.weight")
        if embedding is not None:
            self.embed(len(embedding))
        for path, layer in kd_layers_in(state):
            self._insert_behind(path, layer)
        for path, translator in translators_in(state):
            classes, dim = state[f"{self.classifier}.weight"].shape
            self._put_new_head(path, translator, nn.Linear(dim, classes))
        self._attach_taps()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by an untrained one for another number of classes.

        Raises:
            NetworkError: There is no classifier, or its weight is computed of other parameters.
        """
        if not self.classifier:
            raise NetworkError(
                f"{self.name} has no linear classifier that could be reset to {num_classes} "
                "classes: build it with so many, or name the linear layer's path with "
                "`classifier`."
            )
        for path in filter(None, (self.classifier, self._head.dist)):
            initialise_like(self.module, reset_layer(self.module, path, num_classes, self.name))
        self._attach_taps()

    def select_classes(self, rows: Sequence[int]) -> None:
        """Keep some of the classes, in a given order; see `class_order.select_rows`."""
        with eval_mode(self.module):
            select_rows(self.module, self.classifier, rows, self._dry_images(), self._pick)
        self._attach_taps()

    def plain(self) -> nn.Module:
        """Return a copy of the module to deploy, in evaluation mode, without taps.

        An embedding is folded into the classifier: with embedding g ↦ A g + a and classifier
        f ↦ C f + c, the folded classifier is g ↦ (C A) g + (C a + c), computed in float64. Inserted
        layers stay, except those that add nothing to their map.
        """
        copy = copied(self, lambda: dry_run(self.module, self._dry_images(), self._pick))
        copy._detach_taps()
        if copy._embedded:
            fold_into(copy.module, copy._embedded, copy._head.dropout)
        remove_idle_layers(copy.module)
        return copy.module.eval()

    def _normalise(self, images: Tensor) -> Tensor:
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        images = self.input.unit_range(images)
        if not self.input.as_given:
            # Divide in place: a second batch would cost several times the division itself.
            images = (self.input.resize(images) - mean).div_(std)
        # Weights in half precision take images of their own kind, under autocast or not.
        return images.to(mean.dtype)

    def _dry_images(self, size: tuple[int, int] | None = None) -> Tensor:
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        images = self.input.noise(size or self._layout_size, mean)
        return images if self.input.as_given else (images - mean).div_(std)

    def _pick(self, value: Any) -> Tensor | None:
        return pick(value, self._structure.output)

    def _insertion_points(self) -> dict[str, str]:
        with eval_mode(self.module):
            return insertion_points.find(self.module, self._dry_images(), self._structure.blocks)

    def _insert_behind(self, path: str, layer: nn.Module) -> None:
        """Insert a layer behind the module at a path; taps inside that module move with it."""
        body, mean = self.module.get_submodule(path), self.get_buffer("_mean")
        with eval_mode(self.module):
            taps, shapes, _ = build_taps(self.module, {"map": path}, self._dry_images())
        layer.to(mean.device, mean.dtype).train(body.training)
        channels_last = taps["map"].layout == "channels last"
        grid = self._structure.tokens.numbers(shapes["map"])
        self.module.set_submodule(path, WithLayer(body, layer, channels_last, grid))
        old, new = f"{path}.", f"{path}.body."
        self.taps = {
            name: tap.replace(old, new, 1) if tap.startswith(old) else tap
            for name, tap in self.taps.items()
        }

    def _reads_average(self) -> bool:
        """Return True if a linear classifier reads the mean of the last map and nothing else."""
        layer = self._classifier_layer() if self.classifier and self._head.is_output else None
        if not isinstance(layer, nn.Linear) or self.shapes.kind(LAST_MAP) != "map":
            return False
        with eval_mode(self.module):
            dry_run(self.module, self._dry_images())
        features = take_features(self._taps)
        return is_average(features["penultimate"], features[LAST_MAP])

    def _put_new_head(self, path: str, layer: nn.Module, classifier: nn.Linear) -> None:
        self._insert_behind(path, layer)
        classifier.requires_grad_(False).to(self._classifier_layer().weight)
        self.module.set_submodule(self.classifier, classifier)
        # Other features that were tapped at this path keep reading the module's own output.
        others = {name for name, tap in self.taps.items() if tap == path} - {LAST_MAP}
        self.taps |= dict.fromkeys(others, f"{path}.body")
        self._reheaded = True

    def _attach_taps(self) -> Tensor:
        self._detach_taps()
        tokens = self._structure.tokens
        with eval_mode(self.module):
            self._taps, shapes, output = build_taps(
                self.module, self.taps, self._dry_images(), self._pick, tokens, self._structure.norm
            )
        self._handles = depthwise_gradients.attach(self.module)
        hooks: list[tuple[str, Any]] = [(self.taps[n], tap) for n, tap in self._taps.items()]
        if self._head.classifier and (self._head.is_output or self._head.dist):
            hooks.append((self._head.classifier, self._classified))
        self._handles += [attach_hook(self.module, path, hook) for path, hook in hooks]
        if self._layout_size != self.example_size:
            with eval_mode(self.module):
                dry_run(self.module, self._dry_images(self.example_size), self._pick)
            shapes = {n: tuple(x.shape[1:]) for n, x in take_features(self._taps).items()}
        if self._head.logits:
            shapes["logits"] = tuple(as_row(output).shape[1:])
        elif "penultimate" not in shapes:
            shapes["penultimate"] = tuple(pool_to_vector(output).shape[1:])
        self._shapes = Shapes(
            self.name,
            shapes,
            linear_classifier=self._head.is_output or bool(self._head.dist),
            no_logits=self._head.no_logits,
            grids=grids(tokens, self.taps, shapes),
            token_layout=tokens.describe(),
        )
        return output

    def _detach_taps(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _classifier_layers(self) -> list[nn.Linear | nn.Conv2d]:
        return classifier_layers(self.module, self._head, self.name)

    def _classifier_layer(self) -> nn.Linear | nn.Conv2d:
        return classifier_layer(self.module, self.classifier, self.name)
