"""Files `zoo_*.npz`: the methods of the CRD code base; a manifest names each case's method."""

import json
from collections.abc import Iterator

from understudy.methods.kd import KD
from vectors.archive import Case, Check, Fields, close, gradients_close, leaf, tensor
from vectors.build import batch, method


def cases(archive: Fields) -> Iterator[Case]:
    manifest = json.loads(str(archive["manifest_json"]))["cases"]
    for name, entry in manifest.items():
        fields = {field: archive[f"{name}__{field}"] for field in entry["fields"]}
        yield Case(name, entry["method"], fields)


def check_kd(fields: Fields) -> None:
    s, t = leaf(fields["student_logits"]), tensor(fields["teacher_logits"])
    features = {"logits": s}, {"logits": t}
    loss = method(KD, *features, temperature=float(fields["T"]))(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student_logits": s}, fields)


CHECKS: dict[str, Check] = {"KD": check_kd}
