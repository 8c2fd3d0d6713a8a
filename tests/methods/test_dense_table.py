"""Every method between every foundation model of today and small students, whatever their grids.

Features of a pair are computed once; each method gets them as leaves, so that one forward and one
backward pass of its loss shows whether its gradient reaches the student's features. The last test
prints the counts (`pytest -rA`).
"""

import re
from collections import Counter
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import timm
import torch

from tests.vectors.build import Outputs
from understudy import methods
from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features
from understudy.methods import Method
from understudy.models import Input, Network

WIDTH, CLASSES, ROWS = 24, 5, 4
_VIT = {"embed_dim": WIDTH, "depth": 4, "num_heads": 3, "num_classes": 0}
TEACHERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "DINOv2": ("vit_small_patch14_dinov2", {"img_size": 70}, 70),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 70}, 70),
    "DINOv3": ("vit_small_patch16_dinov3", {"img_size": 80}, 80),
    "SigLIP": ("vit_base_patch16_siglip_224", {"img_size": 80}, 80),
    "C-RADIO": ("vit_base_patch16_radio_v3", {"img_size": 80}, 80),
    "NaFlexViT": ("naflexvit_base_patch16_gap", {}, 80),
    "oblong patches": ("vit_small_patch16_dinov3", {"img_size": 80, "patch_size": (20, 10)}, 80),
}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-18": ("resnet18", {"channels": (8, 12, 16, 24)}),
    "MobileNetV4": ("mobilenetv4_conv_small_035", {}),
    "ConvNeXt-atto": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}),
    "ViT-tiny": ("vit_tiny_patch16_224", {"img_size": 96, "depth": 4, "embed_dim": 24}),
}
SIDE = 96
"""Side of the students' images: last maps of 3 × 3, between teachers' grids of 5 × 5 or 4 × 8."""

OPTIONS: dict[str, dict[str, Any]] = {
    "ft": {"paraphraser_epochs": 1},
    "lshfm": {"hashes": 64, "selective": False},
    "letkd": {"words": 16, "subclasses": 2, "dims": 3, "iterations": 2},
    "queue_kl": {"queue": 3},
    "unic": {"hidden": 16, "last_hidden": 16},
    "theia": {"hidden": 16},
    "semckd": {"neighbours": 8},
    "ab": {"stages": ("stage2", "stage4:patches")},
    "crd": {"negatives": 8},
}
"""Small values; `ab` compares what is named, as transformers have no ReLU to be before."""

REFUSED = {
    "logits": "has no feature 'logits'|has no logits",
    "detectors": "scores no map",
    "heads": "dist_logits",
    "equal channels": "fsp needs equal channels",
    "last map": "simkd|has no map|no feature 'penultimate/map'",
}
"""Reasons that have nothing to do with the size or form of a grid."""

MAY_REFUSE = {"deit", "dino", "dist", "dkd", "kd", "srrl", "simkd", "frs", "fsp"}
"""Methods that compare logits, reuse a classifier, compare detectors, or need equal widths."""

RESULTS: Counter[tuple[str, str]] = Counter()


@cache
def teacher(name: str) -> Features:
    return _features(_teacher(name))


@cache
def _teacher(name: str) -> Network:
    torch.manual_seed(1)
    model, options, side = TEACHERS[name]
    module = timm.create_model(model, **_VIT, **options)
    return Network(module, input=Input(size=side)).requires_grad_(False).eval()


@cache
def _student(name: str) -> Network:
    torch.manual_seed(0)
    model, options = STUDENTS[name]
    module = timm.create_model(model, num_classes=CLASSES, **options)
    return Network(module, input=Input(size=SIDE)).train()


@cache
def extended(name: str, method: str) -> Network:
    """The student, with the layers that a method puts into it: the same for all teachers."""
    cls = methods.find(method)
    if cls.extend.__func__ is Method.extend.__func__:  # type: ignore[attr-defined]
        return _student(name)
    student = deepcopy(_student(name))
    cls.extend(student, _teacher("DINOv2").shapes, **OPTIONS.get(method, {}))
    return student


@cache
def _features_of(student: Network) -> Features:
    return _features(student)


def _features(network: Network) -> Features:
    images = torch.rand(ROWS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network.features(images)


def _second(method: Method, network: Network, batch: Batch) -> Features:
    """Features of a second pass, if the method asks for one; its images do not matter here."""
    changed = method.second_images(batch)
    if changed is None:
        return {}
    return {f"second/{n}": x for n, x in (_features_of(network) | changed.features).items()}


def leaves(features: Features, dtype: torch.dtype = torch.float32) -> Features:
    floats = {name: x for name, x in features.items() if x.is_floating_point()}
    return features | {name: x.to(dtype).requires_grad_() for name, x in floats.items()}


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("name", TEACHERS)
def test_trains(name: str, student: str, method: str) -> None:
    torch.manual_seed(0)
    target, theirs = teacher(name), _teacher(name).shapes
    try:
        network = extended(student, method)
        built = methods.find(method)(network.shapes, theirs, **OPTIONS.get(method, {}))
    except ShapeError as error:
        reason = [why for why, words in REFUSED.items() if re.search(words, str(error))]
        if not reason or method not in MAY_REFUSE:
            raise
        RESULTS[method, f"refused: {reason[0]}"] += 1
        return
    labels = torch.arange(ROWS) % CLASSES
    built.prepare(Outputs(target, labels))
    batch = Batch.of(torch.zeros(ROWS, 3, 1, 1), labels)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        features = leaves(_features_of(network) | _second(built, network, batch), dtype)
        loss = built(features, {k: x.to(dtype) for k, x in target.items()}, batch)
        assert loss.isfinite(), dtype
        if dtype is torch.float32:
            loss.backward()
            gradients = [x.grad for x in features.values() if x.grad is not None]
            assert any(bool(gradient.any()) for gradient in gradients)
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    RESULTS[method, "trains"] += 1


def test_counts() -> None:
    print(f"\n{len(TEACHERS)} teachers × {len(STUDENTS)} students × {len(methods.names())} methods")
    for (method, result), count in sorted(RESULTS.items()):
        print(f"  {method:12} {count:3} {result}")
