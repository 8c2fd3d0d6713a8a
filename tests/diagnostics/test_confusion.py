"""Which class is taken for which, counted by hand."""

import torch

from understudy.diagnostics.classification import confusion


def test_confusions_are_counted_by_row_and_column() -> None:
    labels = torch.tensor([0, 0, 1, 2, -1])
    predicted = torch.tensor([0, 1, 1, 0, 2])
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    assert confusion({"labels": labels, "logits": logits}) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_nothing_without_labels_or_for_very_many_classes() -> None:
    unlabelled = {"labels": torch.tensor([-1]), "logits": torch.zeros(1, 3)}
    many = {"labels": torch.tensor([0]), "logits": torch.zeros(1, 101)}
    assert (
        confusion(unlabelled) == confusion(many) == confusion({"labels": torch.tensor([0])}) == []
    )
