"""One teacher of a distiller: the methods that learn from it, and what gives its features."""

from collections.abc import Callable, Collection, Mapping
from typing import final

from torch import Tensor, nn

from understudy.batch import Batch
from understudy.distillation.stored_maps import StoredMaps
from understudy.distillation.teacher import Teacher
from understudy.features import Features
from understudy.methods import Method

READ_LATER = (Teacher, StoredMaps)
TeacherOutput = Features | Teacher | StoredMaps
"""Features of a teacher; or what gives them at the locations where the student will look."""


@final
class Distillation(nn.Module):
    """A teacher and its methods; a distiller has one for each teacher.

    Args:
        name: Name of the teacher among several; empty for the only one of a distiller.
        teacher: The teacher.
        methods: Label among this teacher's own → method, which `Trainable` holds and trains.
        at_locations: The teacher is a detector, which is read where the student looks.

    Attributes:
        replay: Gives the teacher's features of a batch in place of the teacher, such as a bank.
            Codes that it stores for one method alone are named `<label>/<name>`.
        stored: Given image and view numbers, returns True if `replay` needs no images for them.
    """

    def __init__(
        self, name: str, teacher: Teacher, methods: Mapping[str, Method], *, at_locations: bool
    ) -> None:
        super().__init__()
        self.name, self.teacher, self._at_locations = name, teacher, at_locations
        # In a mapping of its own, so that this module does not count their parameters again.
        self.methods: Mapping[str, Method] = dict(methods)
        self.replay: Callable[[Batch], Features | StoredMaps] | None = None
        self.stored: Callable[[Tensor, Tensor], bool] = _none_stored

    @property
    def reads(self) -> set[str]:
        """Names of the teacher's features that at least one method reads."""
        return {name for method in self.methods.values() for name in method.reads}

    def observe(self, batch: Batch) -> TeacherOutput:
        """Return the teacher's features that methods read, from `replay` if it is set.

        Empty without methods. For a detector, the teacher itself or its stored maps: they are read
        at the locations at which the student is observed, later in the same step.
        """
        if not self.methods:
            return {}
        return self.replay(batch) if self.replay else self.observe_live(batch)

    def observe_live(self, batch: Batch) -> Features | Teacher:
        """Return the same as `observe`, never from `replay`."""
        if not self.methods:
            return {}
        self.teacher.keep_evaluating()
        if self._at_locations:
            return self.teacher
        return only(self.teacher(batch), self.reads)


def only(features: Features, names: Collection[str]) -> Features:
    """Drop features of other names, whose maps would fill memory until the step is done."""
    return {name: x for name, x in features.items() if name in names}


def _none_stored(index: Tensor, view: Tensor) -> bool:
    return False
