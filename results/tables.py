"""Write the tables of README.md from the comparisons in this folder: `make results`."""

import json
import re
from pathlib import Path

from understudy.reporting.gather import of_comparison
from understudy.reporting.tables import markdown_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def block(match: re.Match[str]) -> str:
    """The table of one comparison, and under it where it comes from."""
    content = json.loads((HERE / f"{match[1]}.json").read_text(encoding="utf-8"))
    seeds = len(content["arms"][0]["seeds"])
    origin = (
        f"Mean ± standard deviation over {seeds} seeds; in brackets the 95 % interval, paired over "
        f"seeds. Recipe {content['recipe_digest']}, {content['machine']}, "
        f"{content['seconds'] / 60:.0f} minutes of training, {content['created'][:10]}."
    )
    table = markdown_table(of_comparison(content))
    return f"<!-- table: {match[1]} -->\n{table}\n\n{origin}\n<!-- end -->"


if __name__ == "__main__":
    README.write_text(BLOCK.sub(block, README.read_text(encoding="utf-8")), encoding="utf-8")
