"""A file is read if its content has the SHA-256 beside it, wherever that stands, or not at all."""

from hashlib import sha256
from pathlib import Path

import pytest

from understudy.training.checked_file import read_checked, write_checked


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 9])
def test_what_was_written_is_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    write_checked(path, content)
    assert read_checked(path) == content


@pytest.mark.parametrize("content", [b"a", bytes(range(256)) * 9])
def test_a_digest_in_front_is_of_earlier_versions(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(sha256(content).digest() + content)
    assert read_checked(path) == content


@pytest.mark.parametrize("in_front", [False, True])
def test_damage_is_noticed_wherever_it_is(in_front: bool, tmp_path: Path) -> None:
    path, content = tmp_path / "file.bin", b"weights and state"
    parts = [content, sha256(content).digest()]
    whole = b"".join(reversed(parts) if in_front else parts)
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        assert read_checked(path) is None
