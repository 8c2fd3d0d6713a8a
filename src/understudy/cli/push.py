"""The command `understudy push`: its flags, and what it prints."""

from argparse import Namespace
from typing import Any

from understudy.cli.flags import Entry

_ARGUMENTS = (
    ("folder", {"help": "Folder written by `understudy export RUN --to hub`."}),
    ("repository", {"metavar": "repo", "help": "Name on the hub of Hugging Face, OWNER/NAME."}),
    ("--private", {"action": "store_true", "help": "Create a repository that only you see."}),
    (
        "--license",
        {
            "metavar": "NAME",
            "default": "",
            "help": "Licence of the student, such as apache-2.0; needed if that of the teacher is "
            "not recorded.",
        },
    ),
)


def entry() -> Entry:
    """Return the command."""
    return Entry(
        "Push an exported student with its card to the hub of Hugging Face.", _push, _ARGUMENTS
    )


def _push(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.deployment.hub.push import push

    pushed = push(
        options.folder, options.repository, private=options.private, licence=options.license
    )
    print(f"{pushed.url}: {', '.join(pushed.files)}")
    if pushed.left_out:
        print(f"left out, as the last export did not write them: {', '.join(pushed.left_out)}")
