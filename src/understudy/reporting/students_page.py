"""Render the comparisons of several students as an HTML page, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from understudy.checks.finding import Finding
from understudy.comparison.result import read_comparison
from understudy.comparison.students import StudentComparison
from understudy.deployment.speed.latency import Speeds
from understudy.experiment.plain_table import count, difference, escaped, spread
from understudy.experiment.plain_table import markdown as markdown_of_rows
from understudy.experiment.teacher_warning import teacher_warning
from understudy.reporting import speed_section
from understudy.reporting.charts.pareto import Point, front, pareto
from understudy.reporting.collect import of_comparison
from understudy.reporting.columns import name
from understudy.reporting.headline import VERDICTS
from understudy.reporting.measured_images import measured_images
from understudy.reporting.next_steps import Step
from understudy.reporting.results import Arm, Results
from understudy.reporting.several_page import render

COLUMNS = {
    "student": "name of the student's network",
    "arm": "the control, trained alone, or the methods it was trained with",
    "difference": "mean difference from the control of the same student, with its 95 % interval",
    "verdict": "about that difference, corrected for the number of methods of the student",
    "one image": "median time of one image by torch in fp32 on this machine",
    "front": "● if no other network is both faster and better",
}
"""Column → meaning."""


@dataclass(frozen=True)
class Line:
    """A row of the table: one arm of one student, or the teacher."""

    student: str
    arm: Arm
    ms: float | None
    parameters: int | None


@dataclass(frozen=True)
class Overview:
    """Everything that the page on several students shows.

    Attributes:
        students: The comparisons.
        results: Student → results of its comparison.
        speeds: Size and latency of all networks.
        lines: One for the teacher and one for every arm.
    """

    students: StudentComparison
    results: dict[str, Results]
    speeds: Speeds
    lines: list[Line]

    @property
    def points(self) -> list[Point]:
        """All networks that have a metric and a time."""
        metric = self.students.metric
        return [
            Point(line.student, line.arm, line.ms, mean(values), _deviation(values))
            for line in self.lines
            if line.ms is not None and (values := line.arm.values(metric))
        ]


def overview(students: StudentComparison, speeds: Speeds) -> Overview:
    """Read all comparisons.

    Args:
        students: The comparisons.
        speeds: Their networks, under the names of `network_name`, and `teacher`.
    """
    root, results, lines = Path(students), {}, list[Line]()
    for student, folder in students.folders.items():
        path = root / folder
        results[student] = of_comparison(read_comparison(path), root=path)
        for arm in results[student].arms:
            of_teacher = arm.role == "teacher"
            if of_teacher and any(line.student == arm.name for line in lines):
                continue  # the same teachers in all of them
            row = speeds.of(arm.name if of_teacher else network_name(student, arm.name))
            ms = row.ms("torch", "fp32", 1) if row else None
            lines.append(Line(arm.name if of_teacher else student, arm, ms, arm.parameters))
    return Overview(students, results, speeds, lines)


def network_name(student: str, arm: str) -> str:
    """Return the name of an arm's network among those of several students."""
    return f"{student} {arm}"


def page(content: Overview, cautions: Sequence[Finding], steps: Sequence[Step]) -> str:
    """Return the page as HTML that loads nothing else; see `several_page.render`."""
    speeds = speed_section.section(content.speeds)
    return render(
        content.students,
        content.lines,
        table(content),
        columns=COLUMNS | speeds.meanings,
        cautions=cautions,
        steps=steps,
        part="student",
        marks=True,
        title=title(content),
        deck=deck(content),
        chart=pareto(content.points, content.students.metric),
        speeds=[speeds],
    )


def title(content: Overview) -> str:
    """Return the front in a sentence."""
    best = front(content.points, lower=content.students.metric == "loss")
    if not best:
        return "No network has both a time and a metric yet."
    names = [_in_words(point) for point in best]
    return (
        f"No other network beats {_listed(names)} in both {name(content.students.metric)} and time."
    )


def deck(content: Overview) -> str:
    """Return what the methods gave each student, and whether the teacher is fit to teach."""
    by_word: dict[str, list[str]] = {}
    for line in content.lines:
        if line.arm.verdict:
            word = VERDICTS.get(line.arm.word, line.arm.word)
            by_word.setdefault(word, []).append(f"{line.student} with {line.arm.name}")
    verdicts = [f"{word} – {_listed(names, 'and')}" for word, names in by_word.items()]
    against = "Against the control, which is the same student without its teacher: "
    judged = f"{against}{'; '.join(verdicts)}." if verdicts else ""
    return " ".join(filter(None, [_warning(content), judged]))


def _warning(content: Overview) -> str:
    """Say that the teacher is too bad to teach; empty if it is not."""
    metric = content.students.metric
    means = {
        (line.student, line.arm.role): mean(values)
        for line in content.lines
        if line.arm.role in ("teacher", "control") and (values := line.arm.values(metric))
    }
    controls = {f"control {x}": value for (x, role), value in means.items() if role == "control"}
    first = next(iter(content.results.values()))
    classes, images = len(first.classes), measured_images(first).count
    teacher = means.get(("teacher", "teacher"))
    return teacher_warning(metric, teacher, controls, classes=classes, images=images)


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _in_words(point: Point) -> str:
    if point.arm.role == "teacher":
        return f"the {point.arm.name}"
    made = "without a teacher" if point.arm.role == "control" else f"with {point.arm.name}"
    return f"{point.student} {made}"


def _listed(names: list[str], joint: str = "or") -> str:
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


def table(content: Overview) -> list[list[str]]:
    """Return header and rows as text."""
    metric = content.students.metric
    best = {(p.student, p.arm.name) for p in front(content.points, lower=metric == "loss")}
    header = ["student", "arm", name(metric), "difference", "verdict"]
    header += ["parameters", "one image", "front"]
    rows = []
    for line in content.lines:
        arm, digits = line.arm, 2
        word = VERDICTS.get(arm.word, arm.word)
        rows.append(
            [
                line.student if arm.role != "teacher" else "",
                arm.name,
                spread(arm.values(metric), digits) or "–",
                difference(arm.verdict, digits) or "–",
                word or "–",
                "–" if line.parameters is None else count(line.parameters),
                "–" if line.ms is None else f"{line.ms:.3g} ms",
                "●" if (line.student, arm.name) in best else "",
            ]
        )
    return [header, *rows]


def markdown(content: Overview) -> str:
    """Return headline, tables and facts as Markdown."""
    header, *rows = table(content)
    cells = [[escaped(cell) for cell in row] for row in rows]
    parts = [
        f"# {escaped(content.students.name)}",
        f"**{escaped(title(content))}**",
        *filter(None, [escaped(deck(content))]),
        markdown_of_rows([header, *cells]),
        speed_section.markdown_section(content.speeds),
    ]
    return "\n\n".join(parts) + "\n"
