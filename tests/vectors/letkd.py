"""Files `letkd_*.npz`: dotted keys; the first word is the part of the method a case belongs to."""

from collections.abc import Iterator

from vectors.archive import Case, Check, Fields

PARTS = ("cosconv", "vq", "kl", "pen", "int", "offline", "step1", "step2")


def cases(archive: Fields) -> Iterator[Case]:
    for kind, name in sorted({(kind_of(key), key.split(".")[0]) for key in archive}):
        fields = {key: x for key, x in archive.items() if key.startswith(f"{name}.")}
        yield Case(name, kind, fields)


def kind_of(key: str) -> str:
    """`step1_resnet.images0` → `step1`; a part not known stays as it is, and fails by name."""
    word = key.split(".")[0].split("_")[0]
    return word if word in PARTS else key.split(".")[0]


CHECKS: dict[str, Check] = {}
