"""Files `pefd_*.npz`: a manifest lists the cases; the fields of a case say what it records."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors.archive import Case, Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, linear, load, method
from understudy.functional import batch_mean
from understudy.methods.kd import KD
from understudy.methods.pefd import PEFD, pefd, project


def cases(archive: Fields) -> Iterator[Case]:
    for name, entry in json.loads(str(archive["manifest_json"]))["cases"].items():
        fields = {field: archive[f"{name}__{field}"] for field in entry["fields"]}
        yield Case(name, kind_of(set(fields)), fields)


def kind_of(fields: set[str]) -> str:
    """The kind whose required fields are there; the most demanding first."""
    required = {
        "degenerate": {"official_loss", "student_feat"},
        "trajectory": {"x", "losses", "init_W"},
        "total": {"student_feat", "student_logits", "W", "beta"},
        "loss": {"student_feat", "W", "loss"},
        "no_projector": {"student_feat", "teacher_feat", "loss"},
        "kd1proj": {"student_logits", "W", "loss"},
    }
    return next((kind for kind, names in required.items() if names <= fields), f"{sorted(fields)}")


def ensemble(s: Tensor, t: Any, weight: Any, bias: Any) -> tuple[PEFD, Tensor]:
    """The method with recorded projectors, and its loss."""
    student, teacher = {"penultimate": s}, {"penultimate": tensor(t)}
    built = method(PEFD, student, teacher, projectors=len(weight))
    load(built, weight=weight, bias=bias)
    return built, built(student, teacher, batch(len(s)))


def tolerance(fields: Fields) -> dict[str, float]:
    single = fields["student_feat"].dtype == "float32"
    return {"rtol": 1e-4, "atol": 1e-6} if single else {}


def check_loss(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    built, loss = ensemble(s, t, fields["W"], fields["bias"])
    loss.backward()
    close(loss, fields["loss"], **tolerance(fields))
    leaves = {"student_feat": s, "W": built.weight, "bias": built.bias}
    gradients_close(leaves, fields, **tolerance(fields))
    z = project(s, tensor(fields["W"]), tensor(fields["bias"]))
    close(batch_mean(pefd(z, t)), fields["loss"], **tolerance(fields))


def check_no_projector(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    features = {"penultimate": s}, {"penultimate": t}
    loss = method(PEFD, *features, projectors=0)(*features, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"], **tolerance(fields))
    gradients_close({"student_feat": s}, fields, **tolerance(fields))


def distil(s: Tensor, fields: Fields, **hyper: Any) -> tuple[KD, Tensor]:
    features = {"logits": s}, {"logits": tensor(fields["teacher_logits"])}
    built = method(KD, *features, temperature=float(fields["T"]), **hyper)
    if hyper:
        load(built, **{"projector.weight": fields["W"], "projector.bias": fields["bias"]})
    return built, built(*features, batch(len(s)))


def check_total(fields: Fields) -> None:
    s, logits = leaf(fields["student_feat"]), leaf(fields["student_logits"])
    built, feature_loss = ensemble(s, fields["teacher_feat"], fields["W"], fields["bias"])
    _, kl = distil(logits, fields)
    task = F.cross_entropy(logits, tensor(fields["labels"]))
    gamma, alpha, beta = (float(fields[k]) for k in ("gamma", "alpha", "beta"))
    loss = gamma * task + alpha * kl + beta * feature_loss
    loss.backward()
    close(loss, fields["loss"], **tolerance(fields))
    leaves = {"student_feat": s, "student_logits": logits, "W": built.weight, "bias": built.bias}
    gradients_close(leaves, fields, **tolerance(fields))


def check_kd1proj(fields: Fields) -> None:
    logits = leaf(fields["student_logits"])
    built, kl = distil(logits, fields, projector=True)
    task = F.cross_entropy(logits, tensor(fields["labels"]))
    loss = float(fields["gamma"]) * task + float(fields["beta"]) * kl
    loss.backward()
    close(loss, fields["loss"])
    projector = built.projector
    leaves = {"student_logits": logits, "W": projector.weight, "bias": projector.bias}
    gradients_close(leaves, fields)


def check_trajectory(fields: Fields) -> None:
    """SGD on a toy student and the projectors, step by step."""
    assert float(fields["alpha"]) == 0, "a trajectory records no teacher logits"
    body = linear(fields["init_Sf_W"], fields["init_Sf_b"])
    head = linear(fields["init_Sc_W"], fields["init_Sc_b"])
    teacher = linear(fields["Tf_W"], fields["Tf_b"])
    x = tensor(fields["x"]).double()
    built, _ = ensemble(
        body(x[0]).relu(), teacher(x[0]).relu().detach(), fields["init_W"], fields["init_bias"]
    )
    settings = {k: float(fields[k]) for k in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(nn.ModuleList([body, head, built]).parameters(), **settings)
    losses = []
    for images, labels in zip(x, tensor(fields["labels"]), strict=True):
        s = body(images).relu()
        features = {"penultimate": s}, {"penultimate": teacher(images).relu()}
        task = F.cross_entropy(head(s), labels)
        method_loss = built(*features, batch(len(s)))
        loss = float(fields["gamma"]) * task + float(fields["beta"]) * method_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    close(losses, fields["losses"])
    final = {"Sf_W": body.weight, "Sf_b": body.bias, "Sc_W": head.weight, "Sc_b": head.bias}
    for name, value in (final | {"W": built.weight, "bias": built.bias}).items():
        close(value, fields[f"final_{name}"])


def check_degenerate(fields: Fields) -> None:
    """Where the authors' loss is NaN, ours is finite; their finite gradients are ours too."""
    s = leaf(fields["student_feat"])
    built, loss = ensemble(s, fields["teacher_feat"], fields["W"], fields["bias"])
    loss.backward()
    leaves = {"student_feat": s, "W": built.weight, "bias": built.bias}
    assert loss.isfinite()
    for name, x in leaves.items():
        assert x.grad is not None
        assert x.grad.isfinite().all()
        if f"official_grad_{name}" in fields:
            official = tensor(fields[f"official_grad_{name}"])
            known = official.isfinite()
            close(x.grad[known], official[known])


CHECKS: dict[str, Check] = {
    "loss": check_loss,
    "no_projector": check_no_projector,
    "total": check_total,
    "kd1proj": check_kd1proj,
    "trajectory": check_trajectory,
    "degenerate": check_degenerate,
}
