"""Draw the pictures of README.md from results/demo.json into docs/pictures: `make results`.

`differences.svg` is the chart that opens a report. `report.png` is the top of the report page, as
Chromium shows it; without Chromium it stays unchanged.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

from PIL import Image

from understudy.reporting.charts.differences import Interval, intervals
from understudy.reporting.charts.style import INKS
from understudy.reporting.collect import of_comparison
from understudy.reporting.columns import columns, name
from understudy.reporting.headline import VERDICTS
from understudy.reporting.page import page
from understudy.reporting.results import Results

HERE = Path(__file__).parent
FOLDER = HERE.parent / "docs" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COLOURS = 256
"""Colours of the screenshot, which make it half as large as all would."""
WINDOW = (1280, 1440)
"""Width and height of the screenshot, in pixels: down to the end of the results table."""
WIDTH, ROW, TOP = 760, 46, 64
"""Width of the chart, height of a row, and room for the title, in pixels."""
TRACK = (215, 555)
"""Left and right end of the axis."""
WORD_INKS = {"gain": "#00694c", "loss": "#a93f00"}


def differences(results: Results) -> str:
    """Return the differences from the control, with intervals and seeds, as an SVG file."""
    chart = intervals(results)
    rows = chart.rows if chart else []
    bottom = TOP + ROW * len(rows)
    title = f"Difference from the control in {name(results.metric)}, in points"
    legend = _legend(rows)
    height = bottom + 22 + 18 * len(legend)
    zero = _x(rows[0].zero)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="system-ui, -apple-system, '
        "'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif\" font-size=\"13\">",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fcfcfb"/>',
        _text(20, 30, title, weight=650, size=15),
        _text(zero, TOP - 8, "control", anchor="middle", fill=INKS["muted"], size=11),
        f'<path d="M{zero} {TOP}V{bottom}" stroke="{INKS["muted"]}"/>',
    ]
    (difference,) = (column for column in columns(results) if column.title == "difference")
    for number, row in enumerate(rows):
        lines += _row(row, TOP + ROW * number, difference.cell(row.arm), methods=len(rows))
    for number, text in enumerate(legend):
        lines.append(_text(20, bottom + 25 + 18 * number, text, fill=INKS["muted"], size=12))
    return "\n".join([*lines, "</svg>", ""])


def _legend(rows: Sequence[Interval]) -> list[str]:
    """Return the lines below the chart: what its marks are, and what its words correct for."""
    seeds, methods = len(rows[0].seeds), len(rows)
    marks = f"Dot: mean over {seeds} seeds. Ticks: single seeds. Bar: 95 % interval"
    if methods == 1:
        return [f"{marks}."]
    return [
        f"{marks} of one method alone.",
        f"Words: corrected for {methods} methods (Holm), so a bar off the line may not be enough.",
    ]


def _word(row: Interval, methods: int) -> str:
    """Return the verdict in words, which says why a bar off the line is none."""
    off = row.ends is not None and not row.ends[0] <= row.zero <= row.ends[1]
    if row.arm.word == "no gain" and off:
        return f"not significant among {methods} methods"
    return VERDICTS[row.arm.word]


def _row(row: Interval, top: int, difference: str, *, methods: int) -> list[str]:
    ink, middle = INKS[row.arm.ink], top + ROW // 2
    word = _word(row, methods)
    marks = [
        f'<path d="M20 {top}H{WIDTH - 20}" stroke="{INKS["line"]}"/>',
        f'<circle cx="25" cy="{middle - 7}" r="5" fill="{ink}"/>',
        _text(38, middle - 2, row.arm.name, weight=600, size=14),
        _text(38, middle + 15, word, fill=WORD_INKS.get(row.arm.word, INKS["muted"]), size=12),
        _text(WIDTH - 20, middle + 5, difference, anchor="end"),
    ]
    if row.ends:
        left, right = map(_x, row.ends)
        marks.append(f'<path d="M{left} {middle}H{right}" stroke="{ink}" stroke-width="3"/>')
    marks += [
        f'<path d="M{_x(seed)} {middle - 7}v14" stroke="{ink}" stroke-opacity=".55" '
        'stroke-width="2"/>'
        for seed in row.seeds
    ]
    dot = f'<circle cx="{_x(row.dot)}" cy="{middle}" r="6" fill="{ink}" stroke="#fcfcfb"/>'
    return [*marks, dot]


def _x(percent: float) -> float:
    left, right = TRACK
    return round(left + (right - left) * percent / 100, 1)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    fill: str = INKS["teacher"],
    size: int = 13,
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def screenshot(html: str, file: Path) -> bool:
    """Write the top of a page as PNG; return False, with a message, if there is no Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"{file.name} is unchanged: drawing it takes Chromium, and none is on the PATH.")
        return False
    with TemporaryDirectory() as folder:
        source = Path(folder) / "report.html"
        source.write_text(html, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = "--window-size={},{}".format(*WINDOW)
        command = [browser, *options, size, f"--screenshot={file}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(file) as picture:
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    return True


def main() -> None:
    """Draw both pictures."""
    results = of_comparison(json.loads((HERE / "demo.json").read_text(encoding="utf-8")))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "differences.svg").write_text(differences(results), encoding="utf-8")
    screenshot(page(results), FOLDER / "report.png")


if __name__ == "__main__":
    main()
