"""Write the tables of README.md from the measurements in this folder: `make results`."""

import json
import re
from pathlib import Path
from typing import Any

from understudy.reporting.collect import of_comparison
from understudy.reporting.tables import markdown_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PRECISIONS = ("fp32", "best")
COMPARED = {
    "bank": "fastest peer",
    "first run": "first run",
    "four students, bank": "four students",
}
"""What a peer is compared with in the measurements → the head of its columns."""
BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def block(match: re.Match[str]) -> str:
    """The table of one measurement, and under it where it comes from."""
    content = json.loads((HERE / f"{match[1]}.json").read_text(encoding="utf-8"))
    render = next(FORMS[key] for key in FORMS if key in content)
    table, origin = render(content)
    return f"<!-- table: {match[1]} -->\n{table}\n\n{origin}\n<!-- end -->"


def comparison(content: dict[str, Any]) -> tuple[str, str]:
    """A row for the teacher, the control and every arm."""
    seeds = len(content["arms"][0]["seeds"])
    origin = (
        f"Mean ± standard deviation over {seeds} seeds; in brackets the 95 % interval, paired over "
        f"seeds. Recipe {content['recipe_digest']}, {content['machine']}, "
        f"{content['seconds'] / 60:.0f} minutes of training, {content['created'][:10]}."
    )
    return markdown_table(of_comparison(content)), origin


def listed(content: dict[str, Any]) -> tuple[str, str]:
    """The rows as they were written down."""
    lines = [content["columns"], ["---"] * len(content["columns"]), *content["rows"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    return table, f"{content['machine']}, {content['created']}. {content['origin']}"


def ratios(content: dict[str, Any]) -> tuple[str, str]:
    """A row for every pair: what a step costs, and how much faster it is than the fastest peer."""
    steps = content["parts"]["steps"]
    against = content["parts"].get("peers", {})
    columns = [f"{name}, {how}" for name in ("with bank", "online") for how in PRECISIONS]
    compared = [f"{name}, {how}" for name in COMPARED.values() for how in PRECISIONS]
    columns += compared if against else []
    lines = [f"| pair | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for pair, measured in steps.items():
        cells = [_range(measured[how]["bank"]) for how in PRECISIONS]
        cells += [f"{measured[how]['online']['median']:.2f}" for how in PRECISIONS]
        if against:
            fastest = against[pair]["fastest"]
            cells += [
                f"{fastest[how][what]['median']:.2f} ×" for what in COMPARED for how in PRECISIONS
            ]
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    detection = content["parts"].get("detection")
    tables = ["\n".join(lines), *([_added(detection)] if detection else [])]
    return "\n\n".join(tables), _origin(content)


def _added(detection: dict[str, Any]) -> str:
    """What a teacher adds to a detector's step, a row for every precision of the student."""
    names = [name for name in detection["added %"]["fp32"] if name != "ms"]
    head = ["Faster R-CNN, ResNet-101 → ResNet-50", "student alone, ms", *names]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for how, added in detection["added %"].items():
        cells = [f"{added['ms']['alone']['median']:.0f}"]
        cells += [f"+{added[name]['median']:.1f} %" for name in names]
        lines.append(f"| student in {how} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(by_method: dict[str, Any]) -> str:
    """Smallest and largest ratio of the methods; of one in two forms, the comparable one."""
    names = [name for name in by_method if f"{name}, 2048 hashes" not in by_method]
    values = sorted(by_method[name]["median"] for name in names)
    return f"{values[0]:.2f} – {values[-1]:.2f}"


def _origin(content: dict[str, Any]) -> str:
    peers = ", ".join(f"{name} {commit}" for name, commit in content.get("peers", {}).items())
    return (
        f"Batch {content['batch']}, one thread of {content['machine']}, medians of steps in turn "
        "in one process; read differences under 3 % as equal. With a bank: over the student's own "
        "step, from the cheapest method to the dearest (lshfm with 2048 hashes where the feature "
        "has 2048 dimensions). Online: over teacher forward and student step."
        + (f" Fastest of {peers}." if peers else "")
        + (
            " Of a detector: two images of 320 pixels, beyond a step of torchvision's own."
            if "detection" in content["parts"]
            else ""
        )
        + " [What the ratios mean](docs/benchmarks.md); `make bench` measures them anew."
    )


FORMS = {"arms": comparison, "rows": listed, "parts": ratios}
"""What only one form of a measurement holds → how it is rendered."""


if __name__ == "__main__":
    README.write_text(BLOCK.sub(block, README.read_text(encoding="utf-8")), encoding="utf-8")
