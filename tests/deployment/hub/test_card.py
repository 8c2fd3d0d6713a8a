"""The card of an exported student is one that the hub reads, and guesses nothing."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from understudy import models
from understudy.config.recipe import Network, Recipe
from understudy.deployment.export.export_student import Exported, export
from understudy.deployment.export.parity import Parity
from understudy.deployment.hub.card import CARD, licensed, read_card, write_card
from understudy.deployment.hub.licences import licence_keys
from understudy.deployment.speed.latency import Row, Speeds, Time
from understudy.errors import RunError
from understudy.experiment.student_file.config import Preprocessing, StudentConfig
from understudy.experiment.student_file.describe import data_of

TEACHER = {
    "name": "timm:resnet50.a1_in1k",
    "weights": "pretrained",
    "digest": "0123456789abcdef",
    "license": "apache-2.0",
}
CONFIG = StudentConfig(
    task="classification",
    library="timm",
    network=Network(name="timm:mobilenetv3_small_100"),
    preprocessing=Preprocessing(resize=73, crop=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
    num_classes=2,
    classes=("cat | dog", "<b>`x`</b>"),
    teacher=TEACHER,
    recipe="abcdef012345",
    data={"source": "fashion"},
    metrics={"top1": 71.25, "ece": 0.0312, "unknown": None},
    measured={"split": "test", "images": 2500},
    timm={"architecture": "mobilenetv3_small_100", "model_args": {}, "pretrained_cfg": {}},
    control={"metric": "top1", "control": 69.8, "student": 71.0},
    verdict="kd is better than the control by 1.20 [0.40, 2.00].",
    version="0.1.0",
)


def card(folder: Path, config: StudentConfig = CONFIG, **options: Any) -> tuple[Any, str]:
    """Header and text of a card beside weights, as huggingface_hub reads the file."""
    (folder / "model.safetensors").touch()
    loaded = ModelCard.load(write_card(folder, config, **options))
    return loaded.data, loaded.text


def test_the_header_is_what_the_hub_reads(tmp_path: Path) -> None:
    header, _ = card(tmp_path, name="small")
    assert header.license == "apache-2.0"
    assert header.library_name == "timm"
    assert header.pipeline_tag == "image-classification"
    assert header.tags == ["understudy", "knowledge-distillation"]
    assert header.datasets == ["zalando-datasets/fashion_mnist"]
    assert header.base_model == ["timm/resnet50.a1_in1k"]
    (result,) = header.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 71.25)
    assert result.dataset_split == "test"


def test_the_text_says_what_the_student_is(tmp_path: Path) -> None:
    _, text = card(tmp_path, name="small")
    for words in (
        "# small",
        "tells 2 classes of pictures apart",
        "imitate `timm:resnet50.a1_in1k` by Understudy 0.1.0",
        "kd is better than the control by 1.20",
        "71.25",
        "2,500 images of the split `test`",
        "The shorter side becomes 73 pixels (bilinear, antialiased).",
        "The square of 64 × 64 pixels",
        "(0.5, 0.5, 0.5) is subtracted",
        "Over all seeds, students that were trained like this one have a top1 of 71.00 on average",
        "In this folder:\n\n```python\nimport json\nimport timm\n",
        'classes = json.load(open("config.json"))["understudy"]["classes"]',
        'timm.create_model("local-dir:.", pretrained=True)',
        "is under the licence `apache-2.0`",
        "digest of the recipe: `abcdef012345`",
        "digest of the teacher: `0123456789abcdef`",
        "`cat | dog`, ``<b>`x`</b>``",
    ):
        assert words in text
    assert "unknown" not in text
    assert "`top1` and `top5` are percent of the pictures." in text
    assert "`AP`" not in text


def test_options_and_missing_labels_are_said(tmp_path: Path) -> None:
    """The name alone would be another network, and the images more than what was learned from."""
    splits = {"train": {"images": 10_000}}
    data = data_of(Recipe.from_dict({"data": {"source": "fashion", "labels": 200}}), splits)
    network = Network(name="resnet8x4", options={"widths": [8, 8, 16, 64]})
    _, text = card(tmp_path, replace(CONFIG, data=data, network=network, metrics={"top1": 100 / 3}))
    assert "A network `resnet8x4` (`widths=[8, 8, 16, 64]`) that tells" in text
    assert "- training images: `10,000, of which 200 with their label`" in text
    assert "value: 33.333333\n" in (tmp_path / CARD).read_text(encoding="utf-8")


def test_nothing_is_guessed(tmp_path: Path) -> None:
    unknown = replace(CONFIG, teacher=TEACHER | {"license": None}, data={"source": "folder"})
    header, text = card(tmp_path, unknown)
    assert header.license is None
    assert header.datasets is None
    assert "was not recorded: look it up" in text
    own = {"name": "nets.py:big", "weights": "big.pth", "digest": None, "license": None}
    header, text = card(tmp_path, replace(CONFIG, teacher=own, metrics={}, measured={}))
    assert header.base_model is None
    assert not header.eval_results
    assert "whoever trained this student, who knows which licence holds" in text
    assert "## Results" not in text


def test_a_data_set_of_the_hub_is_named_and_a_folder_is_not(tmp_path: Path) -> None:
    on_hub = Recipe.from_dict({"data": {"source": "hf", "root": "ylecun/mnist"}})
    splits = {"train": {"images": 3000, "origin": "hf: train"}}
    data = data_of(on_hub, splits)
    assert data == {"source": "hf", "name": "ylecun/mnist", "splits": splits}
    header, text = card(tmp_path, replace(CONFIG, data=data))
    assert header.datasets == ["ylecun/mnist"]
    assert "- data: `hf ylecun/mnist`\n- training images: `3,000`\n" in text
    saved = Recipe.from_dict({"data": {"source": "hf", "root": str(tmp_path)}})
    header, text = card(tmp_path, replace(CONFIG, data=data_of(saved, {})))
    assert header.datasets is None
    assert "- data: `hf`\n" in text


def test_a_student_without_a_teacher(tmp_path: Path) -> None:
    alone = replace(CONFIG, teacher=None, verdict=None, initial={"weights": "pretrained"})
    header, text = card(tmp_path, alone)
    assert header.tags == ["understudy"]
    assert header.license is None
    assert "trained alone by Understudy" in text
    assert "have a licence not recorded" in text


@pytest.mark.parametrize(
    ("task", "pipeline", "words"),
    [
        ("multilabel", "image-classification", "says which of 2 classes are in a picture"),
        ("detection", "object-detection", "finds objects of 2 classes"),
    ],
)
def test_other_tasks(tmp_path: Path, task: Any, pipeline: str, words: str) -> None:
    header, text = card(tmp_path, replace(CONFIG, task=task, preprocessing=Preprocessing()))
    assert header.pipeline_tag == pipeline
    assert words in text


def test_a_detector_is_named_with_its_backbone(tmp_path: Path) -> None:
    network = Network("fcos", options={"backbone": "mobilenet_v2"})
    detector = {"widths": [32, 96], "layers": {"6": "0", "13": "1"}}
    found = replace(CONFIG, task="detection", library="timm", network=network, detector=detector)
    _, text = card(tmp_path, found)
    assert "A network `fcos` over `mobilenet_v2` that finds objects of 2 classes" in text


def test_sizes_times_and_differences_are_tables_as_in_a_report(tmp_path: Path) -> None:
    row = Row(
        names=["student"],
        network="resnet8",
        parameters=1_500_000,
        bytes={"fp32": 6_100_000},
        macs=None,
        image=[3, 64, 64],
        times=[Time("onnxruntime", "int8", 1, 1.234)],
    )
    exported = Exported(
        tmp_path,
        files={"onnx": "student.onnx", "int8": "student_int8.onnx"},
        parity={"onnx": Parity("test images", 2000, 1.2e-6, 12.5, 2000, 0)},
        speeds=Speeds("a CPU", 1, [row]),
    )
    int8 = {"int8": {"sentence": "top1 62.50 in int8, 63.33 in fp32, on 600 test images"}}
    (tmp_path / "export.json").write_text(json.dumps(exported.to_dict() | int8))
    _, text = card(tmp_path)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    share = "1.2e-06 (9.6e-08 of the largest output)"
    assert f"| student.onnx | 2,000 | 12.5 | {share} | 0 of 2,000 |" in lines
    assert "`student_int8.onnx`: top1 62.50 in int8, 63.33 in fp32, on 600 test images." in lines
    assert "| student | resnet8 | 1.5 M | 6.1 MB | 1.23 ms |" in lines
    assert "all networks in turn, on a CPU with 1 thread; images of 64 × 64 pixels" in text


def test_a_file_of_ones_own_is_named_without_its_folder(tmp_path: Path) -> None:
    own = Network(name="/home/me/secret/nets.py:small")
    _, text = card(tmp_path, replace(CONFIG, library="file", network=own, timm={}))
    assert "from nets import small" in text
    assert "secret" not in text


def test_two_licences_are_none(tmp_path: Path) -> None:
    initial = {"weights": "pretrained", "license": "cc-by-nc-4.0"}
    header, text = card(tmp_path, replace(CONFIG, initial=initial))
    assert header.license is None
    assert "`apache-2.0`" in text
    assert "`cc-by-nc-4.0`" in text


def test_teachers_on_the_hub_are_base_models(tmp_path: Path) -> None:
    for name in ("hf-hub:me/net@main", "timm:hf-hub:me/net"):
        header, _ = card(tmp_path, replace(CONFIG, teacher=TEACHER | {"name": name}))
        assert header.base_model == ["me/net"]
    # Which of its weights timm took is not known.
    header, _ = card(tmp_path, replace(CONFIG, teacher=TEACHER | {"name": "timm:resnet50"}))
    assert header.base_model is None


@pytest.mark.parametrize(
    ("licence", "keys"),
    [
        ("", {}),
        ("MIT", {"license": "mit"}),
        ("research only!", {"license": "other", "license_name": "research-only-"}),
    ],
)
def test_licences_are_spelled_as_the_hub_does(licence: str, keys: dict[str, str]) -> None:
    assert licence_keys(licence) == keys


def test_another_licence_replaces_the_header_alone(tmp_path: Path) -> None:
    write_card(tmp_path, CONFIG)
    before = read_card(tmp_path)
    licensed(read_card(tmp_path), "CC-BY-4.0").save(tmp_path / CARD)
    after = read_card(tmp_path)
    assert after.data.license == "cc-by-4.0"
    assert after.text.strip() == before.text.strip()
    assert after.data.eval_results == before.data.eval_results


@pytest.mark.parametrize("content", ["---\nlicense: [\n---\n", "---\n- a\n---\n", None])
def test_a_header_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / CARD).write_text(content)
    with pytest.raises(RunError, match="cannot be read"):
        read_card(tmp_path)


@pytest.mark.parametrize(("task", "key"), [("multilabel", "mAP"), ("detection", "AP")])
def test_the_header_holds_the_headline_of_every_task(tmp_path: Path, task: Any, key: str) -> None:
    header, _ = card(tmp_path, replace(CONFIG, task=task, metrics={key: 61.5}))
    assert header.metrics == ["mean_average_precision"]
    assert header.eval_results[0].dataset_name == "zalando-datasets/fashion_mnist"
    assert header.eval_results[0].metric_value == 61.5


def test_without_a_control_the_card_says_so(tmp_path: Path) -> None:
    _, text = card(tmp_path, replace(CONFIG, control=None, verdict=None))
    assert "No control (the same student without its teacher) was trained" in text
    _, text = card(tmp_path, replace(CONFIG, control=None, teacher=None))
    assert "No control" not in text


def test_the_lines_load_the_file_that_the_folder_holds(tmp_path: Path) -> None:
    student = replace(
        CONFIG, library="torchvision", network=Network("torchvision:alexnet"), timm={}
    )
    _, text = card(tmp_path, student)
    assert 'load_file("model.safetensors")' in text
    (tmp_path / "student.safetensors").touch()
    _, text = card(tmp_path, student)
    assert 'load_file("student.safetensors")' in text


def test_a_folder_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    text = write_card(tmp_path, CONFIG).read_text()
    assert "`understudy export RUN --to hub` adds them" in text
    assert "create_model" not in text


def test_a_network_of_ones_own_is_exported_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Path(__file__).parents[2] / "support" / "plain_cnn.py"
    name = f"{code}:factory"
    student, folder = tmp_path / "student", tmp_path / "exported"
    student.mkdir()
    network = models.find(name, num_classes=2, view_size=64)
    save_file(network.plain().state_dict(), student / "student.safetensors")
    factory = {"arguments": {"num_classes": 2}}
    own = replace(CONFIG, library="file", network=Network(name), timm={}, factory=factory)
    own.write(student)
    exported = export(student, to="hub", out=folder, trust=True)
    assert exported.files == {"hub": "model.safetensors", "network": "plain_cnn.py"}
    lines = re.findall(r"```python\n(.*?)```", read_card(folder).text, re.DOTALL)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "plain_cnn", raising=False)
    defined: dict[str, Any] = {}
    exec(lines[-1], defined)
    assert sys.modules["plain_cnn"].__file__ == str(folder / "plain_cnn.py")
    for key, value in defined["network"].state_dict().items():
        assert value.equal(network.plain().state_dict()[key])
