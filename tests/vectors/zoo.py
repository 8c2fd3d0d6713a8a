"""Files `zoo_*.npz`: the methods of the CRD code base; a manifest names each case's method."""

import json
from collections.abc import Iterator

from torch import Tensor, nn

from tests.vectors import maps, relations
from tests.vectors.archive import Case, Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, load, method
from understudy.functional import batch_mean
from understudy.methods.fitnet import FitNet, fitnet
from understudy.methods.kd import KD


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


def check_fitnet(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    student, teacher = {"hint": s}, {"hint": t}
    if "conv_weight" not in fields:
        built = method(FitNet, student, teacher, feature="hint", projector="none")
        names: dict[str, Tensor] = {}
        close(batch_mean(fitnet(s, t)), fields["loss"])
    else:
        built = method(FitNet, student, teacher, feature="hint")
        names = load_regressor(built, fields)
        close(built.regressor(s), fields["regressor_out"])
    loss = built(student, teacher, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student_feat": s} | names, fields)


def load_regressor(built: FitNet, fields: Fields) -> dict[str, Tensor]:
    """Put the recorded regressor in the place of the one that the rule of shapes chose."""
    conv, norm = built.regressor[0], built.regressor[1]
    assert isinstance(conv, nn.ConvTranspose2d) == bool(fields["transposed"])
    assert conv.stride == 2 * (int(fields["stride"]),)
    assert conv.padding == 2 * (int(fields["padding"]),)
    load(conv, weight=fields["conv_weight"], bias=fields["conv_bias"])
    load(norm, weight=fields["bn_weight"], bias=fields["bn_bias"])
    return {
        f"{layer}_{name}": x
        for layer, module in (("conv", conv), ("bn", norm))
        for name, x in module.named_parameters()
    }


CHECKS: dict[str, Check] = {"KD": check_kd, "FitNet": check_fitnet} | maps.ZOO | relations.ZOO
