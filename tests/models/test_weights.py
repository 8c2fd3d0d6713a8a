"""Weights from disk: files that load, files that are refused, and the messages."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from understudy import models
from understudy.errors import NetworkError
from understudy.models.weights import digest, load


def small(classes: int = 5) -> nn.Module:
    options = {"widths": [4, 4, 8, 8]}
    return models.find("resnet8", num_classes=classes, options=options).module


def prefixed(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


FORMS: dict[str, Callable[[nn.Module], object]] = {
    "plain": lambda m: m.state_dict(),
    "checkpoint": lambda m: {"state_dict": m.state_dict(), "epoch": 3},
    "model": lambda m: {"model": m.state_dict(), "acc": torch.tensor(0.5)},
    "model_state_dict": lambda m: {"model_state_dict": m.state_dict()},
    "data parallel": lambda m: {"state_dict": prefixed(m, "module.")},
    "compiled": lambda m: prefixed(m, "_orig_mod."),
    "compiled in parallel": lambda m: prefixed(m, "module._orig_mod."),
}


@pytest.mark.parametrize("form", FORMS)
def test_torch_files(form: str, tmp_path: Path) -> None:
    source, target = small(), small()
    torch.save(FORMS[form](source), tmp_path / "weights.pth")
    assert digest(source) != digest(target)
    load(target, tmp_path / "weights.pth")
    assert digest(source) == digest(target)


def test_safetensors_and_run_directories(tmp_path: Path) -> None:
    source = small()
    save_file(source.state_dict(), tmp_path / "student.safetensors")
    for path in (tmp_path, tmp_path / "student.safetensors"):
        target = small()
        load(target, path)
        assert digest(source) == digest(target)


def test_files_that_do_not_count_batches(tmp_path: Path) -> None:
    source, target = small(), small()
    state = source.state_dict()
    counts = [key for key in state if key.endswith("num_batches_tracked")]
    save_file({k: v for k, v in state.items() if k not in counts}, tmp_path / "old.safetensors")
    load(target, tmp_path / "old.safetensors")
    assert counts
    assert digest(source) == digest(target)


def test_digest_sees_every_value_and_name() -> None:
    module = nn.BatchNorm1d(2)
    first = digest(module)
    module.num_batches_tracked += 1
    second = digest(module)
    assert len({first, second, digest(nn.Sequential(module)), digest(module.double())}) == 4


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "whole.pth")
    with pytest.raises(NetworkError, match="convert it once"):
        load(small(), tmp_path / "whole.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds no state dict but list"),
        ({"epoch": 3}, "holds a dictionary of epoch"),
        ({}, "holds no state dict"),
    ],
)
def test_other_content_is_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match=words):
        load(small(), tmp_path / "weights.pth")


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_damaged_and_missing_files_are_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no weights at"):
        load(small(), tmp_path / file)
    (tmp_path / file).write_bytes(b"not weights at all")
    with pytest.raises(NetworkError, match=file):
        load(small(), tmp_path / file)


def test_mismatches_name_the_likeliest_cause(tmp_path: Path) -> None:
    save_file(small(100).state_dict(), tmp_path / "hundred.safetensors")
    with pytest.raises(NetworkError, match="has 100 classes, 5 were asked for"):
        load(small(), tmp_path / "hundred.safetensors", classifier="fc")
    other = models.find("vgg8", num_classes=5).module
    save_file(other.state_dict(), tmp_path / "vgg.safetensors")
    with pytest.raises(NetworkError, match=r"missing \(.*unexpected \(.*another architecture"):
        load(small(), tmp_path / "vgg.safetensors", classifier="fc")
    wider = models.find("resnet8", num_classes=5).module
    save_file(wider.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(NetworkError, match=r"of another size \(stem.conv.weight \(16, 3, 3, 3\)"):
        load(small(), tmp_path / "wide.safetensors", classifier="fc")


def test_new_classifier_only_when_asked_for(tmp_path: Path) -> None:
    options = {"widths": [4, 4, 8, 8]}
    source = small(100)
    save_file(source.state_dict(), tmp_path / "hundred.safetensors")
    ask = {"num_classes": 5, "options": options, "weights": str(tmp_path / "hundred.safetensors")}
    with pytest.raises(NetworkError, match="100 classes, 5 were asked for"):
        models.find("resnet8", **ask)
    student = models.find("resnet8", reset_classifier=True, **ask)
    assert student.num_classes == 5
    assert torch.equal(student.module.stem.conv.weight, source.stem.conv.weight)
    teacher = models.find("resnet8", **{**ask, "num_classes": 100})
    assert digest(teacher.module) == digest(source)
