"""Push an exported student to the hub of Hugging Face."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub import utils as _hub
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from understudy.deployment.exported_folder import earlier_files
from understudy.deployment.hub.card import CARD, licensed, read_card
from understudy.errors import RunError
from understudy.experiment.student_file.config import FILE as CONFIG
from understudy.experiment.student_file.config import StudentConfig

_PUSHED = {".safetensors", ".json", ".md", ".onnx", ".pt2", ".txt", ".data", ".py"}
"""Suffixes of the files that an export writes."""

_NEEDED = (CONFIG, CARD)


@final
@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        url: Address of the repository.
        files: Names of the files.
        left_out: Names of files of the folder that its last export did not write.
    """

    url: str
    files: Sequence[str]
    left_out: Sequence[str]


def push(
    folder: str | Path, repository: str, *, private: bool = False, licence: str = ""
) -> Pushed:
    """Push an exported folder to the hub, as one commit; create the repository if need be.

    The address of the hub is that of the variable `HF_ENDPOINT`, and the token that of `hf auth
    login` or of `HF_TOKEN`.

    Args:
        folder: Folder written by `understudy export --to hub`.
        repository: Name on the hub, `OWNER/NAME`; without an owner it is yours.
        private: Create a repository that only its owner sees.
        licence: Licence of the student, such as `apache-2.0`; it is written into the card. Empty:
            that of the card.

    Raises:
        RunError: The folder is no export, its card names no licence while the teacher's is not
            known, or the hub refuses or cannot be reached.
    """
    folder = Path(folder)
    _check_folder(folder)
    with _explained(repository):
        _hub.validate_repo_id(repository)
    card = licensed(read_card(folder), licence)
    _check_licence(folder, card.data.get("license"))
    files, left_out = _files(folder)
    card.save(folder / CARD)
    _hub.disable_progress_bars()  # they would mix with the lines of the command
    with _explained(repository):
        api = HfApi(library_name="understudy")
        created = api.create_repo(repository, private=private or None, exist_ok=True)
        api.create_commit(
            created.repo_id,
            [CommitOperationAdd(name, _content(folder, name)) for name in files],
            commit_message="Push a student by Understudy",
        )
    return Pushed(str(created), files, left_out)


def _content(folder: Path, name: str) -> str | bytes:
    """Return the path of a file to push; of `config.json` the bytes, without folders of here."""
    if name == CONFIG:
        return StudentConfig.read(folder).without_folders().to_json().encode()
    return str(folder / name)


def _check_folder(folder: Path) -> None:
    """Refuse what `understudy export --to hub` did not write.

    Raises:
        RunError: A file is missing.
    """
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not missing and any(name.endswith(".safetensors") for name in _files(folder)[0]):
        return
    what = f"has no {missing[0]}" if missing else "has no weights (*.safetensors)"
    if not folder.is_dir():
        what = "does not exist"
    source = str(folder) if (folder / "metrics.jsonl").is_file() else "RUN"
    raise RunError(
        f"{folder} is no exported folder: it {what}. Write one by "
        f"`understudy export {source} --to hub`, and push that."
    )


def _check_licence(folder: Path, licence: Any) -> None:
    """Refuse a card without a licence: which one the teacher demands is not guessed.

    Raises:
        RunError: It is missing.
    """
    if not licence:
        raise RunError(
            f"The card of {folder} names no licence, and that of the teacher is not recorded: look "
            "up under which licence the weights are that the student learnt from or began with, "
            "and give the one of the student by --license, such as --license apache-2.0."
        )


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files to push, and those to leave out, by their paths within the folder."""
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in every]
    earlier = earlier_files(folder)
    kept = [name for name in names if _is_pushed(name) and name not in earlier]
    return kept, [name for name in names if name not in kept]


def _is_pushed(name: str) -> bool:
    hidden = any(part.startswith(".") for part in Path(name).parts)
    return not hidden and (Path(name).suffix in _PUSHED or Path(name).name.startswith("LICENSE"))


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Say in a sentence why the hub was not reached, or what it refused.

    Raises:
        RunError: It was not, or it did.
    """
    try:
        yield
    except HFValidationError as error:
        raise RunError(
            f"{repository!r} is no name of a repository: give OWNER/NAME, of letters, digits, "
            "'-', '_' and '.'."
        ) from error
    except LocalTokenNotFoundError as error:
        raise RunError(
            "You are not logged in at the hub: run `hf auth login`, or set HF_TOKEN."
        ) from error
    except OfflineModeIsEnabled as error:
        raise RunError(
            "Nothing was pushed, since HF_HUB_OFFLINE is set: unset it, and push again."
        ) from error
    except HfHubHTTPError as error:
        raise RunError(f"{_refusal(repository, error)} Nothing was pushed.") from error
    except Exception as error:
        # Of the library that sends requests, which changes with releases of huggingface_hub.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise RunError(
            f"The hub cannot be reached ({type(error).__name__}: {error}): check the connection, "
            "and push again."
        ) from error


def _refusal(repository: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return "The hub does not know your token: run `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return (
            f"Your token may not write {repository}: make one with the right to write at "
            "https://huggingface.co/settings/tokens."
        )
    words = " ".join((error.server_message or str(error)).split()).rstrip(".")
    return f"The hub refused {repository} ({words})."
