"""Size, operations and latency of networks as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.deployment.speed.latency import BATCHES, Row, Speeds
from understudy.experiment.plain_table import count

_RUNTIMES = {"torch": "torch", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True)
class SpeedColumn:
    """One column: its title, its cell for a network (empty if not measured), and its meaning."""

    title: str
    cell: Callable[[Row], str]
    meaning: str


def speed_rows(speeds: Speeds) -> list[list[str]]:
    """Return header and rows as text, one row per network."""
    columns = speed_columns(speeds)
    header = ["network of", *(column.title for column in columns)]
    cells = [[column.cell(row) or "–" for column in columns] for row in speeds.rows]
    return [
        header,
        *([", ".join(row.names), *rest] for row, rest in zip(speeds.rows, cells, strict=True)),
    ]


def speed_columns(speeds: Speeds) -> list[SpeedColumn]:
    """Return the columns for which at least one network has a value."""
    candidates = [
        SpeedColumn("network", lambda row: row.network, "name of the network"),
        SpeedColumn("parameters", lambda row: count(row.parameters), "number of parameters"),
        SpeedColumn("size", _size, "megabytes of the weights in fp32; of the file in int8"),
        SpeedColumn(
            "MACs",
            lambda row: "" if row.macs is None else _large(row.macs),
            "multiplications with additions of convolutions and matrix products, for one image",
        ),
        *(
            _time(runtime, precision, batch)
            for runtime, precision in _measured(speeds)
            for batch in BATCHES
        ),
    ]
    return [column for column in candidates if any(map(column.cell, speeds.rows))]


def _measured(speeds: Speeds) -> list[tuple[str, str]]:
    """Return runtime and precision of all times, in the order of the table."""
    pairs = {(time.runtime, time.precision) for row in speeds.rows for time in row.times}
    return sorted(pairs, key=lambda pair: (list(_RUNTIMES).index(pair[0]), pair[1]))


def _time(runtime: str, precision: str, batch: int) -> SpeedColumn:
    def cell(row: Row) -> str:
        ms = row.ms(runtime, precision, batch)
        return "" if ms is None else f"{ms:.3g} ms"

    kind = _RUNTIMES[runtime] + ("" if precision == "fp32" else f" {precision}")
    title = f"{kind}, {batch} image{'s' * (batch > 1)}"
    images = "one image" if batch == 1 else f"a batch of {batch} images"
    meaning = f"median time of {images} by {_RUNTIMES[runtime]} in {precision}"
    return SpeedColumn(title, cell, meaning)


def _size(row: Row) -> str:
    sizes = [f"{row.bytes['fp32'] / 1e6:.3g} MB"]
    sizes += [f"{row.bytes['int8'] / 1e6:.3g} int8"] if "int8" in row.bytes else []
    return ", ".join(sizes)


def _large(number: int) -> str:
    return f"{number / 1e9:.3g} G" if number >= 999_500_000 else count(number)


def facts(speeds: Speeds) -> str:
    """Return on which images and machine the times were measured, in a sentence."""
    sizes = [f"{row.image[-2]} × {row.image[-1]}" for row in speeds.rows]
    threads = f"{speeds.threads} thread{'s' * (speeds.threads != 1)}"
    return (
        f"Medians of single calls, all networks in turn, on {speeds.machine} with {threads}; "
        f"images of {', '.join(dict.fromkeys(sizes))} pixels, as each network takes them."
    )


def notes(speeds: Speeds) -> Sequence[str]:
    """Return what was not measured, and why; of an export also how its files were verified."""
    of_rows = [f"{', '.join(row.names)}: {note}" for row in speeds.rows for note in row.notes]
    return [*speeds.notes, *of_rows]
