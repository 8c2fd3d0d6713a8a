"""The command `understudy probe`: its flags, and what it prints."""

from argparse import Namespace
from statistics import mean
from typing import Any

from rich.table import Table

from understudy.cli.flags import Argument, Entry
from understudy.cli.output import console

_MEANING = (
    "k-NN N: each image has the class that its N nearest images vote for, by the cosine of their "
    "features. linear: the class that a linear classifier on the features says. Neither changes "
    "the network; the higher, the more its features tell of the classes. "
    "A comparison without labels classifies test images by each other: its k-NN is another number."
)


def entry(device: Argument) -> Entry:
    """Return the command, with an argument that it shares with others."""
    return Entry(
        "Measure a student's features by k-NN and a linear probe, on any images with labels.",
        _probe,
        (("run", {"help": "Run directory."}), device),
        takes_recipe_keys=True,
    )


def _probe(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment.probe import probe
    from understudy.reporting.measured_images import resolution

    probed = probe(options.run, overrides, device=options.device)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(("", *probed.accuracies["student"])):
        table.add_column(heading, justify="right" if number else "left")
    for role, values in probed.accuracies.items():
        table.add_row(role, *(f"{value:.2f}" for value in values.values()))
    console().print(table)
    print(
        f"Accuracy in percent on {probed.images:,} images of {probed.classes} classes: "
        f"{probed.protocol} ({probed.stored:,} with labels)."
    )
    middle = mean(value for values in probed.accuracies.values() for value in values.values())
    print(f"{resolution(middle, probed.images).capitalize()}.")
    print(_MEANING)
