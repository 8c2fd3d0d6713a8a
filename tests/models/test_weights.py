"""Weights from disk: files that load, files that are refused, and the messages."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.small_detectors import FAMILIES, OPTIONS, detector
from understudy import models
from understudy.errors import NetworkError
from understudy.models import detection
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty; download"),
        (b"\n <!DOCTYPE html><html>404", "it is a web page, perhaps of a failed download"),
        (b"<html><head>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"\x1f\x8b\x08 packed", "it is compressed; unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_the_first_bytes_tell_the_cause(
    content: bytes, words: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NetworkError, match=words):
        load(small(), tmp_path / name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_cut_file_is_incomplete(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    save = save_file if name.endswith("safetensors") else torch.save
    save(small().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(NetworkError, match="is incomplete: its end is missing"):
        load(small(), file)


def test_a_wrong_suffix_is_said(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.pth")
    torch.save(small().state_dict(), tmp_path / "b.safetensors")
    for name, words in (("a.pth", "suffix .safetensors"), ("b.safetensors", "suffix .pth")):
        with pytest.raises(NetworkError, match=words):
            load(small(), tmp_path / name)


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.uint8, torch.int64, torch.complex64, torch.bool]
)
def test_numbers_that_are_not_real_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in small().state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match=f"is {str(kind)[6:]}, as in quantised networks"):
        load(small(), tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load(kind: torch.dtype, tmp_path: Path) -> None:
    source, target = small(), small()
    torch.save(source.to(kind).state_dict(), tmp_path / "weights.pth")
    load(target, tmp_path / "weights.pth")
    assert torch.equal(target.fc.weight, source.fc.weight.float())


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model._orig_mod."])
@pytest.mark.parametrize("family", FAMILIES)
def test_detectors_load_with_a_prefix(family: str, prefix: str, tmp_path: Path) -> None:
    source = detector(family, "resnet18", seed=1).module
    torch.save(prefixed(source, prefix), tmp_path / "weights.pth")
    options = {**OPTIONS[family], "backbone": "resnet18"}
    loaded = detection.find(
        family, num_classes=3, options=options, weights=str(tmp_path / "weights.pth")
    )
    assert digest(loaded.module) == digest(source)


def test_weights_of_open_mmlab_are_named(tmp_path: Path) -> None:
    state = {"backbone.conv1.weight": torch.zeros(1), "bbox_head.fc_cls.weight": torch.zeros(1)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match=r"bbox_head\.fc_cls\.weight is a name of open-mmlab"):
        load(small(), tmp_path / "weights.pth", classifier="fc")


def test_a_common_name_does_not_hide_a_prefix(tmp_path: Path) -> None:
    source, target = small(), small()
    state = prefixed(source, "module.") | {"fc.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "weights.pth")
    load(target, tmp_path / "weights.pth")
    assert digest(source) == digest(target)
