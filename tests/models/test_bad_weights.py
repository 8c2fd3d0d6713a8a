"""Kinds of files that are no weights of a network, each with the sentence that names its cause."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

import understudy
from tests.support.small_runs import TINY
from understudy import models
from understudy.config.recipe import Recipe
from understudy.errors import NetworkError, UnderstudyError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.models.weights import class_names, load


def small(classes: int = 5) -> nn.Module:
    options = {"widths": [4, 4, 8, 8]}
    return models.find("resnet8", num_classes=classes, options=options).module


def state(classes: int = 5) -> dict[str, Tensor]:
    return small(classes).state_dict()


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_nan() -> dict[str, Tensor]:
    broken = state()
    broken["fc.weight"][0, 0] = torch.nan
    return broken


def changed(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    whole = state()
    return whole | {"fc.weight": change(whole["fc.weight"])}


def on_meta(weight: Tensor) -> Tensor:
    return weight.to("meta")


def infinite(weight: Tensor) -> Tensor:
    return weight / 0


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(small().eval(), torch.rand(1, 3, 8, 8)), buffer)
    return buffer.getvalue()


def of_mmpretrain() -> dict[str, Tensor]:
    """Weights under the names of open-mmlab's classifiers."""
    return {
        f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": value
        for key, value in state().items()
    }


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("weights.txt", "no weights")
    return buffer.getvalue()


KINDS: dict[str, tuple[str, Callable[[], bytes | None], str]] = {
    "missing": ("w.pth", lambda: None, "There are no weights at .*; check the path"),
    "empty": ("w.pth", bytes, "it is empty; download or copy it again"),
    "web page": ("w.pth", lambda: b"<!doctype html>404", "it is a web page"),
    "pointer of Git LFS": ("w.pth", lambda: b"version https://git-lfs.github.com", "git lfs pull"),
    "compressed": ("w.pth", lambda: b"\x1f\x8b\x08\x00packed", "it is compressed; unpack it"),
    "cut": ("w.pth", lambda: torch_bytes(state())[:-300], "is incomplete: its end is missing"),
    "cut header": ("w.safetensors", lambda: save(state())[:60], "is incomplete: its end is"),
    "cut data": ("w.safetensors", lambda: save(state())[:-60], "is incomplete: its end is"),
    "four bytes": ("w.safetensors", lambda: save(state())[:4], "is incomplete: its end is"),
    "noise": ("w.safetensors", lambda: bytes(range(200)), "is not a file of weights: .*torch.save"),
    "picture": (
        "w.pth",
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(50),
        "does not begin as one that torch",
    ),
    "other archive": ("w.pth", zipped, r"it is an archive \(of weights\.txt, …\) that torch\.save"),
    "TorchScript": ("w.pth", scripted, "it holds a TorchScript module; save the state dict"),
    "sparse": ("w.pth", lambda: torch_bytes(changed(Tensor.to_sparse)), "fc.weight is sparse"),
    "no values": ("w.pth", lambda: torch_bytes(changed(on_meta)), "fc.weight has no values"),
    "infinity": ("w.pth", lambda: torch_bytes(changed(infinite)), "fc.weight holds infinity: the"),
    "wrong suffix": ("w.pth", lambda: save(state()), "give it the suffix .safetensors"),
    "the other wrong suffix": ("w.safetensors", lambda: torch_bytes(state()), "suffix .pth"),
    "whole module": ("w.pth", lambda: torch_bytes(small()), "holds pickled objects"),
    "pickle": ("w.pth", lambda: pickle.dumps(print), "holds pickled objects"),
    "list": ("w.pth", lambda: torch_bytes([1, 2]), "holds no state dict but list"),
    "epoch": ("w.pth", lambda: torch_bytes({"epoch": 3}), "holds a dictionary of epoch"),
    "eight bits": (
        "w.pth",
        lambda: torch_bytes({k: v.to(torch.int8) for k, v in state().items()}),
        "is int8, as in quantised networks",
    ),
    "NaN": ("w.pth", lambda: torch_bytes(with_nan()), "fc.weight holds NaN: the training that"),
    "other classes": ("w.pth", lambda: torch_bytes(state(9)), "has 9 classes, 5 were asked for"),
    "no classifier": (
        "w.pth",
        lambda: torch_bytes({k: v for k, v in state().items() if not k.startswith("fc.")}),
        "they hold no classifier, as self-supervised ones do",
    ),
    "mmpretrain": (
        "w.pth",
        lambda: torch_bytes({"meta": {}, "state_dict": of_mmpretrain()}),
        "head.fc.bias is a name of open-mmlab",
    ),
    "another architecture": (
        "w.pth",
        lambda: torch_bytes({f"{k}_2": v for k, v in state().items()}),
        "missing .* unexpected .*another architecture",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_sentence(kind: str, tmp_path: Path) -> None:
    name, content, sentence = KINDS[kind]
    if (written := content()) is not None:
        (tmp_path / name).write_bytes(written)
    with pytest.raises(NetworkError, match=sentence):
        load(small(), tmp_path / name, classifier="fc")


@pytest.mark.parametrize("classes", ["7", "{}", "[1, 2]", "[", "[" * 5000])
def test_class_names_that_are_none_are_refused(classes: str, tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors", {"classes": classes})
    with pytest.raises(NetworkError, match=r"The class names in .* which is no list of names"):
        class_names(tmp_path / "w.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 40, -10])
def test_a_cut_student_teaches_nothing_and_is_not_evaluated(
    teacher: Path, tmp_path: Path, cut: int
) -> None:
    for name in ("recipe.yaml", "environment.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((teacher / name).read_bytes())
    whole = (teacher / "student.safetensors").read_bytes()
    (tmp_path / "student.safetensors").write_bytes(whole[:cut])
    keys = {"teacher.weights": str(tmp_path), "methods": {"kd": {}}}
    uses: dict[str, Callable[[], object]] = {
        "teacher": lambda: understudy.distill(Recipe.load(TINY, keys), out=tmp_path / "out"),
        "evaluate": lambda: evaluate(tmp_path, {"trust": True}, device="cpu"),
        "student": lambda: Run(tmp_path).student(trust=True),
    }
    for use in uses.values():
        with pytest.raises(UnderstudyError, match=r"student\.safetensors is (not|incomplete)"):
            use()
