"""Files `foundation_*.npz`: label-free distillation; a manifest names each case's method."""

from collections.abc import Iterator

from tests.vectors import foundation_maps, foundation_regression, foundation_similarity, zoo
from tests.vectors.archive import Case, Check, Fields


def cases(archive: Fields) -> Iterator[Case]:
    return zoo.cases(archive)


CHECKS: dict[str, Check] = {
    **foundation_similarity.CHECKS,
    **foundation_regression.CHECKS,
    **foundation_maps.CHECKS,
}
