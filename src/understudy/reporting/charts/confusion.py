"""The classes of single runs: accuracy of each, and which is taken for which."""

from dataclasses import dataclass

from understudy.reporting.results import Arm, Results

CELLS = 30
"""Most classes that are drawn as a table of cells."""
NAMED = 16
"""Most classes whose names stand beside the cells."""
LETTERS = 14
"""Letters of such a name."""
TEXT = 0.042
"""Height of its letters, in widths of the table."""
PAIRS = 12
"""Most frequent confusions that are listed."""


@dataclass(frozen=True)
class Cell:
    """One cell of the table: its place in columns and rows, and the share of the row's images."""

    column: int
    row: int
    share: float
    text: str


@dataclass(frozen=True)
class Confusion:
    """What one run predicts for the images of each class."""

    arm: Arm
    accuracies: list[tuple[str, float, int]]
    """Class, its accuracy in percent, and the number of its images; the lowest accuracy first."""
    pairs: list[tuple[str, str, int, float]]
    """True class, predicted class, images, and percent of the true class; most images first."""
    size: int
    """Number of classes if there are few enough to draw cells; else 0."""
    cells: list[Cell]
    names: list[str]
    """Names beside the rows and columns; empty where there is no room for them."""

    @property
    def letters(self) -> float:
        """Height of the letters of the names, in widths of a cell."""
        return round(TEXT * self.size, 3)

    @property
    def margin(self) -> float:
        """Room for the names, in widths of a cell."""
        return round(0.4 + 0.62 * self.letters * max(map(len, self.names), default=0), 2)


def confusions(results: Results) -> list[Confusion]:
    """Return the classes of every single run that stored them; empty for a comparison."""
    return [
        _confusion(results, arm, table)
        for arm in results.arms
        if arm.role == "run"
        for table in arm.diagnostics("confusion")
    ]


def _confusion(results: Results, arm: Arm, table: list[list[int]]) -> Confusion:
    name = results.class_name
    totals = [sum(row) for row in table]
    accuracies = [
        (name(c), 100 * row[c] / total, total)
        for c, (row, total) in enumerate(zip(table, totals, strict=True))
        if total
    ]
    pairs = [
        (name(t), name(p), count, 100 * count / totals[t])
        for t, row in enumerate(table)
        for p, count in enumerate(row)
        if count and t != p
    ]
    cells = [
        Cell(p, t, count / totals[t], f"{name(t)} taken for {name(p)}: {count} of {totals[t]}")
        for t, row in enumerate(table)
        for p, count in enumerate(row)
        if count
    ]
    few = len(table) <= CELLS
    return Confusion(
        arm,
        sorted(accuracies, key=lambda row: row[1]),
        sorted(pairs, key=lambda pair: -pair[2])[:PAIRS],
        len(table) if few else 0,
        cells if few else [],
        [_short(name(c)) for c in range(len(table))] if len(table) <= NAMED else [],
    )


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
