"""Kinds of `lshfm_*.npz` that are not losses: multi-label metrics and learning rates."""

import torch

from tests.support.papers import as_in_papers
from tests.vectors.archive import Check, Fields, close, tensor
from understudy.config.recipe import Training
from understudy.metrics import classification
from understudy.training import lr_schedule


def check_voc_ap(fields: Fields) -> None:
    close(classification.voc_ap(tensor(fields["scores"]), tensor(fields["targets"])), fields["ap"])


def check_coco_ap(fields: Fields) -> None:
    ap = classification.coco_ap(tensor(fields["scores"]), tensor(fields["targets"]))
    close(ap, fields["ap"])
    close(100 * ap.mean(), fields["mAP"])


def check_coco_prf(fields: Fields) -> None:
    scores, targets = tensor(fields["scores"]), tensor(fields["targets"])
    found = classification.coco_prf(scores, targets, float(fields["threshold"]))
    for name, value in found._asdict().items():
        close(100 * value, fields[name])


def check_batch_pr(fields: Fields) -> None:
    scores, targets = tensor(fields["scores"]), tensor(fields["targets"])
    # The code decides by `score > threshold`, `coco_prf` by `>=`: the next number is the threshold.
    threshold = torch.tensor(float(fields["threshold"]), dtype=scores.dtype)
    above = float(torch.nextafter(threshold, threshold.new_tensor(torch.inf)))
    overall = classification.coco_prf(scores, targets, above, released=False)
    for value, name in ((overall.OP, "precision"), (overall.OR, "recall")):
        close(100 * value, fields[name], rtol=1e-6)


def check_lr_cifar(fields: Fields) -> None:
    epochs = int(fields["epochs"])
    at = tuple(int(e) for e in fields["decay_epochs"])
    training = as_in_papers(
        lr=float(fields["base_lr"]), epochs=epochs, schedule="step", milestones=at, gamma=0.1
    )
    steps = 7
    for within in (0, steps - 1):
        rates = [
            lr_schedule.learning_rate(training, e * steps + within, steps) for e in range(epochs)
        ]
        close(rates, fields["lr_per_epoch"])


def check_lr_imagenet(fields: Fields) -> None:
    epochs, steps = int(fields["epochs"]), int(fields["iters_per_epoch"])
    schedule = {"schedule": "step", "cos": "cosine", "linear": "linear"}[str(fields["mode"])]
    every_30 = tuple(range(30, epochs, 30))
    check_rates(fields, as_in_papers(epochs=epochs, schedule=schedule, milestones=every_30), steps)


def check_lr_multilabel_cos(fields: Fields) -> None:
    training = as_in_papers(epochs=int(fields["epochs"]), schedule="cosine")
    check_rates(fields, training, int(fields["iters_per_epoch"]))


def check_rates(fields: Fields, training: Training, steps: int) -> None:
    rates = [
        float(fields["base_lr"]) / training.lr * lr_schedule.learning_rate(training, step, steps)
        for step in range(len(fields["lr_per_iter"]))
    ]
    close(rates, fields["lr_per_iter"])


def check_lr_det_warmup(fields: Fields) -> None:
    end, start = float(fields["warmup_iters"]), float(fields["warmup_factor"])
    rates = [
        float(fields["base_lr"]) * lr_schedule.warmup(step, end, start)
        for step in range(len(fields["lr_per_iter"]))
    ]
    close(rates, fields["lr_per_iter"])


CHECKS: dict[str, Check] = {
    "voc_ap": check_voc_ap,
    "coco_ap": check_coco_ap,
    "coco_prf": check_coco_prf,
    "batch_pr": check_batch_pr,
    "lr_cifar": check_lr_cifar,
    "lr_imagenet": check_lr_imagenet,
    "lr_multilabel_cos": check_lr_multilabel_cos,
    "lr_det_warmup": check_lr_det_warmup,
}
