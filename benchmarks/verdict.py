"""Simulate verdicts: how often chance alone is called an effect, and how often an effect is found.

Run `python -m benchmarks.verdict`; it writes the tables of docs/verdict.md, in about ten minutes
of one core. Networks are drawn from a latent normal model: method m with seed s is right on image i
if

    √a image_i + √b image_{m,i} + √(1 − a − b) noise_{m,s,i} + σ seed_{m,s} > threshold

so that images are hard or easy for all (a), suit one method more than the other without either
being better (b), and a seed makes a network better or worse as a whole (σ).
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from understudy.experiment.statistics import LEVEL, ImageSpread, margin

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
SEEDS, IMAGES = (2, 3, 4, 5), (60, 300, 1_000, 3_000, 10_000)
ACCURACIES, SPREADS, SHARED = (0.5, 0.9), (0.0, 0.03, 0.15), ((0.5, 0.0), (0.9, 0.0), (0.6, 0.3))
GAINS = (0.5, 1.0, 2.0, 4.0)
"""Differences of the true accuracies, in points, of which the power is measured."""


def repetitions(seeds: int, images: int) -> int:
    """How many comparisons are drawn for a cell of the tables."""
    return max(200, min(2_000, 12_000_000 // (seeds * images)))


def correct(
    generator: np.random.Generator,
    accuracies: tuple[float, float],
    *,
    seeds: int,
    images: int,
    spread: float,
    shared: tuple[float, float],
) -> np.ndarray:
    """Draw which images two methods get right: `(methods, seeds, images)`."""
    shape = (2, seeds, images)
    common, own = shared
    latent = (
        np.sqrt(common) * generator.standard_normal(images)
        + np.sqrt(own) * generator.standard_normal((2, 1, images))
        + np.sqrt(1 - common - own) * generator.standard_normal(shape)
        + spread * generator.standard_normal((2, seeds, 1))
    )
    # The spread of seeds widens the latent variable, and moves the accuracy towards a half.
    threshold = stats.norm.isf(accuracies) * np.sqrt(1 + spread**2)
    return np.asarray(latent > threshold[:, None, None])


def excluded(hits: np.ndarray) -> int:
    """The sign of the difference if its interval excludes 0; else 0."""
    differences = 100 * (hits[0].mean(axis=1) - hits[1].mean(axis=1))
    seed_variance = float(differences.var(ddof=1)) / len(differences)
    image_variance = ImageSpread.paired(hits[0], hits[1]).variance
    half = margin(1 - LEVEL, len(differences), seed_variance, image_variance)
    difference = float(differences.mean())
    return 0 if abs(difference) <= half else 1 if difference > 0 else -1


def error_rates() -> Iterator[tuple[int, int, float, float]]:
    """Seeds, images, and the mean and largest share of verdicts that call chance an effect."""
    for seeds, images in product(SEEDS, IMAGES):
        shares = []
        for accuracy, spread, shared in product(ACCURACIES, SPREADS, SHARED):
            generator, count = np.random.default_rng(0), repetitions(seeds, images)
            options = {"seeds": seeds, "images": images, "spread": spread, "shared": shared}
            draws = (correct(generator, (accuracy,) * 2, **options) for _ in range(count))
            shares.append(sum(excluded(hits) != 0 for hits in draws) / count)
        yield seeds, images, float(np.mean(shares)), max(shares)


def powers() -> Iterator[tuple[int, int, list[float]]]:
    """Seeds, images, and the share of verdicts that find each of `GAINS`, at 70 % accuracy."""
    for seeds, images in product(SEEDS, IMAGES):
        shares = []
        for gain in GAINS:
            generator, count = np.random.default_rng(1), repetitions(seeds, images) // 2
            pair = (0.7 + gain / 100, 0.7)
            options = {"seeds": seeds, "images": images, "spread": 0.01, "shared": (0.7, 0.0)}
            draws = (correct(generator, pair, **options) for _ in range(count))
            shares.append(sum(excluded(hits) == 1 for hits in draws) / count)
        yield seeds, images, shares


def tables() -> str:
    """Both tables in Markdown."""
    lines = [
        "| seeds | images | error rate, mean | error rate, largest |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {s} | {n:,} | {m:.1%} | {x:.1%} |" for s, n, m, x in error_rates()]
    heads = " | ".join(f"+{gain:g} points" for gain in GAINS)
    lines += ["", f"| seeds | images | {heads} |", "| ---: | ---: |" + " ---: |" * len(GAINS)]
    for seeds, images, found in powers():
        lines.append(f"| {seeds} | {images:,} | " + " | ".join(f"{x:.0%}" for x in found) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the tables between the marks of the page."""
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition("<!-- simulation -->\n")
    _, end, after = rest.partition("<!-- end -->")
    PAGE.write_text(before + mark + tables() + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
