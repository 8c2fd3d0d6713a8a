"""Cases of losses on similarities: the queue, affinities, Gram matrices, prototypes, neighbours."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from tests.vectors.archive import Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, load, method
from understudy.data.mixup import Blend
from understudy.functional import batch_mean, unit
from understudy.methods.dino import DINO, dino, sinkhorn
from understudy.methods.gram import Gram, Negatives, gram
from understudy.methods.queue_kl import QueueKL, affinity_kl, queue_kl, queue_size
from understudy.metrics.neighbours import knn_accuracy, knn_scores, nearest, purity
from understudy.training.lr_schedule import cosine, warmup


def doubles(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def check_queue(fields: Fields) -> None:
    if "student_unit" in fields:
        check_criterion(fields)
        return
    steps, (size, _) = len(fields["loss"]), fields["queue_init"].shape
    built = None
    for step in range(steps):
        s, t = leaf(fields["student_feat"][step]), tensor(fields["teacher_feat"][step])
        features = {"penultimate": s}, {"penultimate": t}
        if built is None:
            hyper = {"queue": size, "temperature": float(fields["temperature"])}
            built = method(QueueKL, *features, affinity_weight=0, **hyper)
            load(built.head[0], weight=fields["W"], bias=fields["bias"])
            load(built, queue=fields["queue_init"])
        expected = of_step(fields, step)
        built.zero_grad()
        loss = built(*features, batch(len(s)))
        loss.backward()
        close(loss, expected["loss"])
        close(built.queue, expected["queue_after"])
        layer = built.head[0]
        leaves = {"student_feat": s, "W": layer.weight, "bias": layer.bias}
        gradients_close(leaves, expected)


def of_step(fields: Fields, step: int) -> dict[str, Any]:
    """What a case records of one step, where it records something for each."""
    steps = len(fields["loss"])
    names = [k for k, x in fields.items() if x.ndim and len(x) == steps]
    return {name: fields[name][step] for name in names}


def check_criterion(fields: Fields) -> None:
    s, t = leaf(fields["student_unit"]), tensor(fields["teacher_unit"])
    queue = tensor(fields["queue"])
    loss = batch_mean(queue_kl(s, t, queue, float(fields["temperature"])))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student_unit": s}, fields)


def check_affinity(fields: Fields) -> None:
    steps, (size, _) = len(fields["loss"]), fields["queue_init"].shape
    hyper = {
        "temperature": float(fields["temperature_global"]),
        "affinity_temperature": float(fields["temperature_local"]),
        "affinity_weight": float(fields["loss_local_weight"]),
    }
    built = None
    for step in range(steps):
        leaves = {k: leaf(fields[k][step]) for k in ("student_global", "student_map")}
        student = {"penultimate": leaves["student_global"], "stage1": leaves["student_map"]}
        teacher = {
            "cls": tensor(fields["teacher_cls"][step]),
            "patches": tensor(fields["teacher_map"][step]),
        }
        if built is None:
            built = method(QueueKL, student, teacher, queue=size, **hyper)
            load(built.head[0], weight=fields["W_global"], bias=fields["b_global"])
            load(built.patch_head[0], weight=fields["W_local"], bias=fields["b_local"])
            load(built, queue=fields["queue_init"])
        expected = of_step(fields, step)
        built.zero_grad()
        rows = len(leaves["student_global"])
        loss = built(student, teacher, batch(rows))
        loss.backward()
        close(loss, expected["loss"])
        close(built.queue, expected["queue_after"])
        check_terms(built, student, teacher, expected)
        heads = {"global": built.head[0], "local": built.patch_head[0]}
        for part, layer in heads.items():
            leaves |= {f"W_{part}": layer.weight, f"b_{part}": layer.bias}
        gradients_close(leaves, expected)


def check_terms(built: QueueKL, student: Any, teacher: Any, expected: Any) -> None:
    """The two terms, by the functions; in evaluation, that the batch is in the queue already."""
    s, t = unit(built.head(student["penultimate"])), unit(teacher["cls"])
    close(batch_mean(queue_kl(s, t, built.queue, built.temperature)), expected["global_loss"])
    local = batch_mean(built._affinity(student, teacher, built.patches))
    close(local, expected["local_loss"])
    if teacher["patches"][0, 0].numel() == 1:
        assert not local.any()
    e = unit(teacher["patches"].flatten(2).mT)
    assert not affinity_kl(e, e, built.affinity_temperature).any()


def check_mixup(fields: Fields) -> None:
    x, index = tensor(fields["x"]), tensor(fields["index"])
    blend = Blend(float(fields["lam"]))
    # Each image beside its partner is a batch of two, mixed with itself in reverse.
    pairs = [blend(torch.stack([image, x[i]]))[0] for image, i in zip(x, index, strict=True)]
    close(torch.stack(pairs), fields["mixed"])


def check_scaling(fields: Fields) -> None:
    sizes = zip(fields["dataset_size"], fields["queue_size"], strict=True)
    assert all(queue_size(int(images)) == size for images, size in sizes)
    total, epochs = int(fields["total_steps"]), int(fields["epochs"])
    rise = int(fields["warmup_steps"])
    # Ten epochs, or a tenth of the training if that is less, in whole steps.
    assert abs(rise - total * min(10 / epochs, 0.1)) < 1
    scale = sqrt(fields["global_batch"] / fields["reference_batch"])
    close(doubles(fields["base_lr"] * scale), fields["lr_scaled"])
    fall = max(total - rise - 1, 1)
    factors = [
        warmup(step + 1, rise)
        if step < rise
        else 1e-3 + (1 - 1e-3) * cosine(min(step - rise, fall), fall)
        for step in range(len(fields["lr_per_step"]))
    ]
    close(float(fields["lr_scaled"]) * doubles(factors), fields["lr_per_step"])


def negatives(fields: Fields) -> Negatives:
    if fields["remove_neg"]:
        return "both"
    return "teacher_published" if fields["remove_only_teacher_neg"] else "kept"


def check_gram(fields: Fields) -> None:
    s, t = leaf(fields["student"]), tensor(fields["teacher"])
    pairs = "image" if fields["img_level"] else "batch"
    loss = batch_mean(gram(s, t, negatives(fields), pairs))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student": s}, fields)
    # The same tokens as a map of one row, through the method.
    maps = {"patches": s.detach().mT.unsqueeze(2)}, {"patches": t.mT.unsqueeze(2)}
    built = method(Gram, *maps, negatives=negatives(fields), pairs=pairs)
    close(built(*maps, batch(len(s))), fields["loss"])


def check_dino(fields: Fields) -> None:
    s, scores = leaf(fields["student_logits"]), tensor(fields["teacher_logits"])
    temperature, iterations = float(fields["teacher_temp"]), int(fields["n_iterations"])
    p = sinkhorn(scores.flatten(0, 1), temperature, iterations).view_as(scores)
    close(p, fields["teacher_probs"])
    other_views = bool(fields["ignore_diagonal"])
    rows = dino(s, p, float(fields["student_temp"]), other_views=other_views)
    loss = batch_mean(rows)
    loss.backward()
    close(loss, fields["loss"])
    gradients_close({"student_logits": s}, fields)
    check_one_view(s[0].detach(), scores[0], fields)


def check_one_view(s: Tensor, t: Tensor, fields: Fields) -> None:
    """The method, which compares a single view, is the same function."""
    names = {
        "temperature": "student_temp",
        "teacher_temperature": "teacher_temp",
    }
    hyper = {ours: float(fields[theirs]) for ours, theirs in names.items()}
    features = {"logits": s}, {"logits": t}
    built = method(DINO, *features, iterations=int(fields["n_iterations"]), **hyper)
    p = sinkhorn(t, hyper["teacher_temperature"], int(fields["n_iterations"]))
    expected = dino(s.unsqueeze(0), p.unsqueeze(0), hyper["temperature"])
    assert torch.equal(built(*features, batch(len(s))), batch_mean(expected))


def check_knn(fields: Fields) -> None:
    labels, classes = tensor(fields["train_labels"]), int(fields["num_classes"])
    ks = [int(k) for k in fields["ks"]]
    stored, queries = tensor(fields["train_feat"]), tensor(fields["test_feat"])
    found, truth = nearest(queries, stored, max(ks)), tensor(fields["test_labels"])
    for number, k in enumerate(ks):
        scores = knn_scores(found, labels, classes, k=k, temperature=float(fields["T"]))
        close(scores, fields["scores"][number])
        # The published code takes no more than k classes for its top 5.
        for top, name in ((1, "top1"), (min(5, k), "top5")):
            close(doubles(100 * knn_accuracy(scores, truth, top)), fields[name][number])


def check_purity(fields: Fields) -> None:
    features, labels = tensor(fields["feat"]), tensor(fields["labels"])
    ks = [int(k) for k in fields["ks"]]
    found = nearest(features, features, max(ks), leave_out_self=True)
    close(doubles([purity(found, labels, k) for k in ks]), fields["purity"])


CHECKS: dict[str, Check] = {
    "lightly_train.distillationv1": check_queue,
    "lightly_train.distillationv3": check_affinity,
    "lightly_train.mixup": check_mixup,
    "lightly_train.scaling": check_scaling,
    "dinov3.gram": check_gram,
    "dinov3.dino_sinkhorn": check_dino,
    "dino.knn": check_knn,
    "knn_purity": check_purity,
}
