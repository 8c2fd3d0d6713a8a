"""Tables of a card from `export.json`: parity of the exported files, size and latency."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.deployment.exported_folder import prepared_by_graph, read_export
from understudy.deployment.speed.latency import Speeds
from understudy.deployment.speed.speed_table import facts, speed_rows
from understudy.experiment.plain_table import escaped, markdown


def sections_of(folder: Path) -> dict[str, str]:
    """Return heading → Markdown of what an export measured; empty if it measured nothing.

    Raises:
        RunError: `export.json` is damaged.
    """
    content, sections = read_export(folder), dict[str, str]()
    if content.get("parity"):
        sections["Exported files"] = _parity(content["files"], content["parity"])
        if content.get("int8"):
            file, sentence = content["files"].get("int8", "int8"), content["int8"]["sentence"]
            sections["Exported files"] += f"\n\n`{file}`: {escaped(sentence)}."
        of_graph = filter(None, [content.get("takes"), prepared_by_graph(content)])
        sections["Exported files"] += "".join(f"\n\n{escaped(sentence)}" for sentence in of_graph)
    if content.get("speeds"):
        speeds = Speeds.from_dict(content["speeds"])
        rows = [[escaped(cell) for cell in row] for row in speed_rows(speeds)]
        sections["Size and latency"] = f"{markdown(rows)}\n\n{escaped(facts(speeds))}"
    return sections


def _parity(files: Mapping[str, str], parity: Mapping[str, Any]) -> str:
    """Return a table with a row for every file that was compared with the network of torch."""
    rows = [["file", "images", "largest output", "largest difference", "changed decisions"]]
    for form, measured in parity.items():
        cells = [f"{measured['images']:,}", f"{measured['largest']:.3g}"]
        cells.append(f"{measured['difference']:.1e}{_share(measured)}")
        changed = f"{measured['changed']:,} of {measured['decisions']:,}"
        rows.append([files.get(form, form), *cells, changed if measured["decisions"] else "–"])
    return markdown(rows)


def _share(measured: Mapping[str, Any]) -> str:
    """Return the largest difference as a share of the largest output, where that is above 1."""
    if measured["largest"] <= 1:
        return ""
    return f" ({measured['difference'] / measured['largest']:.1e} of the largest output)"
