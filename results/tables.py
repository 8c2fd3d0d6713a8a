"""Write the tables of README.md from the measurements in this folder: `make results`."""

import json
import re
from pathlib import Path
from typing import Any

from understudy.reporting.gather import of_comparison
from understudy.reporting.tables import markdown_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def block(match: re.Match[str]) -> str:
    """The table of one measurement, and under it where it comes from."""
    content = json.loads((HERE / f"{match[1]}.json").read_text(encoding="utf-8"))
    table, origin = (steps if "pairs" in content else comparison)(content)
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


def steps(content: dict[str, Any]) -> tuple[str, str]:
    """A row for every pair: the cost of a step as a multiple of the student's own."""
    pairs = content["pairs"]
    variants = [name for name in next(iter(pairs.values())) if name != "student alone"]
    lines = [f"| pair | {' | '.join(variants)} |", f"| --- |{' ---: |' * len(variants)}"]
    for name, figures in pairs.items():
        ratios = " | ".join(f"{figures[variant]['ratio']:.2f}" for variant in variants)
        lines.append(f"| {name} | {ratios} |")
    origin = (
        f"Batch {content['batch']}, fp32, one thread of {content['machine']}, medians of steps in "
        "turn in one process; read differences under 3 % as equal. `make bench` measures it anew."
    )
    return "\n".join(lines), origin


if __name__ == "__main__":
    README.write_text(BLOCK.sub(block, README.read_text(encoding="utf-8")), encoding="utf-8")
