"""What a run keeps for its pictures equals what NumPy finds in the features of its networks."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from understudy.batch import Batch
from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.data.views import CLEAN
from understudy.diagnostics.directions import bit_agreement, histogram, spread
from understudy.experiment import build
from understudy.experiment.train import train
from understudy.reporting import report
from understudy.reporting.charts.feature_geometry import feature_geometry
from understudy.reporting.collect import read
from understudy.training.checkpoint import load_checkpoint

TINY = {
    "name": "tiny",
    "data": {"source": "fashion", "size": 16, "images": 200},
    "student": {"name": "resnet8x4", "options": {"widths": [4, 4, 8, 16]}, "size": 16},
    "training": {"epochs": 2, "batch": 32, "lr": 0.05, "precision": "fp32"},
}
METHODS = {
    "lshfm": {"hashes": 24},
    "pefd": {},
    "fitnet": {"feature": "stage2"},
    "letkd": {"words": 12, "subclasses": 2, "dims": 5, "iterations": 3},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four methods at once, whose teacher has other maps but the same dimension."""
    root = tmp_path_factory.mktemp("runs")
    wanted = Recipe.load(TINY, {"student.options": {"widths": [4, 8, 12, 16]}})
    teacher = train(wanted, out=root / "teacher")
    wanted = replace(
        Recipe.from_dict(TINY), teacher=recipe.Network(weights=str(teacher.path)), methods=METHODS
    )
    return train(wanted, out=root / "run")


@pytest.fixture(scope="module")
def kept(run):
    return json.loads((run.path / "diagnostics.json").read_text())


@pytest.fixture(scope="module")
def live(run):
    """Student, teacher and methods as they were at the end, over all test images."""
    experiment = build.experiment(run.recipe)
    distiller, test = experiment.distiller, experiment.test
    distiller.trainable.load_state_dict(load_checkpoint(run.path / "last")["trainable"])
    distiller.eval()
    index = torch.arange(len(test.labels))
    images = test.views(index, torch.full_like(index, CLEAN))
    with torch.no_grad():
        student, teacher = distiller.student.features(images), distiller.teacher(Batch.of(images))
    return distiller.trainable.methods, student, teacher, test.labels, images


def vectors(live):
    return live[1]["penultimate"].double().numpy(), live[2]["penultimate"].double().numpy()


def cosines(x, y):
    return (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    top = np.linalg.norm(y.T @ x) ** 2
    return top / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def same(found, values):
    """Whether counts, ends and mean are those of the values, but for some on the edge of a bin."""
    counts, _ = np.histogram(values, 64, (found["low"], found["high"]))
    assert np.abs(counts - found["counts"]).sum() <= 4
    assert sum(found["counts"]) == len(values)
    expected = (values.min(), values.max(), values.mean())
    assert (found["low"], found["high"], found["mean"]) == pytest.approx(expected, rel=1e-4)


def test_norms_and_cosines(kept, live):
    s, t = vectors(live)
    labels = live[3].numpy()
    same(kept["student"]["norm"], np.linalg.norm(s, axis=1))
    same(kept["teacher"]["norm"], np.linalg.norm(t, axis=1))
    same(kept["student"]["to_teacher"], cosines(s, t))
    means = np.stack([t[labels == label].mean(0) for label in range(10)])
    same(kept["student"]["to_class_mean"], cosines(s, means[labels]))
    same(kept["teacher"]["to_class_mean"], cosines(t, means[labels]))


def test_classes_and_zeros(kept, live):
    for side, x in zip(("student", "teacher"), vectors(live), strict=True):
        means = [x[live[3].numpy() == label].mean(0) for label in range(10)]
        between = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for i, a in enumerate(means)
            for j, b in enumerate(means)
            if i != j
        ]
        assert kept[side]["between_classes"] == pytest.approx(np.mean(between), rel=1e-4)
        assert kept[side]["zeros"] == pytest.approx((x == 0).mean(), abs=1e-4)


def test_bits_are_those_of_the_methods_own_hashes(kept, live):
    s, t = (x[spread(len(x), 2048)] for x in vectors(live))
    method = live[0]["lshfm"]
    weight, bias = (x.double().numpy() for x in (method.hash_weight, method.hash_bias))
    agree = np.mean((s @ weight.T + bias > 0) == (t @ weight.T + bias > 0), axis=1)
    angles = np.degrees(np.arccos(cosines(s, t)))
    bits = kept["bits"]
    assert (bits["method"], bits["hashes"], sum(bits["images"])) == ("lshfm", 24, 2048)
    counts = np.array(bits["images"])
    assert counts @ bits["angle"] / 2048 == pytest.approx(angles.mean(), rel=1e-3)
    assert counts @ bits["agreement"] / 2048 == pytest.approx(agree.mean(), abs=1e-3)
    largest = counts.argmax()
    inside = (angles // 2) == bits["angle"][largest] // 2
    assert counts[largest] == pytest.approx(inside.sum(), abs=2)
    assert bits["agreement"][largest] == pytest.approx(agree[inside].mean(), abs=1e-2)


def test_random_hashes_follow_the_law():
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.randn(500, 32, generator=generator) for _ in range(2))
    t = t + s * torch.linspace(-2, 4, 500)[:, None]
    weight = torch.randn(20_000, 32, generator=generator)
    bits = bit_agreement(s, t, weight, torch.zeros(len(weight)), None)
    assert bits["angle"][-1] - bits["angle"][0] > 90
    expected = 1 - np.array(bits["angle"]) / 180
    assert np.array(bits["agreement"]) == pytest.approx(expected, abs=0.015)


def test_projector_of_a_vector(kept, live):
    s, t = vectors(live)
    method = live[0]["pefd"]
    each = [
        np.maximum(s @ w.T + c, 0)
        for w, c in zip(
            method.weight.detach().double().numpy(),
            method.bias.detach().double().numpy(),
            strict=True,
        )
    ]
    z = sum(each) / len(each)
    (found,) = (entry for entry in kept["projectors"] if entry["method"] == "pefd")
    assert found["feature"] == "penultimate"
    assert found["cka"] == pytest.approx([cka(s, t), cka(z, t)], rel=1e-4)
    assert found["cosine"] == pytest.approx([cosines(s, t).mean(), cosines(z, t).mean()], rel=1e-4)
    assert found["zeros"] == pytest.approx([(s == 0).mean(), (z == 0).mean()], abs=1e-3)


def test_projector_of_a_map(kept, live):
    methods, student, teacher, _, _ = live
    chosen = spread(len(student["stage2"]), 2048)
    s, t = student["stage2"][chosen], teacher["stage2"][chosen]
    with torch.no_grad():
        z = methods["fitnet"].regressor(s)
    s, z, t = (x.mean((2, 3)).double().numpy() for x in (s, z, t))
    (found,) = (entry for entry in kept["projectors"] if entry["method"] == "fitnet")
    assert found["feature"] == "stage2"
    assert found["cka"] == pytest.approx([cka(s, t), cka(z, t)], rel=1e-4)
    assert found["cosine"] == [None, pytest.approx(cosines(z, t).mean(), rel=1e-4)]


def test_templates(kept, live):
    methods, student, teacher, labels, images = live
    method, found = methods["letkd"], kept["templates"]
    chosen = spread(len(images), 64)
    drawn = chosen[spread(64, 6)]
    place = found["places"]["penultimate"]
    best = student["letkd/penultimate"].argmax(1)
    maps, words = teacher["penultimate/map"], method.words
    gaps = maps.permute(0, 2, 3, 1)[..., None, :] - words[method.word_counts > 0]
    heard = (method.word_counts > 0).nonzero().squeeze(1)
    likeliest = heard[gaps.square().sum(-1).argmin(-1)]
    assert place["student"] == best[drawn].tolist()
    assert place["teacher"] == likeliest[drawn].tolist()
    agreement = (best[chosen] == likeliest[chosen]).double().mean()
    assert place["agreement"] == pytest.approx(float(agreement))
    rows = (teacher["last_stage/first"].permute(0, 2, 3, 1)[drawn] - method.axes_mean) @ method.axes
    centers = method.centers.view(10, 2, -1)[labels[drawn]][:, None, None]
    nearest = (rows[..., None, :] - centers).square().sum(-1).argmin(-1)
    own = nearest + 2 * labels[drawn][:, None, None]
    decided = method.decisions[own].argmax(-1)
    assert found["places"]["intermediate"]["teacher"] == decided.tolist()
    for image, png in zip(images[drawn], found["images"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert pixels / 255 == pytest.approx(image.permute(1, 2, 0).numpy(), abs=1 / 255)


def test_report_shows_what_was_kept(run, kept, live):
    s, t = vectors(live)
    found = feature_geometry(read([run.path]))
    norm, to_teacher, _ = found.ridges
    means = [np.linalg.norm(x, axis=1).mean() for x in (t, s)]
    assert [row.mean for row in norm.rows] == pytest.approx(means, rel=1e-4)
    assert to_teacher.rows[0].mean == pytest.approx(run.evaluation["fidelity"]["cosine"])
    shown = {picture.title: picture.rows[0] for picture in found.dots}
    own = shown["Projector: CKA, penultimate"].own
    assert own.value == pytest.approx(run.evaluation["fidelity"]["cka"])
    html = report(run.path).read_text(encoding="utf-8")
    assert html.count('class="templates"') == 2
    assert f"<b>{means[1]:.3g}</b>" in html
    assert (run.path / "diagnostics.json").stat().st_size < 20_000


def test_a_control_is_measured_and_a_teacher_is_not(run, tmp_path):
    control = train(replace(run.recipe, methods={}), out=tmp_path / "control")
    content = json.loads((control.path / "diagnostics.json").read_text())
    assert (content["projectors"], content["templates"]) == ([], None)
    assert content["bits"]["method"] is None
    # Of a run without a teacher nothing is stored but which classes it confuses.
    alone = json.loads((Path(run.recipe.teacher.weights) / "diagnostics.json").read_text())
    assert list(alone) == ["confusion"]
    assert sum(map(sum, alone["confusion"])) > 0


def test_histogram_of_next_to_nothing():
    assert histogram(torch.tensor([float("nan")])) is None
    found = histogram(torch.full((3,), 2.0))
    assert found["low"] < found["high"]
    assert sum(found["counts"]) == 3
