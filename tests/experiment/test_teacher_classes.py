"""A teacher's classes are matched with those of the data by name, or the teacher is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from understudy import models, tasks
from understudy.config.recipe import Recipe
from understudy.errors import DataError, NetworkError, RecipeError
from understudy.experiment import build, teacher_classes
from understudy.experiment.train import train
from understudy.methods.kd import KD
from understudy.models.adapters import huggingface, torchvision

NAMES = ("cat", "dog", "owl")
SMALL = {"widths": [4, 4, 8, 8]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of three classes, two small images of each in both splits."""
    for split in ("train", "test"):
        for k, name in enumerate(NAMES):
            for i in range(2):
                file = tmp_path / "data" / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (60 * k, 90, 40 * i)).save(file)
    return tmp_path / "data"


def recipe(data: Path, teacher: Any, method: str = "kd") -> Recipe:
    return Recipe.load(
        {
            "data": {"source": "folder", "root": str(data)},
            "student": {"name": "resnet8", "options": SMALL},
            "teacher": teacher,
            "methods": {method: {}},
        }
    )


def saved(path: Path, names: tuple[str, ...], *, classes: int | None = None) -> nn.Module:
    """A teacher's module, saved with the names of its classes."""
    num_classes = classes or len(names)
    module = models.find("resnet8", num_classes=num_classes, options=SMALL).module.eval()
    save_file(module.state_dict(), path, metadata={"classes": json.dumps(names)} if names else None)
    return module


def weights(folder: Path) -> dict[str, Any]:
    return {"name": "resnet8", "options": SMALL, "weights": str(folder / "teacher.safetensors")}


def logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output = module(images)
    result: Tensor = getattr(output, "logits", output)
    return result


IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "names", [("owl", "cat", "dog"), ("dog", "bee", "Owl", "ant", "cat"), NAMES]
)
@pytest.mark.parametrize("method", ["kd", "simkd", "pefd"])
def test_a_run_teacher_is_put_in_order(
    tmp_path: Path, data: Path, names: tuple[str, ...], method: str
) -> None:
    module = saved(tmp_path / "teacher.safetensors", names)
    built = build.experiment(recipe(data, weights(tmp_path), method))
    assert built.teacher is not None
    rows = [[n.lower() for n in names].index(name) for name in NAMES]
    network = built.teacher.eval()
    expected = logits(module, network._normalise(IMAGES))[:, rows]
    with torch.no_grad():
        actual = network(IMAGES)
    assert torch.allclose(actual, expected, atol=1e-5)
    assert network.class_names == NAMES == built.classes
    assert built.distiller.student.same_classes(network)
    weight = network.classifier_weight
    assert weight is not None
    assert torch.equal(weight, module.get_submodule("fc").weight[rows])


@pytest.mark.parametrize("recorded", [(), ("cat", "dog", "owl")])
def test_names_in_the_recipe_come_before_those_of_the_weights(
    tmp_path: Path, data: Path, recorded: tuple[str, ...]
) -> None:
    module = saved(tmp_path / "teacher.safetensors", recorded, classes=3)
    named = {**weights(tmp_path), "classes": ["owl", "cat", "dog"]}
    teacher = build.experiment(recipe(data, named)).teacher
    assert teacher is not None
    with torch.no_grad():
        actual = teacher.eval()(IMAGES)
    expected = logits(module, teacher._normalise(IMAGES))[:, [1, 2, 0]]  # type: ignore[operator]
    assert torch.allclose(actual, expected, atol=1e-5)


def test_names_in_the_recipe_are_one_for_each_logit_of_a_trained_network(
    tmp_path: Path, data: Path
) -> None:
    saved(tmp_path / "teacher.safetensors", NAMES)
    few = recipe(data, {**weights(tmp_path), "classes": ["owl", "cat"]})
    with pytest.raises(NetworkError, match="names 2 classes of resnet8, which has 3: give one"):
        build.experiment(few)
    fresh = Recipe.load(recipe(data, weights(tmp_path)), {"student.classes": ["owl"]})
    with pytest.raises(RecipeError, match="a student takes those of the data"):
        build.experiment(fresh)


def test_a_teacher_of_transformers_is_put_in_order(tmp_path: Path, data: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    order = ("dog", "owl", "cat")
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(order)),
        label2id={name: i for i, name in enumerate(order)},
    )
    net = ResNetForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "teacher")
    processor = {"size": {"height": 32, "width": 32}, "resample": 3, "do_normalize": False}
    (tmp_path / "teacher/preprocessor_config.json").write_text(json.dumps(processor))
    built = build.experiment(recipe(data, f"hf:{tmp_path}/teacher"))
    assert built.teacher is not None
    with torch.no_grad():
        actual = built.teacher.eval()(IMAGES)  # type: ignore[operator]
    assert torch.allclose(actual, logits(net, IMAGES)[:, [2, 0, 1]], atol=1e-5)


def test_names_that_transformers_makes_up_are_none() -> None:
    from transformers import ResNetConfig

    module = nn.Module()
    module.config = ResNetConfig(num_labels=3)
    assert huggingface.class_names(module) == ()
    module.config = ResNetConfig(id2label={"1": "b", "0": "a"})
    assert huggingface.class_names(module) == ("a", "b")
    assert huggingface.class_names(nn.Linear(1, 1)) == ()


def test_names_of_pretrained_weights() -> None:
    names = torchvision.class_names("resnet18")
    assert (len(names), names[:2]) == (1000, ("tench", "goldfish"))


@pytest.mark.parametrize("method", ["kd", "dkd", "dist"])
def test_other_names_are_refused_where_classes_matter(
    tmp_path: Path, data: Path, method: str
) -> None:
    saved(tmp_path / "teacher.safetensors", ("cat", "dog", "bee"))
    with pytest.raises(DataError, match=r"class 2 is 'owl' in the data but 'bee' .* such as pefd"):
        build.experiment(recipe(data, weights(tmp_path), method))


@pytest.mark.parametrize("method", ["pefd", "cc"])
def test_features_of_other_classes_teach(tmp_path: Path, data: Path, method: str) -> None:
    saved(tmp_path / "teacher.safetensors", ("cat", "dog", "bee"))
    built = build.experiment(recipe(data, weights(tmp_path), method))
    assert not built.distiller.student.same_classes(built.teacher)


def test_a_nameless_file_is_said_once(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher_classes._say_unknown.cache_clear()
    saved(tmp_path / "teacher.safetensors", (), classes=3)
    with caplog.at_level(logging.WARNING, "understudy"):
        for _ in range(2):
            build.experiment(recipe(data, weights(tmp_path)))
    lines = [line for line in caplog.messages if "cannot be compared" in line]
    assert len(lines) == 1


def test_a_function_that_loads_its_weights_is_a_teacher(tmp_path: Path, data: Path) -> None:
    module = saved(tmp_path / "teacher.safetensors", NAMES)
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from safetensors.torch import load_file\n"
        "from understudy import models\n"
        "def teacher():\n"
        f"    net = models.find('resnet8', num_classes=3, options={SMALL}).module\n"
        "    net.load_state_dict(load_file(Path(__file__).parent / 'teacher.safetensors'))\n"
        "    return net\n"
    )
    name = f"{tmp_path}/mine.py:teacher"
    with pytest.raises(NetworkError, match="or 'own' for a function"):
        build.experiment(recipe(data, {"name": name}))
    built = build.experiment(recipe(data, {"name": name, "weights": "own"}))
    assert built.teacher is not None
    assert torch.equal(
        built.teacher.module.get_submodule("fc").weight, module.get_submodule("fc").weight
    )
    with pytest.raises(RecipeError, match=r"teacher\.weights is 'own', which is for a function"):
        build.experiment(recipe(data, {"name": "resnet8", "weights": "own"}))


@pytest.mark.parametrize("key", ["out", "teacher.weights", "data.decoded"])
def test_addresses_are_no_local_folders(
    tmp_path: Path, data: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "teacher.safetensors", NAMES)
    asked, out = recipe(data, weights(tmp_path)), "s3://bucket/x"
    if key != "out":
        asked, out = Recipe.load(asked, {key: out, "training.epochs": 1}), str(tmp_path / "run")
    refusal = "'s3://bucket/x', an address, but only folders and files"
    with pytest.raises(RecipeError, match=f"{key} is {refusal}"):
        train(asked, out=out, device="cpu")
    assert not list(tmp_path.glob("s3*"))


def named(name: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a pretrained network's classes, without its weights."""
    network = models.find(name, num_classes=1000, size=32)
    spec = Recipe.load({"teacher": {"name": name, "weights": "pretrained"}}).teacher
    task = tasks.find("classification")
    return teacher_classes.names_of(network, spec, (), task, classes)


FOLDERS = ("n01440764", "n01443537", "n01484850")


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:shufflenet_v2_x0_5"])
def test_imagenet_is_known_by_words_by_folders_and_by_synonyms(name: str) -> None:
    words = named(name, ())
    assert words[:3] == ("tench", "goldfish", "great white shark")
    assert named(name, ("goldfish", "Great White Shark")) == words
    folders = named(name, FOLDERS[1:])
    assert (len(folders), folders[:3]) == (1000, FOLDERS)
    synonyms = named(name, ("tench, Tinca tinca",))
    assert synonyms[0] == "tench, Tinca tinca"
    assert named(name, NAMES) == words


def test_a_few_other_spellings_of_all_classes_are_no_other_classes() -> None:
    words = named("timm:resnet10t", ())
    other = tuple("crane" if name == "crane bird" else name for name in words)
    assert named("timm:resnet10t", other) == other
    backwards = tuple(reversed(other))
    assert named("timm:resnet10t", backwards) == words


def test_a_pretrained_teacher_of_timm_on_other_classes_is_refused() -> None:
    network = models.find("timm:resnet10t", num_classes=1000, size=32)
    network.class_names = named("timm:resnet10t", ())
    other = tuple(f"bird {k}" for k in range(1000))
    method = KD(network.shapes, network.shapes)
    with pytest.raises(DataError, match="class 0 is 'bird 0' in the data but 'tench'"):
        teacher_classes.check(other, network, [method], tasks.find("classification"))
