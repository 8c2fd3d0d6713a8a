"""The command `understudy export`: its flags, and what it prints."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from understudy.cli.flags import Entry, OneOf, number, whole_number
from understudy.cli.output import console

if TYPE_CHECKING:
    from understudy.deployment.export.export_student import Exported

_FORMS = ("onnx", "torch-export", "safetensors", "hub")
_ARGUMENTS = (
    ("run", {"help": "A run directory, or a folder with student.safetensors and config.json."}),
    (
        "--to",
        {
            "nargs": "+",
            "type": OneOf(*_FORMS),
            "default": ["onnx"],
            "metavar": "FORM",
            "help": f"Forms to write: {', '.join(_FORMS)}; default: onnx.",
        },
    ),
    ("--out", {"help": "Folder to write; default: export in the run directory."}),
    (
        "--preprocessing",
        {
            "type": OneOf("outside", "inside", "inside-float"),
            "default": "outside",
            "metavar": "WHERE",
            "help": "Where images are resized and normalised: outside the graph, inside (it takes "
            "uint8 pictures of any size), or inside-float (values in 0–1); default: outside.",
        },
    ),
    (
        "--probabilities",
        {
            "action": "store_true",
            "help": "Let the graph return probabilities: softmax, or sigmoid for several classes.",
        },
    ),
    (
        "--any-size",
        {"action": "store_true", "help": "Let height and width of prepared images be free."},
    ),
    (
        "--opset",
        {
            "type": whole_number("--opset"),
            "metavar": "N",
            "help": "Version of ONNX's operators; default: that of torch's exporter.",
        },
    ),
    (
        "--int8",
        {"action": "store_true", "help": "Write an int8 file too, calibrated on training images."},
    ),
    (
        "--max-drop",
        {
            "type": number("--max-drop"),
            "default": 1.0,
            "metavar": "POINTS",
            "help": "Points of the headline metric that int8 may lose; default: 1.",
        },
    ),
    (
        "--keep-fp32",
        {
            "nargs": "+",
            "default": [],
            "metavar": "LAYER",
            "help": "Layers that int8 leaves in fp32, with * and ?, such as 'blocks.0.*'.",
        },
    ),
    (
        "--images",
        {
            "type": whole_number("--images"),
            "default": 2000,
            "metavar": "N",
            "help": "Test images to check on, evenly chosen; 0 for all; default: 2000.",
        },
    ),
)


def entry() -> Entry:
    """Return the command."""
    return Entry(
        "Export the student of a run, check it on test images, and measure size and latency.",
        _export,
        _ARGUMENTS,
        takes_recipe_keys=True,
    )


def _export(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.deployment.export.export_student import export
    from understudy.deployment.speed.speed_table import facts, notes
    from understudy.reporting.speed_section import terminal_speeds

    trust = bool(overrides.pop("trust", False))  # the recipe's key is the flag
    exported = export(
        options.run,
        overrides,
        to=options.to,
        out=options.out,
        preprocessing=options.preprocessing,
        probabilities=options.probabilities,
        any_size=options.any_size,
        opset=options.opset,
        int8=options.int8,
        max_drop=options.max_drop,
        keep_fp32=options.keep_fp32,
        images=options.images or None,
        trust=trust,
    )
    for line in printed(exported):
        print(line)
    if exported.speeds:
        console().print(terminal_speeds(exported.speeds))
        print(facts(exported.speeds))
        for note in notes(exported.speeds):
            print(note)


def printed(exported: "Exported") -> list[str]:
    """Return a line for every file and what was found of it, and what the files take."""
    from understudy.deployment.exported_folder import prepared_by_graph

    lines = []
    for form, name in exported.files.items():
        size = (exported.folder / name).stat().st_size / 1e6
        compared = exported.parity.get(form)
        sentence = f": {compared.sentence}" if compared else ""
        if form == "int8" and exported.int8:
            sentence = f": {exported.int8.sentence}"
        lines.append(f"{exported.folder / name} ({size:.3g} MB){sentence}")
    lines += filter(None, [exported.takes, prepared_by_graph(exported.to_dict())])
    return [*lines, *exported.notes]
