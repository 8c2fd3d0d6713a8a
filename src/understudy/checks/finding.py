"""A finding of the doctor: what is amiss in a recipe, in numbers, and the flag that mends it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
"""`error`: the run would fail, or its result would be worthless; `warning`: the result is likely
worse, or later, than it could be; `note`: a fact."""


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    Attributes:
        check: Name of the check: that of its file.
        level: How serious it is; see `Level`.
        message: What is amiss, and the numbers that show it; one or two sentences.
        fix: Keys of the recipe, dotted → the values that mend it; empty if no flag does.
        advice: What to do where no flag mends it; one sentence.
    """

    check: str
    level: Level
    message: str
    fix: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    @property
    def is_fault(self) -> bool:
        """True for an error or a warning: something is amiss."""
        return self.level != "note"

    @property
    def flags(self) -> str:
        """Return the fix as flags of the command line; empty without one.

        >>> Finding("schedule", "warning", "", {"training.epochs": 5, "training.ema": None}).flags
        '--training.epochs 5 --training.ema null'
        """
        return " ".join(f"--{key} {_word(value)}" for key, value in self.fix.items())

    @property
    def remedy(self) -> str:
        """Return the advice and the flags that mend it; empty without both."""
        return " ".join(filter(None, [self.advice, f"Fix: {self.flags}" if self.fix else ""]))

    def __str__(self) -> str:
        words = (f"{self.level}:", self.message, self.remedy, f"[{self.check}]")
        return " ".join(filter(None, words))


def _word(value: Any) -> str:
    """Return a value as one word of a shell, which the flag of its key reads."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
