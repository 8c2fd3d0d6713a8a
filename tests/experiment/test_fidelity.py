"""Fidelity to several teachers: the student is measured once, and compared with each."""

import pytest
import torch

from understudy.experiment.fidelity import evaluation, outcomes
from understudy.metrics import linear_probe, neighbours
from understudy.tasks import Outputs
from understudy.tasks.none import Unlabelled


def outputs(seed: int, *, labels: bool = True) -> Outputs:
    random = torch.Generator().manual_seed(seed)
    index = torch.arange(60)
    known = index % 3 if labels else torch.full((60,), -1)
    x, logits = (torch.randn(60, width, generator=random) for width in (4, 5))
    return {"index": index, "labels": known, "penultimate": x, "logits": logits}


def test_the_student_is_measured_once_and_compared_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for module, name in ((linear_probe, "predicted_by_folds"), (neighbours, "knn_scores")):
        function = getattr(module, name)

        def counted(*args, function=function, name=name):  # type: ignore[no-untyped-def]
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(module, name, counted)
    task, student, teachers = Unlabelled(), outputs(0), {"a": outputs(1), "b": outputs(2)}
    both = evaluation(task, student, teachers, finished=True)
    assert sorted(calls) == ["knn_scores", "predicted_by_folds"]
    calls.clear()
    of_images = outcomes(task, student, teachers)
    assert calls == ["knn_scores"]
    assert of_images == task.outcomes(student)
    for name, teacher in teachers.items():
        alone = evaluation(task, student, {"": teacher}, finished=True)
        assert alone.metrics == both.metrics
        assert alone.fidelity is not None
        assert both.fidelity is not None
        assert {f"{name}/{key}": x for key, x in alone.fidelity.items()}.items() <= (
            both.fidelity.items()
        )
    assert both.fidelity is not None
    assert both.fidelity["cka"] == (both.fidelity["a/cka"] + both.fidelity["b/cka"]) / 2
    assert evaluation(task, student, {}).fidelity is None


def test_without_labels_the_agreement_of_teachers_is_averaged() -> None:
    student = outputs(0, labels=False)
    teachers = {"a": outputs(1, labels=False), "b": outputs(2, labels=False)}
    kept = [outcomes(Unlabelled(), student, {name: x}) for name, x in teachers.items()]
    both = outcomes(Unlabelled(), student, teachers)
    assert both is not None
    assert both.metric == "knn_agreement"
    parts = [part.resampled[0] for part in kept if part is not None]
    assert both.resampled[0] == pytest.approx(sum(parts) / 2)
