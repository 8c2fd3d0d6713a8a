"""Results as tables, in Markdown and for the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from understudy.comparison.result import read_comparison
from understudy.experiment.plain_table import count, escaped, markdown, signed
from understudy.experiment.splits import count as count_of_split
from understudy.reporting.collect import of_comparison
from understudy.reporting.columns import LAYERS, columns, name
from understudy.reporting.results import Arm, Results, duration

if TYPE_CHECKING:
    from understudy.experiment.bank_plan import Plan

NONE = "–"


def table(results: Results, *, brief: bool = False) -> list[list[str]]:
    """Return header and rows as text, one row per arm; `brief` keeps what fits into a terminal."""
    selected = [column for column in columns(results) if column.brief or not brief]
    rows = [
        [arm.name, *((c.short if brief else c.cell)(arm) or NONE for c in selected)]
        for arm in results.arms
    ]
    titles = [c.short_title if brief and c.short_title else c.title for c in selected]
    return [["arm", *titles], *rows]


def seed_table(results: Results) -> list[list[str]]:
    """Return header and rows as text, one column per seed; empty if there is one seed alone."""
    control = results.control
    seeds = sorted({seed for arm in results.arms for seed in arm.by_seed})
    if control is None or len(seeds) < 2:
        return []
    digits = 4 if results.judges_fidelity else 2
    rows = [
        [arm.name, *(_seed_cell(arm, control, seed, digits) for seed in seeds)]
        for arm in results.arms
        if arm.role != "teacher"
    ]
    return [["arm", *(f"seed {seed}" for seed in seeds)], *rows]


def _seed_cell(arm: Arm, control: Arm, seed: int, digits: int) -> str:
    value, without = arm.by_seed.get(seed), control.by_seed.get(seed)
    if value is None:
        return NONE
    if arm is control or without is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({signed(value - without, digits)})"


def markdown_table(results: Results) -> str:
    """Return the table in Markdown, with columns aligned in the source."""
    header, *rows = table(results)
    return markdown([header, *([escaped(arm), *cells] for arm, *cells in rows)])


def terminal_table(comparison: str | Path | Mapping[str, Any]) -> Table:
    """Return the table of a comparison directory or its content, with the columns that fit."""
    if isinstance(comparison, str | Path):
        comparison = read_comparison(Path(comparison))
    results = of_comparison(comparison)
    header, *rows = table(results, brief=True)
    grid = Table(title=Text(results.name), title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    grid.caption, grid.caption_justify = _time_note(results), "left"
    for column, title in enumerate(header):
        grid.add_column(title, justify="right" if column else "left", no_wrap=True)
    for arm, row in zip(results.arms, rows, strict=True):
        grid.add_row(*map(Text, row), style=_style(arm))
    return grid


def _time_note(results: Results) -> str:
    """Say what the column of times holds."""
    if results.teacher is None:
        return "time: of one run"
    if not results.teacher.seconds:
        return "time: of one run, the teacher's passes over the images included"
    return (
        "time: of one run without the teacher's passes over the images, which were made once, or "
        "once for each seed (row teacher)"
    )


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """Return a table of an evaluation, in the form of a run's `evaluation.json`."""
    grid = Table(box=SIMPLE_HEAD, show_edge=False, show_header=False)
    grid.add_column()
    grid.add_column(justify="right")
    if evaluation.get("trained_on"):
        grid.add_row("train images", count_of_split(evaluation["trained_on"]))
    if evaluation.get("images"):
        grid.add_row(f"{evaluation['split']} images", count_of_split(evaluation))
    for key, value in evaluation["metrics"].items():
        grid.add_row(name(key), NONE if value is None else f"{value:.3f}")
    for key, value in (evaluation["fidelity"] or {}).items():
        grid.add_row(name(key), NONE if value is None else f"{value:.3f}")
    if "parameters" in evaluation:
        grid.add_row("parameters", count(evaluation["parameters"]))
    if "seconds" in evaluation:
        grid.add_row("training time", duration(evaluation["seconds"]))
    for row in _layers(evaluation.get("layers") or {}):
        grid.add_row(*map(Text, row))
    return grid


def _layers(costs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each cost of a student with layers of its method, and its ratio to that without."""
    for key, written in LAYERS.items() if costs else ():
        ours, plain = costs["student"][key], costs["plain"][key]
        yield f"{name(key)}, with kept layers", f"{written(ours)}, × {ours / plain:.3g}"


def plan_table(plan: "Plan") -> Group:
    """Return the size of a complete bank in every form, and the methods that could use it."""
    sizes = Table(box=SIMPLE_HEAD, show_edge=False)
    sizes.add_column("feature")
    forms = list(dict.fromkeys(form for by_form in plan.sizes.values() for form in by_form))
    for title in ("shape", *forms, "stored"):
        sizes.add_column(title, justify="right", no_wrap=True)
    for feature, by_form in plan.sizes.items():
        cells = (decimal(by_form[form]) if form in by_form else NONE for form in forms)
        stored = "yes" if feature in plan.contract.features else NONE
        sizes.add_row(Text(feature), " × ".join(map(str, plan.shapes[feature])), *cells, stored)
    facts = Table(box=None, show_header=False, pad_edge=False)
    for row in _plan_facts(plan):
        facts.add_row(*map(Text, row))
    return Group(sizes, "", facts)


def _plan_facts(plan: "Plan") -> Iterator[tuple[str, str]]:
    contract = plan.contract
    top = f", {contract.top_logits} logits" if contract.top_logits else ""
    yield "stored", f"{', '.join(contract.features)} as {contract.dtype}{top}"
    images = plan.records // contract.num_views
    yield "records", f"{images:,} images × {contract.num_views} views"
    if plan.paddings > 1:
        yield "paddings", f"{plan.paddings} sizes of images; shapes are those of the most frequent"
    mean = "on average, " * (plan.paddings > 1)
    yield "size", f"{plan.record_bytes:,} bytes per record, {mean}{decimal(plan.bytes)} in total"
    yield "disk", _disk(plan)
    yield "memory", _suffices(plan.memory_bytes, plan.hot_bytes, "reading at full speed")
    yield "time", f"{duration(plan.seconds)} of the teacher's forward passes"
    yield "methods served", ", ".join(plan.serves) or "none"
    for method, missing in plan.unserved.items():
        yield f"not stored for {method}", ", ".join(missing)
    if plan.unfit:
        yield "unsuitable for this pair", ", ".join(plan.unfit)


def _disk(plan: "Plan") -> str:
    if plan.kept_in is None:
        return _suffices(plan.free_bytes, plan.bytes, "a complete bank")
    free = decimal(plan.free_bytes)
    return f"{free} free in {plan.kept_in}, which keeps the shards that are read"


def _suffices(free: int, needed: int, purpose: str) -> str:
    verdict = "enough" if free > needed else "too little"
    return f"{decimal(free)} free, {verdict} for {purpose} ({decimal(needed)})"


def _style(arm: Arm) -> str:
    if arm.role in ("teacher", "control"):
        return "dim"
    return {"gain": "green", "loss": "red", "diverged": "red", "failed": "red"}.get(arm.word, "")
