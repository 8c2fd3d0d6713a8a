"""Write the tables of README.md, docs/results.md and docs/deploy.md: `make results`.

A measurement is a JSON file in this folder; its table stands between marks of its name.
"""

import json
import re
from pathlib import Path
from typing import Any

from understudy.reporting.collect import of_comparison
from understudy.reporting.tables import markdown_table

HERE = Path(__file__).parent
PAGES = tuple(HERE.parent / page for page in ("README.md", "docs/results.md", "docs/deploy.md"))
PRECISIONS = ("fp32", "best")
COMPARED = {
    "bank": "fastest peer",
    "first run": "first run",
    "four students, bank": "four students",
}
"""What another project is compared with: key of the measurement → title of its columns."""
BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def block(match: re.Match[str]) -> str:
    """Return the table of one measurement with a line below that says how it was measured."""
    content = json.loads((HERE / f"{match[1]}.json").read_text(encoding="utf-8"))
    render = next(FORMS[key] for key in FORMS if key in content)
    table, origin = render(content)
    return f"<!-- table: {match[1]} -->\n{table}\n\n{origin}\n<!-- end -->"


def comparison(content: dict[str, Any]) -> tuple[str, str]:
    """Return a table with a row for the teacher, the control and every method."""
    seeds = len(content["arms"][0]["seeds"])
    minutes, date = _minutes(content["seconds"]), content["created"][:10]
    origin = (
        f"Mean ± standard deviation over {seeds} seeds; in brackets the 95 % interval over "
        f"{_spread(content)}. {_significant(content)} Recipe {content['recipe_digest']}, "
        f"{_machine(content)}, {minutes} of training, {date}."
    )
    return _unbroken(markdown_table(of_comparison(content))), origin


def _spread(content: dict[str, Any]) -> str:
    """Return what the intervals take into account."""
    images = {arm["verdict"].get("images") for arm in content["arms"] if arm["verdict"]}
    known = [count for count in images if count]
    if len(known) == 1 and len(images - {None}) == 1:
        return f"seeds and {known[0]:,} test images"
    return "seeds alone, since the outcome of single test images was not recorded"


def _significant(content: dict[str, Any]) -> str:
    """Return which methods differ from the control after Holm's correction for their number."""
    words = {arm["name"]: arm["verdict"]["word"] for arm in content["arms"] if arm["verdict"]}
    better = [name for name, word in words.items() if word == "gain"]
    worse = [name for name, word in words.items() if word == "loss"]
    parts = [
        f"{', '.join(names)} {what}"
        for names, what in ((better, "better"), (worse, "worse"))
        if names
    ]
    corrected = "" if len(words) == 1 else f", corrected for {len(words)} methods"
    return f"Significantly{corrected}: {'; '.join(parts) or 'none'}."


def _unbroken(table: str) -> str:
    """Return a table with no-break spaces within cells, so that a page keeps each on one line."""
    return re.sub(r"(?<=[^\s|]) (?=[^\s|])", "\u00a0", table)


def listed(content: dict[str, Any]) -> tuple[str, str]:
    """Return a table of the rows that the measurement itself lists."""
    lines = [content["columns"], ["---"] * len(content["columns"]), *content["rows"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    timed = f" {content['timed']}" if "timed" in content else ""
    return table, f"{content['machine']}, {content['created']}.{timed} {content['origin']}"


def ratios(content: dict[str, Any]) -> tuple[str, str]:
    """Return a table with a row for each pair: what a step costs, alone and against peers."""
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
    """Return a table of what a teacher adds to a detector's step, by the student's precision."""
    names = [name for name in detection["added %"]["fp32"] if name != "ms"]
    head = ["Faster R-CNN, ResNet-101 → ResNet-50", "student alone, ms", *names]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for how, added in detection["added %"].items():
        cells = [f"{added['ms']['alone']['median']:.0f}"]
        cells += [f"+{added[name]['median']:.1f} %" for name in names]
        lines.append(f"| student in {how} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(by_method: dict[str, Any]) -> str:
    """Return the smallest and the largest ratio of the methods.

    Of a method measured twice, only the variant with 2048 hashes counts.
    """
    names = [name for name in by_method if f"{name}, 2048 hashes" not in by_method]
    values = sorted(by_method[name]["median"] for name in names)
    return f"{values[0]:.2f} – {values[-1]:.2f}"


def _machine(content: dict[str, Any]) -> str:
    return re.sub(r"^1 cores", "1 core", content["machine"])


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minute{'s' * (minutes != 1)}"


def _origin(content: dict[str, Any]) -> str:
    """Return how the ratios were measured, in a few sentences."""
    peers = ", ".join(f"{name} {commit}" for name, commit in content.get("peers", {}).items())
    return (
        f"Batch {content['batch']}, one thread of {_machine(content)}. Medians of steps taken in "
        "turn in one process; differences under 3 % are within the noise. With a bank: over a step "
        "of the student alone, from the cheapest method to the most expensive (lshfm with 2048 "
        "hashes where the feature has 2048 dimensions). Online: over the teacher's forward pass "
        "plus a step of the student."
        + (f" Fastest of {peers}." if peers else "")
        + (
            " Detector: two images of 320 pixels; extra time over a training step of torchvision's "
            "own detector."
            if "detection" in content["parts"]
            else ""
        )
        + " [What the ratios mean](benchmarks.md); `make bench` repeats the measurement."
    )


def deployed(content: dict[str, Any]) -> tuple[str, str]:
    """Return a table with a row for each pair of networks that went all the way."""
    head = ["pair", "method", "data (test images)", "budget: epochs, images", "reported"]
    head += ["loaded elsewhere", "ONNX: largest difference", "decisions changed"]
    rows = [head, ["---", "---", "---", *["--:"] * 5], *map(_pair, content["pairs"])]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    equal = sum(pair["reported"] == pair["elsewhere"] for pair in content["pairs"])
    return table, (
        f"{equal} of {len(content['pairs'])} students have, loaded elsewhere, the reported figure "
        f"to the last bit. One thread of {_machine(content)}, {content['created']}."
    )


def _pair(pair: dict[str, Any]) -> list[str]:
    onnx, budget = pair["parity"]["onnx"], pair["budget"]
    share = f" ({onnx['difference'] / onnx['largest']:.1e} of {onnx['largest']:.3g})"
    changed = f"{onnx['changed']:,} of {onnx['decisions']:,}"
    return [
        f"{pair['teacher']} → {pair['student']}",
        pair["methods"],
        f"{pair['data']} ({pair['images']})",
        f"{budget['epochs']}, {budget['images']:,}",
        f"{pair['metric']} {pair['reported']:.10g}",
        f"{pair['elsewhere']:.10g}",
        f"{onnx['difference']:.1e}{share if onnx['largest'] > 1 else ''}",
        changed + (f" ({onnx['tied']:,} ties)" if onnx["tied"] else ""),
    ]


FORMS = {"arms": comparison, "rows": listed, "parts": ratios, "pairs": deployed}
"""A key that only one kind of measurement has → the function that renders it."""


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(BLOCK.sub(block, page.read_text(encoding="utf-8")), encoding="utf-8")
