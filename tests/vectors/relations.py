"""Methods on vectors, relations and logits, of the files `zoo_*.npz` and `logit_*.npz`."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vectors.archive import Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import M, Outputs, batch, linear, load, method
from understudy.functional import batch_mean
from understudy.layers.reused_head import LAST_MAP, Translator
from understudy.methods.cc import CC, cc
from understudy.methods.crd import CRD
from understudy.methods.dist import DIST, dist
from understudy.methods.dkd import DKD, dkd
from understudy.methods.pkt import PKT, pkt
from understudy.methods.rkd import RKD, rkd
from understudy.methods.simkd import SimKD
from understudy.methods.sp import SP, sp
from understudy.methods.srrl import SRRL


def equal(cls: type[M], function: Any, fields: Fields, feature: str, **hyper: Any) -> None:
    """The method and its function give the recorded loss, the method its gradient too."""
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    features = {feature: s}, {feature: t}
    given = {"feature": feature} if feature == "hint" else {}
    loss = method(cls, *features, **hyper, **given)(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    close(batch_mean(function(s, t, **hyper)), fields["loss"])
    gradients_close({"student_feat": s}, fields)


def check_sp(fields: Fields) -> None:
    equal(SP, sp, fields, "hint")


def check_rkd(fields: Fields) -> None:
    weights = {"distance": float(fields["w_d"]), "angle": float(fields["w_a"])}
    equal(RKD, rkd, fields, "penultimate", **weights)


def check_pkt(fields: Fields) -> None:
    equal(PKT, pkt, fields, "penultimate", eps=float(fields["eps"]))


def check_cc(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    if "embed_s_W" not in fields:
        loss, leaves = batch_mean(cc(s, t)), {"student_feat": s}
    else:
        features = {"penultimate": s}, {"penultimate": t}
        built = method(CC, *features, dim=len(fields["embed_s_W"]))
        leaves = {"student_feat": s} | embeddings(built.ours, built.theirs, fields)
        loss = built(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def embeddings(ours: torch.nn.Linear, theirs: torch.nn.Linear, fields: Fields) -> dict[str, Tensor]:
    """Put the recorded embeddings of both features in place; their parameters by field."""
    found: dict[str, Tensor] = {}
    for side, layer in (("embed_s", ours), ("embed_t", theirs)):
        load(layer, weight=fields[f"{side}_W"], bias=fields[f"{side}_b"])
        found |= {f"{side}_W": layer.weight, f"{side}_b": layer.bias}
    return found


def check_crd(fields: Fields) -> None:
    """Two calls: the first finds Z and fills the memory, which the second uses."""
    built = crd_method(fields)
    leaves = {"student_feat": leaf(fields["student_feat"])}
    leaves |= embeddings(built.ours, built.theirs, fields)
    loss = contrast(built, fields, "", leaves["student_feat"])
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)
    close(built.z, [float(fields["Z_v1"]), float(fields["Z_v2"])])
    close(built.student_memory, fields["memory_v1_after"])
    close(built.teacher_memory, fields["memory_v2_after"])
    again = leaf(fields["step2_student_feat"])
    loss = contrast(built, fields, "step2_", again)
    loss.backward()
    close(loss, fields["step2_loss"])
    gradients_close({"step2_student_feat": again}, fields)


def crd_method(fields: Fields) -> CRD:
    """The method with the recorded memory, which its state brings along."""
    s, t = ({"penultimate": tensor(fields[f"{side}_feat"])} for side in ("student", "teacher"))
    built = method(
        CRD,
        s,
        t,
        dim=fields["memory_v1"].shape[1],
        negatives=int(fields["nce_k"]),
        temperature=float(fields["nce_t_effective"]),
        momentum=float(fields["nce_m_effective"]),
    )
    names = {"student_memory": "memory_v1", "teacher_memory": "memory_v2"}
    recorded = {name: tensor(fields[field]) for name, field in names.items()}
    labels = torch.arange(int(fields["n_data"]), dtype=torch.int32)
    built.load_state_dict(built.state_dict() | recorded | {"labels": labels})
    return built


def contrast(built: CRD, fields: Fields, step: str, s: Tensor) -> Tensor:
    """The loss with the recorded draw."""
    index, drawn = (tensor(fields[f"{step}{name}"]) for name in ("index", "contrast_index"))
    assert torch.equal(drawn[:, 0], index)
    t = tensor(fields[f"{step}teacher_feat"])
    built._draw = lambda differ: drawn[:, 1:]
    images = replace(batch(len(s)), index=index)
    loss: Tensor = built({"penultimate": s}, {"penultimate": t}, images)
    return loss


def check_simkd(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    height, width = (min(pair) for pair in zip(s.shape[2:], t.shape[2:], strict=True))
    middle = t.shape[1] // int(fields["factor"])
    layer = Translator(s.shape[1], t.shape[1], middle, (height, width)).double()
    leaves = {"student_feat": s}
    for number in (1, 2, 3):
        convolution, norm = layer.translate[3 * number - 3], layer.translate[3 * number - 2]
        load(convolution, weight=fields[f"conv{number}_W"])
        load(norm, **{k: fields[f"bn{number}_{k}"] for k in ("weight", "bias")})
        leaves |= {f"conv{number}_W": convolution.weight}
        leaves |= {f"bn{number}_weight": norm.weight, f"bn{number}_bias": norm.bias}
    projected = layer(s)
    logits = torch.zeros(len(s), len(fields["cls_b"]))
    student, teacher = ({LAST_MAP: x, "logits": logits} for x in (projected, t))
    loss = method(SimKD, student, teacher)(student, teacher, batch(len(s)))
    loss.backward()
    close(projected, fields["trans_feat"])
    close(linear(fields["cls_W"], fields["cls_b"])(projected.mean((2, 3))), fields["pred_logits"])
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def check_srrl(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    teacher = {"penultimate": t, "logits": tensor(fields["teacher_logits"])}
    built = method(SRRL, {"penultimate": s}, teacher)
    weight, bias = tensor(fields["cls_W"]), tensor(fields["cls_b"])
    built.prepare(Outputs(teacher, classifier_weight=weight, classifier_bias=bias))
    projection, norm, _ = built.projector
    load(projection, weight=tensor(fields["W"]).flatten(1))
    load(norm, weight=fields["bn_weight"], bias=fields["bn_bias"])
    h = built.projector(s)
    close(h, fields["trans_feat"])
    close(built.classifier(h), fields["pred_logits"])
    loss = built({"penultimate": s}, teacher, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    leaves = {"student_feat": s, "bn_weight": norm.weight, "bn_bias": norm.bias}
    gradients_close(leaves, fields)
    close(projection.weight.grad, tensor(fields["grad_W"]).flatten(1))


EXACT_DKD = (
    *(294.41723897898055, 29.1447838880746, 0.6103906269598335),
    *(262.5133245004618, 32.08297244737373, 0.8653970103997068),
)
"""True losses of the cases in which the authors' code overflows, public ones first."""


def check_dkd(fields: Fields) -> None:
    s, t, labels = leaf(fields["student"]), tensor(fields["teacher"]), tensor(fields["labels"])
    names = {"alpha": "alpha", "beta": "beta", "temperature": "T"}
    hyper = {name: float(fields[field]) for name, field in names.items()}
    features = {"logits": s}, {"logits": t}
    loss = method(DKD, *features, **hyper)(*features, batch(len(s), labels))
    loss.backward()
    assert s.grad is not None
    assert s.grad.isfinite().all()
    if fields["finite"]:
        close(loss, fields["loss"])
        gradients_close({"student": s}, fields)
    else:
        rtol = 2e-5 if s.dtype == torch.float32 else 1e-9
        assert any(loss.item() == pytest.approx(exact, rel=rtol) for exact in EXACT_DKD)
        official = tensor(fields["grad_student"])
        rows = official.isfinite().all(1)
        close(s.grad[rows], official[rows])
    for alpha, beta, part in ((1.0, 0.0, "tckd"), (0.0, 1.0, "nckd")):
        value = batch_mean(dkd(s, t, labels, alpha, beta, hyper["temperature"]))
        if fields["finite"]:
            close(value, fields[part])


def check_dist(fields: Fields) -> None:
    s, t = leaf(fields["student"]), tensor(fields["teacher"])
    weight = float(fields["weight"])
    hyper = {name: float(fields[name]) for name in ("beta", "gamma", "tau")}
    features = {"logits": s}, {"logits": t}
    built = method(DIST, *features, **hyper, spreadless="published")
    loss = weight * built(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    # 1 / eps multiplies the rounding where the student is uniform.
    loose = {"rtol": 1e-6} if "uniform" in str(fields["name"]) else {}
    gradients_close({"student": s}, fields, **loose)
    for beta, gamma, part in ((1.0, 0.0, "inter"), (0.0, 1.0, "intra")):
        close(batch_mean(dist(s, t, beta, gamma, hyper["tau"])), fields[part])


ZOO: dict[str, Check] = {
    "SP": check_sp,
    "CC": check_cc,
    "RKD": check_rkd,
    "PKT": check_pkt,
    "CRD": check_crd,
    "SimKD": check_simkd,
    "SRRL": check_srrl,
}
LOGIT: dict[str, Check] = {"dkd": check_dkd, "dist": check_dist}
