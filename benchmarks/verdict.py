"""Simulate verdicts: how often chance alone is called an effect, and how often an effect is found.

Run `python -m benchmarks.verdict`; it writes the tables of docs/verdict.md, in about half an hour
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

from understudy.comparison.statistics import LEVEL, ImageSpread, margin

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
SEEDS, IMAGES = (2, 3, 4, 5), (60, 300, 1_000, 3_000, 10_000)
ACCURACIES, SPREADS, SHARED = (0.5, 0.9), (0.0, 0.03, 0.15), ((0.5, 0.0), (0.9, 0.0), (0.6, 0.3))
GAINS = (0.5, 1.0, 2.0, 4.0)
"""Differences of the true accuracies, in points, of which the power is measured."""
NULL_DRAWS, POWER_DRAWS = 5_000, 1_000
"""Comparisons drawn for every setting of equal methods, and for every gain."""


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
    common, own = shared

    def normal(scale: float, *shape: int) -> np.ndarray:
        return np.float32(scale) * generator.standard_normal(shape, dtype=np.float32)

    latent = normal(np.sqrt(1 - common - own), 2, seeds, images)
    latent += normal(np.sqrt(common), images)
    if own:
        latent += normal(np.sqrt(own), 2, 1, images)
    latent += normal(spread, 2, seeds, 1)
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


def error_rates() -> Iterator[tuple[int, int, list[float]]]:
    """Seeds, images, and the share of verdicts that call chance an effect, in each setting."""
    for seeds, images in product(SEEDS, IMAGES):
        shares = []
        for number, setting in enumerate(product(ACCURACIES, SPREADS, SHARED)):
            accuracy, spread, shared = setting
            generator = np.random.default_rng([seeds, images, number])
            options = {"seeds": seeds, "images": images, "spread": spread, "shared": shared}
            draws = (correct(generator, (accuracy,) * 2, **options) for _ in range(NULL_DRAWS))
            shares.append(sum(excluded(hits) != 0 for hits in draws) / NULL_DRAWS)
        yield seeds, images, shares


def beyond_chance(shares: list[float]) -> int:
    """Count the settings whose share a true error rate of 5 % does not explain.

    One-sided binomial test of each setting, at 1 % over all cells of the table (Bonferroni).
    """
    level = 0.01 / (len(SEEDS) * len(IMAGES) * len(shares))
    most = stats.binom.isf(level, NULL_DRAWS, 1 - LEVEL)
    return sum(share * NULL_DRAWS > most for share in shares)


def powers() -> Iterator[tuple[int, int, list[float]]]:
    """Seeds, images, and the share of verdicts that find each of `GAINS`, at 70 % accuracy."""
    for seeds, images in product(SEEDS, IMAGES):
        shares = []
        for number, gain in enumerate(GAINS):
            generator = np.random.default_rng([seeds, images, 100 + number])
            pair = (0.7 + gain / 100, 0.7)
            options = {"seeds": seeds, "images": images, "spread": 0.01, "shared": (0.7, 0.0)}
            draws = (correct(generator, pair, **options) for _ in range(POWER_DRAWS))
            shares.append(sum(excluded(hits) == 1 for hits in draws) / POWER_DRAWS)
        yield seeds, images, shares


def tables() -> str:
    """Both tables in Markdown."""
    lines = [
        "| seeds | images | error rate, mean | error rate, largest | settings above 5 % |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for seeds, images, shares in error_rates():
        lines.append(
            f"| {seeds} | {images:,} | {np.mean(shares):.1%} | {max(shares):.1%} | "
            f"{beyond_chance(shares)} of {len(shares)} |"
        )
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
