"""Files `logit_*.npz`: losses on logits, numbered, with one count per kind."""

from collections.abc import Iterator

from tests.vectors import maps, relations
from tests.vectors.archive import (
    Case,
    Check,
    Fields,
    close,
    gradients_close,
    leaf,
    numbered,
    tensor,
)
from tests.vectors.build import batch, method
from understudy.functional import batch_mean
from understudy.methods.kd import KD, kd


def cases(archive: Fields) -> Iterator[Case]:
    for key in archive:
        if key.startswith("n_"):
            kind = key.removeprefix("n_")
            for name, fields in numbered(archive, kind, int(archive[key])):
                yield Case(name, kind, fields)
    margins = {k: v for k, v in archive.items() if k.startswith("ofdmargin_")}
    if margins:
        yield Case("ofdmargin", "ofdmargin", margins)


def check_kd(fields: Fields) -> None:
    s, t = leaf(fields["student"]), tensor(fields["teacher"])
    temperature, weight = float(fields["T"]), float(fields["weight"])
    features = {"logits": s}, {"logits": t}
    loss = weight * method(KD, *features, temperature=temperature)(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    close(weight * batch_mean(kd(s, t, temperature)), fields["loss"])
    gradients_close({"student": s}, fields)


CHECKS: dict[str, Check] = {"kd": check_kd} | maps.LOGIT | relations.LOGIT
