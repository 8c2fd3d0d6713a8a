"""`Joined`: methods whose loss on an image depends on what all teachers lose there."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import cast, final

from jaxtyping import Float
from torch import Tensor, cat, split

from understudy.batch import Batch
from understudy.errors import RecipeError
from understudy.features import Features
from understudy.methods._method import Method
from understudy.profiling import span

Call = tuple[Features, Features, Batch]
"""Arguments of a method: features of the student, those of its teacher, and the batch."""


class Joined(Method):
    """A method that weighs teachers against each other on every image.

    The teachers may be one network that gives the features of several, or several networks of which
    each is taught by a method of this class: these are then computed together (`joint_losses`).
    """

    @abstractmethod
    def image_losses(
        self, student: Features, teacher: Features, batch: Batch
    ) -> Float[Tensor, "teachers batch"]:
        """Return the loss of each image for each of this method's teachers."""

    @abstractmethod
    def join(self, losses: Float[Tensor, "teachers batch"]) -> Float[Tensor, " teachers"]:
        """Return the share of each teacher in the loss, which is their sum."""

    @property
    @abstractmethod
    def joining(self) -> Mapping[str, object]:
        """Hyper-parameters of `join`, on which methods that are computed together must agree."""

    @final
    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss of this method's teachers alone; labels are not used."""
        return self.join(self.image_losses(student, teacher, batch)).sum()


def joint_losses(
    methods: Mapping[str, Method], calls: Callable[[str], Call]
) -> dict[str, Float[Tensor, ""]]:
    """Compute every method, those that join teachers together.

    Args:
        methods: Label → method.
        calls: Returns the arguments of the method with a label; called once for each.

    Returns:
        Label → unweighted loss, in the order of the methods; of methods that are computed together
        the share of each in their loss.
    """
    groups = _groups(methods)
    together = {label for labels in groups for label in labels}
    losses: dict[str, Tensor] = {}
    for label, method in methods.items():
        with span(f"forward/{label}"):
            if label in together:
                of_images = cast(Joined, method).image_losses
                losses[label] = method.in_full_precision(of_images, *calls(label))
            else:
                losses[label] = method(*calls(label))
    for labels in groups:
        rows = [losses[label] for label in labels]
        joined = cast(Joined, methods[labels[0]]).join(cat(rows))
        shares = split(joined, [len(each) for each in rows])
        losses |= {label: share.sum() for label, share in zip(labels, shares, strict=True)}
    return losses


def check_joined(methods: Mapping[str, Method]) -> None:
    """Refuse methods that are computed together and would join their teachers in other ways.

    Raises:
        RecipeError: They differ in a hyper-parameter.
    """
    for first, *others in _groups(methods):
        own = cast(Joined, methods[first]).joining
        for other in others:
            for key, value in cast(Joined, methods[other]).joining.items():
                if value != own[key]:
                    raise RecipeError(
                        f"'{first}' has {key} {own[key]} and '{other}' {value}, but they choose "
                        "among their teachers together: set both alike."
                    )


def _groups(methods: Mapping[str, Method]) -> list[list[str]]:
    """Return the labels of methods that are computed together, at least two each."""
    kinds: dict[type[Method], list[str]] = {}
    for label, method in methods.items():
        if isinstance(method, Joined):
            kinds.setdefault(type(method), []).append(label)
    return [labels for labels in kinds.values() if len(labels) > 1]
