"""Files `nd_*.npz`: numbered cases, one count per kind, and one embedding."""

from collections.abc import Iterator

import numpy as np
import torch

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
from tests.vectors.build import Outputs, batch, load, method
from understudy.functional import batch_mean, norm
from understudy.methods.nd import ND, mixed_means, nd


def cases(archive: Fields) -> Iterator[Case]:
    for key in archive:
        if key.startswith("n_"):
            kind = {"n_cases": "case"}.get(key, key.removeprefix("n_"))
            for name, fields in numbered(archive, kind, int(archive[key])):
                yield Case(name, kind, fields)
    prefix = "embtrans_"
    embedding = {k.removeprefix(prefix): v for k, v in archive.items() if k.startswith(prefix)}
    if embedding:
        yield Case("embtrans", "embtrans", embedding)


def check_case(fields: Fields) -> None:
    s, t, centers = leaf(fields["student"]), tensor(fields["teacher"]), tensor(fields["centers"])
    labels, weight = tensor(fields["labels"]), float(fields["weight"])
    student = {"penultimate": s}
    teacher = {"penultimate": t, "logits": torch.zeros(len(t), len(centers), dtype=t.dtype)}
    built = method(ND, student, teacher)
    load(built, class_means=centers)
    loss = weight * built(student, teacher, batch(len(s), labels))
    loss.backward()
    assert torch.equal(norm(t) <= norm(s), tensor(fields["branch"] == 1))
    assert s.grad is not None
    if fields["finite"]:
        close(loss, fields["loss"])
        gradients_close({"student": s}, fields)
        close(weight * batch_mean(nd(s, t, centers[labels])), fields["loss"])
    else:
        official = tensor(fields["grad_student"])
        known = official.isfinite()
        assert loss.isfinite()
        assert s.grad.isfinite().all()
        assert not s.grad[~known].any()
        close(s.grad[known], official[known])


def check_mix(fields: Fields) -> None:
    s, t = leaf(fields["student"]), tensor(fields["teacher"])
    center = tensor(fields["centers"])[tensor(fields["labels"])]
    share = torch.full((len(s),), float(fields["lam"]), dtype=s.dtype)
    center = mixed_means(
        center,
        center.flip(0),
        share,
        float(fields["smoothing"]),
        int(fields["num_classes"]),
    )
    close(center, fields["mixed_centers"])
    loss = float(fields["weight"]) * batch_mean(nd(s, t, center))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student": s}, fields)


def check_center(fields: Fields) -> None:
    """Class means as measured, against the authors', which are rounded twice to four decimals."""
    features, labels = tensor(fields["features"]), tensor(fields["labels"])
    classes = len(fields["expected"])
    teacher = {"penultimate": features, "logits": torch.zeros(len(features), classes)}
    built = method(ND, teacher, teacher)
    built.prepare(Outputs(teacher, labels))
    close(built.class_means.double(), fields["expected"], rtol=0, atol=1e-4)
    rounded = np.array([[round(float(v), 4) for v in row] for row in fields["features"]])
    for k, expected in enumerate(fields["expected"]):
        mean = rounded[fields["labels"] == k].mean(0)
        # A mean that lies in the middle of two decimals may be rounded either way.
        close(mean, expected, rtol=0, atol=0.5e-4 + 1e-9)


def check_embtrans(fields: Fields) -> None:
    """The projector between different dimensions."""
    x = tensor(fields["x"])
    outputs, inputs = fields["lin_weight"].shape
    student, teacher = torch.zeros(1, inputs), torch.zeros(1, outputs)
    logits = torch.zeros(1, 2)
    projector = method(
        ND, {"penultimate": student, "logits": logits}, {"penultimate": teacher}
    ).embedding.double()
    close(projector[0].weight, fields["init_bn_weight"])
    close(projector[2].bias, fields["init_linear_bias"])
    load(
        projector[0],
        weight=fields["bn_weight"],
        bias=fields["bn_bias"],
        running_mean=fields["bn_mean"],
        running_var=fields["bn_var"],
    )
    load(projector[2], weight=fields["lin_weight"], bias=fields["lin_bias"])
    close(projector.eval()(x), fields["y_eval"])
    projector[1].p = 0.0
    close(projector.train()(x), fields["y_train_nodrop"])


CHECKS: dict[str, Check] = {
    "case": check_case,
    "mix": check_mix,
    "center": check_center,
    "embtrans": check_embtrans,
}
