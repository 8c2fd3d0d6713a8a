"""Results → the HTML page and its plain Markdown twin."""

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from understudy.reporting.charts.differences import changes, intervals
from understudy.reporting.charts.feature_geometry import pictures
from understudy.reporting.charts.precision_recall import precision
from understudy.reporting.charts.samples import scenes
from understudy.reporting.charts.style import INKS
from understudy.reporting.charts.training_curves import curves
from understudy.reporting.columns import columns, signed
from understudy.reporting.headline import headline
from understudy.reporting.results import Results
from understudy.reporting.tables import markdown_table, table

PER_CLASS = {"mAP": "Average precision", "AP50": "AP50"}
"""What is measured of each class, by the metric that ranks students."""


def page(results: Results) -> str:
    """The page as text; everything it needs is inside it."""
    environment = Environment(
        loader=PackageLoader("understudy.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.filters["unbroken"] = unbroken
    title, deck = headline(results)
    _, *rows = table(results)
    return environment.get_template("page.html.j2").render(
        results=results,
        title=title,
        deck=deck,
        inks=INKS,
        rows=list(zip(results.arms, rows, strict=True)),
        columns=columns(results),
        intervals=intervals(results),
        curves=curves(results),
        pictures=pictures(results),
        scenes=scenes(results),
        precision=precision(results),
        several=any(len(arm.runs) > 1 for arm in results.arms),
        per_class=PER_CLASS.get(results.metric, "Accuracy"),
        changes=changes(results),
        recipes=recipes(results),
    )


def unbroken(sentence: str) -> str:
    """A sentence in which no number is torn from its unit at the end of a line."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def recipes(results: Results) -> dict[str, str]:
    """What to show as YAML: the recipe of the first arm that ran, then what each method adds."""
    found = {arm.name: arm.runs[0].recipe_text for arm in results.arms if arm.runs}
    if results.control is None:
        return {f"Recipe of {name}": text for name, text in found.items() if text}
    methods = {arm.name: arm.methods for arm in results.arms if arm.role == "method"}
    shared = found.get(results.control.name, "")
    shown = {"Recipe of the control": shared} if shared else {}
    return shown | {"Methods of the other arms": yaml.safe_dump(methods, sort_keys=False)}


def markdown(results: Results) -> str:
    """Headline, table, verdicts and facts, for a README or an issue."""
    title, deck = headline(results)
    sentences = [f"- {(arm.verdict or {})['sentence']}" for arm in results.judged]
    parts = [
        f"# {results.name}",
        f"**{title}**" + (f" {deck}" if deck else ""),
        markdown_table(results),
        "\n".join(sentences),
        "\n".join(f"- {name}: {fact}" for name, fact in results.facts.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
