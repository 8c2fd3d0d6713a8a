"""Cases of losses that predict features: dense MSE, Proteus, UNIC, RADIO with PHI-S, and Theia."""

from itertools import count, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.vectors.archive import Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, load, method
from understudy.functional import batch_mean
from understudy.methods import proteus
from understudy.methods._hadamard import hadamard, rotation
from understudy.methods._standardise import Standardiser, TokenMoments, momentum_at, phi_s
from understudy.methods.dense_mse import DenseMSE, dense_mse
from understudy.methods.radio import RADIO, cosine_l1, radio
from understudy.methods.radio import one_minus_cosine as angle
from understudy.methods.theia import cosine, l1, theia
from understudy.methods.unic import Ladder, shares, unic
from understudy.training import lr_schedule


def numbered(fields: Fields, prefix: str) -> list[str]:
    """The names `<prefix>0`, `<prefix>1` … that a case has."""
    return [f"{prefix}{n}" for n in takewhile(lambda n: f"{prefix}{n}" in fields, count())]


def check_dense(fields: Fields) -> None:
    s = leaf(fields["student_map"])
    teacher = {name: tensor(fields[name]) for name in numbered(fields, "teacher_map")}
    layers = int(fields["n_projection_layers"])
    hidden = len(fields["W0"]) if layers > 1 else 1
    student = {"patches": s}
    built = method(
        DenseMSE, student, teacher, teacher_maps=tuple(teacher), layers=layers, hidden=hidden
    )
    leaves: dict[str, Tensor] = {"student_map": s}
    linear = [layer for layer in built.head if isinstance(layer, nn.Linear)]
    norms = [layer for layer in built.head if isinstance(layer, nn.LayerNorm)]
    names = [("W", "bias")] if layers == 1 else [(f"W{n}", f"b{n}") for n in range(layers)]
    norm_names = [(f"ln_w{n}", f"ln_b{n}") for n in range(layers - 1)]
    for layer, (weight, bias) in zip([*linear, *norms], [*names, *norm_names], strict=True):
        load(layer, weight=fields[weight], bias=fields[bias])
        leaves |= {weight: layer.weight, bias: layer.bias}
    loss = built(student, teacher, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def check_proteus(fields: Fields) -> None:
    names = ("student_cls", "student_patch", "student_patch_masked_view")
    leaves = {name: leaf(fields[name]) for name in names}
    s, p, masked_p = leaves.values()
    t, q = tensor(fields["teacher_cls"]), tensor(fields["teacher_patch"])
    # Tokens as a map of one row.
    student = {"cls": s, "patches": p.mT.unsqueeze(2)}
    teacher = {"cls": t, "patches": q.mT.unsqueeze(2)}
    weights = [float(fields[f"lambda_{name}"]) for name in ("token", "fea", "patch")]
    built = method(
        proteus.Proteus, student, teacher, token_weight=weights[0], feature_weight=weights[1]
    )
    patch_head = proteus.normed_head(p.shape[2], q.shape[2]).double()
    heads = {"token": built.token_head, "fea": built.feature_head, "patch": patch_head}
    for name, head in heads.items():
        load(head[0], weight=fields[f"{name}_head_ln_w"], bias=fields[f"{name}_head_ln_b"])
        load(head[1], weight=fields[f"{name}_head_W"], bias=fields[f"{name}_head_b"])
    masked = weights[2] * proteus.patch(patch_head(masked_p), q, tensor(fields["mask_indices"]))
    loss = built(student, teacher, batch(len(s))) + masked
    loss.backward()
    close(loss, fields["loss"])
    h = built.token_head(s)
    close(weights[0] * batch_mean(proteus.token(h, t)), fields["token_loss"])
    rows = proteus.feature((h, t), (built.feature_head(p), q))
    close(weights[1] * batch_mean(rows), fields["fea_loss"])
    close(masked, fields["patch_loss"])
    gradients_close(leaves | {f"{k}_head_W": head[1].weight for k, head in heads.items()}, fields)


def check_statistics(fields: Fields) -> None:
    assert float(fields["eps"]) == 1e-6
    for kind in ("cls", "patch"):
        x = tensor(fields[kind])
        built = Standardiser("ema", x.shape[-1], momentum_steps=1).double()
        for step, momentum in enumerate(tensor(fields["momentum"])):
            object.__setattr__(built, "rho", lambda rho=momentum: rho)
            close(built(x[step]), fields[f"{kind}_out"][step])
            close(built.mean, fields[f"{kind}_mean"][step])
            close(built.scale, fields[f"{kind}_std"][step])


def check_unic(fields: Fields) -> None:
    leaves, rows = {}, []
    weights = float(fields["lam_cos"]), float(fields["lam_sl1"])
    for n in range(int(fields["n_teachers"])):
        s, p = (leaf(fields[f"student_{kind}{n}"]) for kind in ("cls", "patch"))
        t, q = (tensor(fields[f"teacher_{kind}{n}"]) for kind in ("cls", "patch"))
        leaves |= {f"student_cls{n}": s, f"student_patch{n}": p}
        rows.append(unic((s, t), (p, q), *weights))
    losses = torch.stack(rows)
    loss = shares(losses, tensor(fields["keep"]).bool(), "published").sum()
    loss.backward()
    close(losses, fields["loss_per_teacher"])
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def ladder(fields: Fields, kind: str) -> Ladder:
    blocks = [int(b) for b in fields["which_blocks"]]
    if f"{kind}_b{blocks[-1]}_W0" not in fields:  # Layers are counted, not called by their block.
        blocks = list(range(len(blocks)))
    firsts = [fields[f"{kind}_b{b}_W0"] for b in blocks]
    outputs = len(fields[f"{kind}_b{blocks[0]}_W1"])
    built = Ladder(
        tuple(w.shape[1] for w in firsts),
        outputs,
        hidden=len(firsts[0]),
        last_hidden=len(firsts[-1]),
    ).double()
    for b, rung in zip(blocks, built.rungs, strict=True):
        for number, layer in enumerate((rung[0], rung[2])):
            names = {"weight": f"{kind}_b{b}_W{number}", "bias": f"{kind}_b{b}_b{number}"}
            load(layer, **{k: fields[name] for k, name in names.items()})
    return built


def check_ladder(fields: Fields) -> None:
    leaves = {f"x_{kind}": leaf(fields[f"x_{kind}"]) for kind in ("cls", "patch")}
    outputs = {}
    for kind in ("cls", "patch"):
        # Block b reads entry b + 1: the first is that of the embedding.
        x = leaves[f"x_{kind}"]
        inputs = [x[int(b) + 1] for b in fields["which_blocks"]]
        outputs[kind] = ladder(fields, kind)(inputs)
        close(outputs[kind], fields[f"out_{kind}"])
    if "loss" not in fields:
        return
    t, q = tensor(fields["teacher_cls"]), tensor(fields["teacher_patch"])
    loss = batch_mean(unic((outputs["cls"], t), (outputs["patch"], q)))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def check_schedules(fields: Fields) -> None:
    each, epochs = int(fields["iters_per_epoch"]), int(fields["epochs"])
    rise = int(fields["warmup_epochs"]) * each
    peak, least = float(fields["lr_peak"]), float(fields["lr_final"])
    fall = epochs * each - rise
    rates = [
        peak * lr_schedule.warmup(step, rise - 1)
        if step < rise
        else least + (peak - least) * lr_schedule.cosine(step - rise, fall)
        for step in range(epochs * each)
    ]
    close(torch.tensor(rates, dtype=torch.float64), fields["lr"])
    # Ours falls from 1; a schedule from anywhere else is its linear image.
    start, end = float(fields["m_start"]), float(fields["m_end"])
    steps = epochs * each
    falling = momentum_at(torch.arange(len(fields["momentum"])), steps, 0.0)
    close(end + (start - end) * falling, fields["momentum"])
    if start == 1:
        ours = momentum_at(torch.arange(len(fields["momentum"])), steps, end)
        close(ours, fields["momentum"])


def check_phi_s(fields: Fields) -> None:
    x = tensor(fields["X"])
    moments = TokenMoments(x.shape[1], joint=True)
    for part in x.tensor_split(3):
        moments.add(part)
    close(moments.mean, fields["mean"])
    values, vectors = tensor(fields["eigvals"]), tensor(fields["eigvecs"])
    close(torch.linalg.eigvalsh(moments.covariance), values.sort().values, rtol=1e-8, atol=1e-10)
    turned, scale = phi_s(values, vectors, tensor(fields["hadamard_unit"]))
    close(scale, fields["scale"])
    close(turned / scale, fields["whiten"])
    built = Standardiser("phi_s", x.shape[1]).double().eval()
    load(built, mean=fields["mean"], scale=scale, rotation=turned)
    close(built(x), fields["Y"])
    close(built(x).var(0), fields["Y_var"])
    s, t = leaf(fields["student_pred"]), tensor(fields["teacher"])
    loss = batch_mean(dense_mse(s, built(t)))
    loss.backward()
    close(loss, fields["mse"])
    gradients_close({"student_pred": s}, fields)
    close(built.restore(s), fields["student_denorm"])
    check_own_statistics(x, moments)


def check_own_statistics(x: Tensor, moments: TokenMoments) -> None:
    """With eigenvectors and a Hadamard matrix of our own, the same properties."""
    own = Standardiser("phi_s", x.shape[1]).double().eval()
    own.set(moments)
    y = own(x)
    close(y.var(0), torch.ones(x.shape[1]).double())
    close(own.restore(y), x, atol=1e-9)


def check_hadamard(fields: Fields) -> None:
    for name, recorded in fields.items():
        order = int(name.removeprefix("H"))
        identity = np.eye(order, dtype=int)
        assert recorded.shape == (order, order)
        assert np.array_equal(recorded.astype(int) @ recorded.T.astype(int), order * identity)
        ours = hadamard(order)
        assert ours is not None, f"there is a Hadamard matrix of order {order}"
        assert torch.equal(ours @ ours.T, order * torch.eye(order, dtype=torch.long))
        assert set(ours.unique().tolist()) <= {-1, 1}
        close(rotation(order), ours.double() / order**0.5)


def check_radio(fields: Fields) -> None:
    leaves = {k: leaf(fields[k]) for k in ("student_summary", "student_spatial")}
    (s, p), t = leaves.values(), tensor(fields["teacher_summary"])
    q = tensor(fields["teacher_spatial"])
    constants = [float(fields[k]) for k in ("alpha", "beta_weight", "smooth_l1_beta")]
    weight = float(fields["lambda_spatial"])
    of_summary, of_patches = angle(s, t), cosine_l1(p, q, *constants)
    close(batch_mean(of_summary), fields["loss_summary"])
    close(batch_mean(of_patches), fields["loss_spatial"])
    loss = batch_mean(radio(of_summary, of_patches, weight))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)
    # Through the method, its adaptors left out.
    student = {"penultimate": s.detach(), "patches": p.detach().mT.unsqueeze(2)}
    teacher = {"penultimate": t, "patches": q.mT.unsqueeze(2)}
    names: dict[str, Any] = dict(zip(("alpha", "beta", "threshold"), constants, strict=True))
    built = method(
        RADIO,
        student,
        teacher,
        spatial="cosine_l1",
        standardise="none",
        spatial_weight=weight,
        **names,
    )
    built.summary_adaptor = built.patch_adaptor = nn.Sequential()
    close(built(student, teacher, batch(len(s))), fields["loss"])


def check_theia(fields: Fields) -> None:
    leaves = {name: leaf(fields[name]) for name in numbered(fields, "student")}
    pairs = [(s, tensor(fields[k.replace("student", "teacher")])) for k, s in leaves.items()]
    terms = [batch_mean(torch.stack([f(s, t) for s, t in pairs]).mean(0)) for f in (cosine, l1)]
    close(terms[0], fields["cos_loss"])
    close(terms[1], fields["l1_loss"])
    squares = [batch_mean((s - t).square().flatten(1).mean(1)) for s, t in pairs]
    close(torch.stack(squares).mean(), fields["mse_loss"])
    loss = batch_mean(torch.stack([theia(s, t) for s, t in pairs]).mean(0))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


CHECKS: dict[str, Check] = {
    "lightly_train.distillationv2": check_dense,
    "proteus": check_proteus,
    "unic.standardise": check_statistics,
    "unic.loss": check_unic,
    "unic.ladder": check_ladder,
    "unic.schedules": check_schedules,
    "radio.phi_s": check_phi_s,
    "radio.hadamard": check_hadamard,
    "radio.am_radio": check_radio,
    "theia.cos_l1": check_theia,
}
