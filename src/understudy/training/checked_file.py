"""Files that notice damage: their content, followed by its SHA-256."""

from hashlib import sha256
from pathlib import Path

from understudy import files

_DIGEST_BYTES = sha256().digest_size


def write_checked(path: Path, content: bytes, *, key: str = "--out") -> None:
    """Replace a file in one step by content and its SHA-256.

    Args:
        path: The file.
        content: What `read_checked` returns from then on.
        key: Key or flag by which the user chose the folder, for the error.

    Raises:
        RunError: As for `files.write`.
    """
    files.write(path, content + sha256(content).digest(), key=key)


def read_checked(path: Path) -> bytes | None:
    """Return the content of a file of `write_checked`; None if its SHA-256 does not match."""
    data = path.read_bytes()
    content = data[:-_DIGEST_BYTES]
    if _matches(content, data[-_DIGEST_BYTES:]):
        return content
    # What a teaching detector finds was stored with the digest in front before.
    content = data[_DIGEST_BYTES:]
    return content if _matches(content, data[:_DIGEST_BYTES]) else None


def _matches(content: bytes, digest: bytes) -> bool:
    return sha256(content).digest() == digest
