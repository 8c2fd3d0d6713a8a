"""Cases of the methods on maps, in the files `zoo_*.npz` and `logit_*.npz`."""

from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors.archive import Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, load, method
from understudy.functional import batch_mean
from understudy.methods import Method
from understudy.methods.ab import AB
from understudy.methods.at import AT
from understudy.methods.fsp import FSP
from understudy.methods.ft import FT, autoencoder, ft
from understudy.methods.nst import NST
from understudy.methods.ofd import normal_margin, ofd
from understudy.methods.reviewkd import ABF, hcl
from understudy.methods.vid import VID


def check_levels(cls: type[Method], fields: Fields, **hyper: Any) -> None:
    """Loss of several recorded levels, and its gradients, through the method."""
    numbers = list(takewhile(lambda n: f"student_feat{n}" in fields, count()))
    student = {f"map{n}": leaf(fields[f"student_feat{n}"]) for n in numbers}
    teacher = {f"map{n}": tensor(fields[f"teacher_feat{n}"]) for n in numbers}
    built = method(cls, student, teacher, stages=tuple(student), **hyper)
    loss = built(student, teacher, batch(len(student["map0"])))
    loss.backward()
    close(loss, fields["loss"])
    close(loss, sum(fields["loss_group"]))
    gradients_close({f"student_feat{n}": student[f"map{n}"] for n in numbers}, fields)


def check_at(fields: Fields) -> None:
    check_levels(AT, fields, power=float(fields["p"]))


def check_nst(fields: Fields) -> None:
    check_levels(NST, fields)


def check_ab(fields: Fields) -> None:
    check_levels(AB, fields)


def check_fsp(fields: Fields) -> None:
    check_levels(FSP, fields)


def check_vid(fields: Fields) -> None:
    s = leaf(fields["student_feat"])
    student, teacher = {"map": s}, {"map": tensor(fields["teacher_feat"])}
    built = method(VID, student, teacher, stages=("map",))
    convolutions = [layer for layer in built.means[0] if isinstance(layer, nn.Conv2d)]
    for number, layer in enumerate(convolutions, 1):
        load(layer, weight=fields[f"conv{number}_W"])
    load(built.log_scales, **{"0": fields["log_scale"]})
    loss = built(student, teacher, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    weights = {f"conv{n}_W": layer.weight for n, layer in enumerate(convolutions, 1)}
    gradients_close({"student_feat": s, "log_scale": built.log_scales[0]} | weights, fields)


def load_chain(target: nn.Sequential, fields: Fields, prefix: str) -> None:
    """Put recorded layers, numbered with gaps, into those of a chain that have parameters."""
    numbers = sorted({int(f.split(".")[2]) for f in fields if f.startswith(prefix)})
    layers = [layer for layer in target if any(True for _ in layer.state_dict())]
    for number, layer in zip(numbers, layers, strict=True):
        load(layer, **{k: fields[f"{prefix}{number}.{k}"] for k in ("weight", "bias")})


def check_ft(fields: Fields) -> None:
    s, t = leaf(fields["student_feat"]), tensor(fields["teacher_feat"])
    if "student_factor" in fields:
        loss = translated(s, t, fields)
    else:
        loss = batch_mean(ft(s, t, float(fields["p1"]), float(fields["p2"])))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student_feat": s}, fields)


def translated(s: Tensor, t: Tensor, fields: Fields) -> Tensor:
    """The method's loss with the recorded translator and paraphraser."""
    student, teacher = {"map": s}, {"map": t}
    built = method(FT, student, teacher, stages=("map",))
    coder = autoencoder(t.shape[1], built.factors).double()
    load_chain(coder[0], fields, "para.encoder.")
    load_chain(coder[1], fields, "para.decoder.")
    load_chain(built.translator, fields, "trans.encoder.")
    close(F.mse_loss(coder(t), t), fields["reconstruction_loss"])
    built.paraphraser.load_state_dict(coder[0].state_dict())
    built.prepared = True
    close(built.paraphraser(t), fields["teacher_factor"])
    close(built.translator(s), fields["student_factor"])
    loss: Tensor = built(student, teacher, batch(len(s)))
    return loss


def check_ofd(fields: Fields) -> None:
    s, t, margin = leaf(fields["student"]), tensor(fields["teacher"]), tensor(fields["margin"])
    loss = batch_mean(ofd(s, t, margin[0]))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student": s}, fields)


def check_margin(fields: Fields) -> None:
    weight, bias = (tensor(fields[f"ofdmargin_bn_{name}"]) for name in ("weight", "bias"))
    close(normal_margin(bias, weight), fields["ofdmargin_expected"])


def check_hcl(fields: Fields) -> None:
    numbers = range(int(fields["n_levels"]))
    maps = {f"grad{n}": leaf(fields[f"s{n}"]) for n in numbers}
    losses = [batch_mean(hcl(s, tensor(fields[f"t{n}"]))) for n, s in enumerate(maps.values())]
    for number, loss in enumerate(losses):
        close(loss, fields[f"level_loss{number}"])
    torch.stack(losses).sum().backward()
    close(torch.stack(losses).sum(), fields["loss"])
    for name, s in maps.items():
        assert s.grad is not None
        close(s.grad, fields[name])


PARTS = {"conv1.0": "enter.0", "conv1.1": "enter.1", "conv2.0": "leave.0", "conv2.1": "leave.1"}
PARTS |= {"att_conv.0": "attention"}
"""Names of the layers of a fusion, as recorded and as they are here."""


def check_abf(fields: Fields) -> None:
    recorded = {k.removeprefix("p_"): x for k, x in fields.items() if k.startswith("p_")}
    (width, inputs), fuse = recorded["conv1.0.weight"].shape[:2], "y" in fields
    built = ABF(inputs, width, len(recorded["conv2.0.weight"]), fuse=fuse).double()
    names = {k: k.rpartition(".") for k in recorded}
    load(built, **{f"{PARTS[n[0]]}.{n[2]}": recorded[k] for k, n in names.items()})
    leaves = {k: leaf(fields[k]) for k in ("x", "y") if k in fields}
    size: Sequence[int] = 2 * (int(fields["out_shape"]),)
    built.train(bool(fields["train"]))
    out, residual = built(leaves["x"], leaves.get("y"), size)
    (out * tensor(fields["upstream"])).sum().backward()
    close(out, fields["out"])
    close(residual, fields["residual"])
    gradients_close(leaves, fields)


ZOO: dict[str, Check] = {
    "AT": check_at,
    "NST": check_nst,
    "VID": check_vid,
    "AB": check_ab,
    "FT": check_ft,
    "FSP": check_fsp,
}
LOGIT: dict[str, Check] = {
    "hcl": check_hcl,
    "abf": check_abf,
    "ofd": check_ofd,
    "ofdmargin": check_margin,
}
