"""Render results as an HTML page, and as Markdown."""

from collections.abc import Sequence

import yaml

from understudy.checks.finding import Finding
from understudy.experiment.evidence import DETECTION
from understudy.experiment.plain_table import escaped, signed
from understudy.experiment.plain_table import markdown as markdown_of_rows
from understudy.experiment.run_directory import read_json
from understudy.experiment.run_forms import ENVIRONMENT
from understudy.reporting import before_training
from understudy.reporting.before_training import made
from understudy.reporting.charts.confusion import confusions
from understudy.reporting.charts.differences import changes, intervals
from understudy.reporting.charts.feature_geometry import feature_geometries
from understudy.reporting.charts.precision_recall import precision_recall
from understudy.reporting.charts.samples import samples
from understudy.reporting.charts.style import INKS
from understudy.reporting.charts.training_curves import training_curves
from understudy.reporting.columns import METRICS, columns, name, with_unit
from understudy.reporting.headline import VERDICTS, headline
from understudy.reporting.html import environment
from understudy.reporting.measured_images import measured_images
from understudy.reporting.next_steps import Step
from understudy.reporting.results import Results
from understudy.reporting.speed_section import markdown_section, section
from understudy.reporting.tables import markdown_table, seed_table, table

LISTED = 200
"""Lines on skipped or repaired images that a report lists; the others are only counted."""


def page(results: Results, cautions: Sequence[Finding], steps: Sequence[Step]) -> str:
    """Return the page as HTML that loads nothing else.

    Args:
        results: Its content.
        cautions: What limits its numbers.
        steps: Commands that come next.
    """
    templates = environment()
    templates.filters["signed"] = signed
    title, deck = headline(results)
    _, *rows = table(results)
    speeds = [section(one, title) for title, one in results.speeds.items()]
    return templates.get_template("page.html.j2").render(
        results=results,
        cautions=cautions,
        steps=steps,
        seeds=seed_table(results),
        metric=with_unit(results.metric),
        metric_name=name(results.metric),
        title=title,
        deck=deck,
        inks=INKS,
        rows=list(zip(results.arms, rows, strict=True)),
        columns=columns(results),
        speeds=speeds,
        meanings={title: text for one in speeds for title, text in one.meanings.items()},
        intervals=intervals(results),
        verdicts=VERDICTS,
        curves=training_curves(results),
        geometries=feature_geometries(results),
        samples=samples(results),
        precision=precision_recall(results),
        several=any(len(arm.runs) > 1 for arm in results.arms),
        per_class=METRICS[results.metric].per_class if results.metric in METRICS else "Accuracy",
        changes=changes(results),
        counted=_counted(results),
        confusions=confusions(results),
        skipped=skipped(results),
        listed=LISTED,
        examinations=results.examinations,
        made=made,
        recipes=recipes(results),
    )


def _counted(results: Results) -> str:
    """Return what the numbers behind the classes count; empty if they are not known."""
    if not measured_images(results).per_class:
        return ""
    return "objects" if results.metric in DETECTION else "images"


def skipped(results: Results) -> list[str]:
    """Return what was skipped or repaired among the images of any run, each once."""
    environments = [
        read_json(run.path / "environment.json", ENVIRONMENT, optional=True)
        for arm in results.arms
        for run in arm.runs
    ]
    return list(dict.fromkeys(x for e in environments for x in e.get("skipped") or ()))


def _markdown_seeds(results: Results) -> str:
    """Return the table of the single seeds in Markdown; empty if there is none."""
    rows = [[escaped(cell) for cell in row] for row in seed_table(results)]
    return (
        f"**Single seeds: {with_unit(results.metric)}**\n\n{markdown_of_rows(rows)}" if rows else ""
    )


def _skipped_lines(lines: Sequence[str]) -> str:
    """Return what was skipped or repaired as a list in Markdown, of the length of the page's."""
    if not lines:
        return ""
    listed = [f"- {escaped(line)}" for line in lines[:LISTED]]
    if len(lines) > LISTED:
        listed.append(f"- … and {len(lines) - LISTED} more in environment.json")
    return "\n".join([f"{len(lines)} images skipped or repaired:", "", *listed])


def recipes(results: Results) -> dict[str, str]:
    """Return title → YAML: the recipe of each run, or the control's and the added methods."""
    texts = {arm.name: arm.runs[0].recipe_text for arm in results.arms if arm.runs}
    if results.control is None:
        return {f"Recipe of {name}": text for name, text in texts.items() if text}
    methods = {arm.name: arm.methods for arm in results.arms if arm.role == "method"}
    shared = texts.get(results.control.name, "")
    control = {"Recipe of the control": shared} if shared else {}
    return control | {"Methods of the other arms": yaml.safe_dump(methods, sort_keys=False)}


def markdown(results: Results, cautions: Sequence[Finding]) -> str:
    """Return headline, table, verdicts and facts as Markdown, for a README or an issue."""
    title, deck = map(escaped, headline(results))
    sentences = [f"- {escaped(arm.sentence)}" for arm in results.judged]
    parts = [
        f"# {escaped(results.name)}",
        f"**{title}**" + (f" {deck}" if deck else ""),
        markdown_table(results),
        "\n".join(sentences),
        "\n".join(f"- {escaped(str(caution))}" for caution in cautions),
        _markdown_seeds(results),
        *(f"**{title}**\n\n{markdown_section(one)}" for title, one in results.speeds.items()),
        *(before_training.markdown_section(title, x) for title, x in results.examinations.items()),
        "\n".join(f"- {name}: {escaped(fact)}" for name, fact in results.facts.items()),
        _skipped_lines(skipped(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
