"""Files `lshfm_*.npz`: each case names its kind in the field `kind`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors.archive import Case, Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import Outputs, batch, linear, load, method
from tests.vectors.measures import CHECKS as MEASURES
from understudy.batch import UNLABELLED
from understudy.functional import batch_mean
from understudy.methods.kd import KD
from understudy.methods.lshfm import LSHFM, l1, l2, lsh, medians
from understudy.models.detection._locations import extract_patches, published_mask
from understudy.models.network import Network

ANCHORS = 9
"""At a location of the recorded detector."""


def cases(archive: Fields) -> Iterator[Case]:
    for name in map(str, archive["cases"]):
        fields = {
            key.removeprefix(f"{name}/"): array
            for key, array in archive.items()
            if key.startswith(f"{name}/")
        }
        yield Case(name, str(fields["kind"]), fields)


def mimic(fields: Fields, s: Tensor, **hyper: Any) -> Tensor:
    """The loss of the method on recorded features, hashes and teacher logits."""
    student, teacher = {"penultimate": s}, {"penultimate": tensor(fields["f_t"])}
    hyper = {"selective": False} | hyper
    if hyper["selective"]:
        teacher["logits"] = tensor(fields["teacher_logits"])
    hashes = len(fields["hash_weight"]) if "lsh" in hyper["terms"] else 0
    built = method(LSHFM, student, teacher, hashes=hashes, hash_std=1.0, **hyper)
    if hashes:
        load(built, hash_weight=fields["hash_weight"], hash_bias=fields["hash_bias"])
    return built(student, teacher, batch(len(s), fields.get("labels")))


def terms(fields: Fields) -> str:
    return "lshl2" if fields["with_l2"] else "lsh"


def check_lsh(fields: Fields) -> None:
    s, t = leaf(fields["f_s"]), tensor(fields["f_t"])
    weight, bias = tensor(fields["hash_weight"]), tensor(fields["hash_bias"])
    discrepancy = str(fields["loss_type"]).lower()
    loss = mimic(fields, s, terms=terms(fields), discrepancy=discrepancy)
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"f_s": s}, fields)
    pure = batch_mean(lsh(s, t, weight, bias, discrepancy))
    close(pure + batch_mean(l2(s, t)) if fields["with_l2"] else pure, fields["loss"])
    assert torch.equal(F.linear(t, weight, bias) > 0, tensor(fields["teacher_bits"]))


def check_lsh_single(fields: Fields) -> None:
    """The same case in float32, against the authors' code in float32 and in float64."""
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in fields.items()}
    discrepancy = str(fields["loss_type"]).lower()
    loss = mimic(single, leaf(single["f_s"]), terms=terms(fields), discrepancy=discrepancy)
    bits = F.linear(*(tensor(single[k]) for k in ("f_t", "hash_weight", "hash_bias"))) > 0
    if torch.equal(bits, tensor(fields["teacher_bits"])):
        close(loss, fields["loss_f32"], rtol=2e-5, atol=1e-6)


def check_lsh_both(fields: Fields) -> None:
    check_lsh(fields)
    check_lsh_single(fields)


def check_lsh_s(fields: Fields) -> None:
    s = leaf(fields["f_s"])
    loss = mimic(fields, s, terms=terms(fields), selective=True)
    loss.backward()
    if fields["n_correct"]:
        close(loss, fields["loss"])
        gradients_close({"f_s": s}, fields)
    else:
        # The authors' code divides 0 by 0 here.
        assert np.isnan(fields["loss"])
        assert loss == 0
        assert s.grad is not None
        assert not s.grad.any()
    check_unlabelled_is_kept(fields)


def check_unlabelled_is_kept(fields: Fields) -> None:
    s = tensor(fields["f_s"])
    unlabelled = dict(fields) | {"labels": np.full_like(fields["labels"], UNLABELLED)}
    every = mimic(fields, s, terms=terms(fields))
    close(mimic(unlabelled, s, terms=terms(fields), selective=True), every)


def check_lsh_det(fields: Fields) -> None:
    """The weight is inside the published loss; patches of a map are rows."""
    s = leaf(fields["f_s"])
    rows = dict(fields) | {"f_t": tensor(fields["f_t"]).flatten(1)}
    hyper = {"terms": terms(fields), "discrepancy": str(fields["loss_type"]).lower()}
    loss = float(fields["beta"]) * mimic(rows, s.flatten(1), **hyper)
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"f_s": s}, fields)


def check_retina(fields: Fields) -> None:
    """Published is the mean over images of the mean over the rows of each, added up in float32."""
    ours, theirs = (levels(fields, side) for side in "st")
    matched = tensor(fields["matched_idx"]).unflatten(1, (-1, ANCHORS))
    everywhere = torch.ones(matched.shape[:2], dtype=torch.bool)
    s, t = (
        extract_patches(maps, everywhere).view(*everywhere.shape, -1) for maps in (ours, theirs)
    )
    s = leaf(s)
    close(s, fields["cls_feat_s"])
    close(t, fields["cls_feat_t"])
    kept = published_mask(matched)
    hyper = {"terms": str(fields["distill"])}
    losses = [
        mimic(dict(fields) | {"f_t": there[rows]}, here[rows], **hyper)
        for here, there, rows in zip(s, t, kept, strict=True)
        if rows.any()
    ]
    total = torch.stack([0 * s.sum(), *losses]).sum()
    loss = float(fields["beta"]) * total / (len(losses) + 1e-7)
    loss.backward()
    close(loss, fields["loss"], rtol=1e-6)
    assert s.grad is not None
    close(s.grad, fields["grad_cls_feat_s"], rtol=1e-6, atol=1e-9)
    assert torch.equal(extract_patches(ours, kept), s[kept])


def levels(fields: Fields, side: str) -> list[Tensor]:
    """Last maps of the classification tower, level by level."""
    return [tensor(fields[f"tower_{side}_level{i}"]) for i in range(int(fields["n_levels"]))]


def check_l2(fields: Fields) -> None:
    s, t = leaf(fields["f_s"]), tensor(fields["f_t"])
    normalise = bool(fields["l2_norm"])
    loss = mimic(fields, s, terms="l2", normalise=normalise)
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"f_s": s}, fields)
    if not normalise:
        close(batch_mean(l2(s, t)), fields["loss"])


def check_l1(fields: Fields) -> None:
    s = leaf(fields["f_s"])
    loss = mimic(fields, s, terms="l1")
    loss.backward()
    close(loss, fields["loss"])
    close(batch_mean(l1(s, tensor(fields["f_t"]))), fields["loss"])
    gradients_close({"f_s": s}, fields)


def distil(s: Tensor, t: Any, temperature: Any) -> Tensor:
    features = {"logits": s}, {"logits": tensor(t)}
    return method(KD, *features, temperature=float(temperature))(*features, batch(len(s)))


def check_kd(fields: Fields) -> None:
    s = leaf(fields["y_s"])
    loss = distil(s, fields["y_t"], fields["T"])
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"y_s": s}, fields)


def check_bias(fields: Fields) -> None:
    """Offsets over the images seen are exact; the official ones follow with its zero rows."""
    weight, published = tensor(fields["hash_weight"]), tensor(fields["bias"])
    features, n = tensor(fields["train_feats"]), int(fields["n_dataset"])
    seen = features[tensor(fields["seen_index"])]
    mode = str(fields["mode"])
    exact = prepared(seen, weight, "median_published" if mode == "median" else mode)
    official = torch.zeros(n, features.shape[1])
    official[: len(seen)] = seen
    close(-threshold(official, weight, mode), published, rtol=0, atol=2e-5)
    close(exact, -threshold(seen, weight, mode), rtol=0, atol=2e-5)
    if len(seen) == n:
        close(exact, published, rtol=0, atol=2e-5)
    if mode == "median":
        between = prepared(seen, weight, "median")
        check_same_bits(seen @ weight.T, exact, between)


def prepared(seen: Tensor, weight: Tensor, offset: str) -> Tensor:
    """Offsets that the method measures, twice over: a second call must not change them."""
    features = {"penultimate": seen}
    hyper = {"hashes": len(weight), "hash_std": 1.0, "offset": offset, "selective": False}
    built = method(LSHFM, features, features, **hyper)
    load(built, hash_weight=weight)
    built.prepare(Outputs(features))
    first = built.hash_bias.clone()
    built.prepare(Outputs(features, batch=7))
    close(built.hash_bias, first, rtol=0, atol=2e-5)
    close(built.hash_weight, weight)
    return first


def threshold(rows: Tensor, weight: Tensor, mode: str) -> Tensor:
    """The rule of the page, over a full table of hash values."""
    values = rows @ weight.T
    if mode == "mean":
        return values.mean(0)
    lower = values.sort(0).values[(len(values) - 1) // 2]
    close(medians([rows], weight, published=True), lower, rtol=0, atol=2e-5)
    return lower


def check_same_bits(values: Tensor, published: Tensor, between: Tensor) -> None:
    """The plane in the gap cuts all images but the median one as the published plane does."""
    near = (values + published).abs() < 1e-4
    assert torch.equal((values + published > 0)[~near], (values + between > 0)[~near])
    assert not near.all()


def check_total(fields: Fields) -> None:
    s = leaf(fields["f_s"])
    head = linear(fields["fc_weight"], fields["fc_bias"])
    logits, labels = head(s), tensor(fields["labels"])
    task = F.cross_entropy(logits, labels)
    kl = distil(logits, fields["teacher_logits"], fields["T"])
    features = mimic(fields, s, terms=terms(fields), selective=bool(fields["selective"]))
    gamma, alpha, beta = (float(fields[k]) for k in ("gamma", "alpha", "beta"))
    loss = gamma * task + alpha * kl + beta * features
    loss.backward()
    for value, name in zip(
        (task, kl, features, loss), ("loss_cls", "loss_kl", "loss_feat", "loss"), strict=True
    ):
        close(value, fields[name])
    gradients_close({"f_s": s, "fc_weight": head.weight, "fc_bias": head.bias}, fields)


def check_total_multilabel(fields: Fields) -> None:
    s = leaf(fields["f_s"])
    head = linear(fields["fc_weight"], fields["fc_bias"])
    task = F.binary_cross_entropy_with_logits(head(s), tensor(fields["targets"]))
    features = mimic(fields, s, terms=str(fields["distill"]))
    loss = float(fields["gamma"]) * task + float(fields["beta"]) * features
    loss.backward()
    for value, name in ((task, "loss_cls"), (features, "loss_feat"), (loss, "loss")):
        close(value, fields[name])
    gradients_close({"f_s": s, "fc_weight": head.weight}, fields)


class Flat(nn.Module):
    """Recorded pooled features, carried through a network as images, and its classifier."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.pool = nn.Flatten()
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(images)[:, : self.width])


def check_embed(fields: Fields) -> None:
    """The embedding layer of a real network: trained before the classifier, folded on export."""
    g, width = leaf(fields["g_s"]), fields["g_s"].shape[1]
    classes, dim = fields["fc_weight"].shape
    side = int(np.ceil(np.sqrt(width / 3)))
    images = F.pad(g, (0, 3 * side**2 - width)).view(-1, 3, side, side)
    network = Network(Flat(width, classes).double())
    network.embed(dim)
    head = network.module.fc
    load(head.embedding, weight=fields["embed_weight"], bias=fields["embed_bias"])
    load(head.classifier, weight=fields["fc_weight"], bias=fields["fc_bias"])
    features = network.features(images)
    loss = mimic(fields, features["penultimate"], terms=terms(fields))
    loss.backward()
    close(features["penultimate"], fields["f_s"])
    close(features["logits"], fields["logits"])
    close(loss, fields["loss"])
    layer = head.embedding
    gradients_close({"g_s": g, "embed_weight": layer.weight, "embed_bias": layer.bias}, fields)
    close(network.plain()(images), fields["logits"], rtol=1e-12, atol=1e-12)


CHECKS: dict[str, Check] = {
    "lsh": check_lsh_both,
    "lsh_s": check_lsh_s,
    "lsh_det": check_lsh_det,
    "retina": check_retina,
    "l2": check_l2,
    "l1": check_l1,
    "kd": check_kd,
    "bias": check_bias,
    "total": check_total,
    "total_multilabel": check_total_multilabel,
    "embed": check_embed,
} | MEASURES
