"""Tables of a card from `export.json`: parity of the exported files, size and latency."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.config.json_form import parse_json
from understudy.experiment.plain_table import Rows

FILE = "export.json"

_TIMED = (("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))
"""Runtime and precision of the columns of times."""


def tables_of(folder: Path) -> dict[str, Rows]:
    """Return heading → table of what an export measured; empty if it measured nothing.

    Raises:
        RunError: `export.json` is damaged.
    """
    if not (folder / FILE).is_file():
        return {}
    content = parse_json(folder / FILE, remedy="export again")
    files, parity = content.get("files") or {}, content.get("parity") or {}
    speeds = content.get("speeds") or {}
    tables = {
        "Exported files": _parity(files, parity),
        f"Size and latency on {speeds.get('machine', 'this machine')}": _speeds(speeds),
    }
    return {heading: rows for heading, rows in tables.items() if len(rows) > 1}


def _parity(files: Mapping[str, str], parity: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for every file that was compared with the network of torch."""
    rows = [["file", "images", "largest difference", "changed decisions"]]
    for form, measured in parity.items():
        cells = [f"{measured['images']:,}", f"{measured['difference']:.1e}"]
        changed = f"{measured['changed']:,} of {measured['decisions']:,}"
        rows.append([files.get(form, form), *cells, changed if measured["decisions"] else "–"])
    return rows


def _speeds(speeds: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for every network: parameters, operations, megabytes, milliseconds."""
    networks = speeds.get("rows") or []
    columns = list(_timed(networks))
    titles = [f"{runtime} {precision}, batch {batch} (ms)" for runtime, precision, batch in columns]
    rows = [["network", "parameters", "multiply-adds", "MB", *titles]]
    for each in networks:
        times = {(t["runtime"], t["precision"], t["batch"]): t["ms"] for t in each["times"]}
        macs = each["macs"]
        sizes = ", ".join(f"{each['bytes'][key] / 1e6:.3g} {key}" for key in each["bytes"])
        rows.append(
            [
                ", ".join(each["names"]),
                f"{each['parameters']:,}",
                f"{macs / 1e6:,.3g} M" if macs else "–",
                sizes,
                *(f"{times[key]:.3g}" if key in times else "–" for key in columns),
            ]
        )
    return rows


def _timed(networks: list[Any]) -> Iterator[tuple[str, str, int]]:
    """Yield runtime, precision and batch of every time that some network has."""
    known = {
        (time["runtime"], time["precision"], time["batch"])
        for each in networks
        for time in each["times"]
    }
    for batch in sorted({batch for _, _, batch in known}):
        yield from ((*kind, batch) for kind in _TIMED if (*kind, batch) in known)
