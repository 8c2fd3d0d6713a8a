"""The command `understudy predict`: its flags, what it prints, and the files it writes."""

import csv
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from understudy.cli.flags import Argument, Entry, number, whole_number
from understudy.errors import RecipeError, Unfinished

if TYPE_CHECKING:
    from understudy.deployment.prediction.pictures import Item
    from understudy.deployment.prediction.predictor import Prediction, Predictor

_ARGUMENTS: tuple[Argument, ...] = (
    (
        "student",
        {"help": "Run directory, its folder `best`, exported folder, or file of a student."},
    ),
    (
        "pictures",
        {"nargs": "+", "help": "Picture files, folders (all below them too) or 'patterns*.jpg'."},
    ),
    (
        "--out",
        {"metavar": "FILE", "help": "File to write, .jsonl or .csv; default: JSON lines here."},
    ),
    (
        "--top",
        {
            "type": whole_number("--top"),
            "metavar": "N",
            "help": "Classes to name, where a picture has one; default: 5.",
        },
    ),
    (
        "--threshold",
        {
            "type": number("--threshold"),
            "metavar": "P",
            "help": "Probability or score from which one of several classes, or an object, is "
            "named; default: that of the student, or 0.5 and 0.3.",
        },
    ),
    (
        "--batch",
        {
            "type": whole_number("--batch"),
            "metavar": "N",
            "help": "Pictures to compute at once; default: 32, of a detector 4.",
        },
    ),
    (
        "--draw",
        {"metavar": "DIR", "help": "Folder for the pictures with the boxes of a detector."},
    ),
    (
        "--beside",
        {
            "metavar": "PAGE.html",
            "help": "Page to write that shows teacher, control and student on the same pictures.",
        },
    ),
)
_TRUST: Argument = (
    "--trust",
    {"action": "store_true", "help": "Execute the Python file that the student's run names."},
)


def entry(device: Argument) -> Entry:
    """Return the command, with an argument that it shares with others."""
    return Entry(
        "Predict the classes of pictures, or the objects in them, with a trained student.",
        _predict,
        (*_ARGUMENTS, device, _TRUST),
    )


def _predict(options: Namespace, overrides: dict[str, Any]) -> None:
    if options.out and Path(options.out).suffix not in (".jsonl", ".csv"):
        raise RecipeError(f"--out is {options.out!r}: give a file that ends in .jsonl or .csv.")
    if options.beside:
        _write_page(options)
        return
    from understudy.deployment.prediction.pictures import listed
    from understudy.deployment.prediction.predictor import load

    predictor = load(options.student, trust=options.trust, device=options.device)
    if options.draw and predictor.task != "detection":
        raise RecipeError(
            f"--draw shows boxes, and a network for {predictor.task} predicts none: leave it out."
        )
    print(f"{predictor.source}, on {predictor.device}", file=sys.stderr)
    items = list(listed(options.pictures))
    failed = _write_all(predictor, items, options)
    if failed:
        raise Unfinished(
            f"{len(failed)} of {len(items)} pictures {'has' if len(failed) == 1 else 'have'} no "
            f"prediction{', first' * (len(failed) > 1)}: {failed[0]}"
        )


def _write_all(
    predictor: "Predictor", items: "Sequence[Item]", options: Namespace
) -> "list[Prediction]":
    """Write the predictions of all pictures, and return those that failed."""
    from understudy.deployment.prediction.drawing import Drawing
    from understudy.deployment.prediction.predictor import Failed

    choice = {"top": options.top, "threshold": options.threshold}
    answers = predictor.answers(items, batch=options.batch, **choice)
    columns = predictor.decision(**choice).columns
    if not columns and str(options.out).endswith(".csv"):
        raise RecipeError("A network without a classifier gives vectors: use --out FILE.jsonl.")
    drawing = Drawing(Path(options.draw), items) if options.draw else None
    failed: list[Prediction] = []
    with _written(options.out, columns) as write, _counted(len(items), options.out) as advance:
        for answer in answers:
            write(answer.prediction)
            if isinstance(answer.prediction, Failed):
                failed.append(answer.prediction)
            elif drawing is not None:
                drawing.draw(answer)
            advance()
    return failed


@contextmanager
def _written(out: str | None, columns: Sequence[str]) -> "Iterator[Callable[[Prediction], None]]":
    """Yield a function that writes a prediction, as JSON or CSV, to a file or the standard output.

    The file has its name only once it is whole; until then it ends in `.partial`.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    if out is None:
        yield _print_line
        return
    from understudy.files import write_error

    file = Path(out)
    partial = file.with_name(f"{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            yield _rows_into(opened, columns) if file.suffix == ".csv" else _lines_into(opened)
        partial.replace(file)
    except OSError as error:
        raise write_error(error, file, 1, again="predict again") from error


def _print_line(prediction: "Prediction") -> None:
    try:
        print(prediction.to_json(), flush=True)
    except BrokenPipeError:
        # The reader has all it wants, as in `| head`; nothing can be flushed at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _lines_into(file: TextIO) -> "Callable[[Prediction], None]":
    def write(prediction: "Prediction") -> None:
        file.write(f"{prediction.to_json()}\n")

    return write


def _rows_into(file: TextIO, columns: Sequence[str]) -> "Callable[[Prediction], None]":
    """Return a function that adds the rows of a prediction to a CSV file."""
    table = csv.DictWriter(file, (*columns, "note", "error"))
    table.writeheader()

    def write(prediction: "Prediction") -> None:
        note = {"note": prediction.note} if prediction.note else {}
        table.writerows(row | note for row in prediction.rows())

    return write


@contextmanager
def _counted(total: int, out: str | None) -> Iterator[Callable[[], None]]:
    """Yield a function that counts a picture, in a bar where a terminal shows no predictions."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True, force_jupyter=False)
    if not console.is_terminal or (out is None and sys.stdout.isatty()):
        yield lambda: None
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pictures", total=total)
        yield lambda: bar.advance(task)


def _write_page(options: Namespace) -> None:
    for flag in ("out", "draw"):
        if getattr(options, flag):
            raise RecipeError(f"--beside writes a page alone: leave --{flag} out.")
    from understudy.reporting.beside import write_beside

    page = write_beside(
        options.student,
        options.pictures,
        Path(options.beside),
        top=options.top,
        threshold=options.threshold,
        trust=options.trust,
        device=options.device,
    )
    print(f"page: {page}")
