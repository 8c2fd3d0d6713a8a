"""Transforms that a recipe names: the same in any order, where they act, and what is refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from tests.data.test_box_views import Squares
from tests.data.test_views import source
from tests.support.papers import KEYS, over_papers
from understudy.cli.resume import recipe_in
from understudy.config.recipe import Recipe
from understudy.data import CLEAN, FileViews, Loader, MemorySource, ObjectViews
from understudy.data._random import counter_hash
from understudy.data.named_transforms import Entry, NamedTransforms
from understudy.data.views import Views, make_views
from understudy.errors import DataError, NameNotFound, RecipeError, UnderstudyError
from understudy.functional import seeded

SIDE = 24
OWN = """
import random
import numpy as np
import torch

def shifted(most=9):
    def shift(image):
        by = int(torch.randint(most, ())) + random.randrange(most) + np.random.randint(most)
        return (image.int() + by).clamp(0, 255).to(torch.uint8)
    return shift

def with_state():
    state = np.random.default_rng(0)
    return lambda image: image + state.integers(9)

def as_list():
    return lambda image: image.tolist()

def normalised():
    return lambda image: image / 255 * 4 - 2
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def views(*entries: Entry, augment: Any = "flip", size: int = SIDE, jitter: float = 0.0) -> Views:
    return make_views(
        source(size=SIDE),
        augment=augment,
        size=size,
        seed=3,
        jitter=jitter,
        named=NamedTransforms(entries),
    )


def ints(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


@pytest.mark.parametrize(
    "entries",
    [
        ["RandAugment"],
        [{"name": "TrivialAugment"}, {"name": "RandomErasing", "p": 1.0, "value": "random"}],
        [{"name": "RandomApply", "transforms": [{"name": "GaussianNoise"}], "p": 0.5}],
        [{"name": "RandomPerspective", "before": True}, "own"],
    ],
)
def test_a_view_depends_on_seed_image_and_number_alone(entries: list[Any], own: Path) -> None:
    entries = [f"{own}:shifted" if entry == "own" else entry for entry in entries]
    made, index, number = views(*entries), ints(0, 1, 2, 1), ints(0, 7, 7, 8)
    together = made(index, number)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    backwards = views(*entries)(index.flip(0), number.flip(0)).flip(0)
    assert torch.equal(together, backwards)
    assert torch.equal(together[2], made(ints(2), ints(7))[0])
    assert not torch.equal(together[1], together[3])
    assert together.min() >= 0
    assert together.max() <= 1
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


def test_worker_processes_give_the_same_views(own: Path) -> None:
    made = views("RandAugment", {"name": f"{own}:shifted", "most": 99}, "RandomErasing")
    labels = torch.zeros(7, dtype=torch.int64)
    alone, helped = (
        [
            batch.images
            for step in Loader(made, labels, batch=3, seed=0, shuffle=True, workers=workers).epoch(
                2
            )
            for batch in step
        ]
        for workers in (0, 2)
    )
    assert all(map(torch.equal, alone, helped))


def test_a_view_is_torchvisions_to_the_bit() -> None:
    pixels = source(size=SIDE).image(4)
    with seeded(int(counter_hash(3, ints(4), ints(6)))):
        image = pixels.flip(-1) if torch.rand(1) < 0.5 else pixels
        image = v2.RandAugment(num_ops=3, magnitude=12)(image) / torch.tensor(255.0)
        image = v2.RandomErasing(p=1.0, value=0.25)(image)
    erasing = {"name": "RandomErasing", "p": 1.0, "value": 0.25}
    made = views({"name": "RandAugment", "num_ops": 3, "magnitude": 12}, erasing)
    assert torch.equal(made(ints(4), ints(6))[0], image)


def test_one_before_gets_the_whole_image() -> None:
    """A grey image is grey before and after; a crop of the middle is not that of a corner."""
    made = views({"name": "CenterCrop", "size": 12, "before": True}, augment="none")
    expected = tv.resize(tv.center_crop(source(size=SIDE).image(0), [12]), [SIDE]) / 255
    assert torch.allclose(made(ints(0), ints(0))[0], expected, atol=1e-6)


def test_evaluation_and_recipes_without_transforms_are_as_before() -> None:
    made, plain = views("RandAugment", "RandomErasing", jitter=0.3), views(jitter=0.3)
    index = torch.arange(7)
    clean = torch.full_like(index, CLEAN)
    assert torch.equal(made(index, clean), plain(index, clean))
    assert "transforms" not in plain.description
    assert made.description != plain.description
    assert made.count is None
    without = over_papers({"data": {"transforms": []}})
    assert Recipe.from_dict(without).digest == Recipe.from_dict(KEYS).digest


def test_the_description_tells_arguments_and_content_of_files(own: Path) -> None:
    described = [
        NamedTransforms([{"name": f"{own}:shifted", "most": most}]).description for most in (8, 9)
    ]
    own.write_text(OWN + "\n")
    described.append(NamedTransforms([{"name": f"{own}:shifted", "most": 9}]).description)
    assert len(set(described)) == 3


def test_noise_of_erasing_has_imagenets_mean_before_normalisation() -> None:
    grey = MemorySource(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ints(0), ("a",))
    erasing = {"name": "RandomErasing", "p": 1.0, "value": "random", "scale": [0.3, 0.3]}
    made = FileViews(grey, augment="none", size=64, seed=0, named=NamedTransforms([erasing]))
    shown = made(ints(0), ints(1))[0]
    erased = shown[:, shown.sum(0) > 0]
    assert torch.allclose(erased.mean(1), torch.tensor([0.485, 0.456, 0.406]), atol=0.03)


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ("RandAugmen", NameNotFound, "did you mean 'RandAugment'"),
        ("CutMix", RecipeError, "set data.mixup or data.cutmix"),
        ("Normalize", RecipeError, "networks normalise by themselves"),
        ({"name": "RandAugment", "operations": 2}, RecipeError, "It takes: num_ops, magnitude"),
        ({"name": "RandAugment", "interpolation": "good"}, RecipeError, "it can be: nearest"),
        ({"name": "RandomCrop", "size": 16}, RecipeError, r"of shape \(3, 16, 16\).*data.size"),
        ({"name": "RandomCrop", "size": 99, "before": True}, DataError, "RandomCrop fails on an"),
        (
            "missing.py:function",
            RecipeError,
            "Python file .missing.py. as seen from the present folder",
        ),
        ("own.py:nothing", RecipeError, "has no function 'nothing'"),
        ("own.py:as_list", RecipeError, "return list, and must return a tensor"),
        ("own.py:normalised", RecipeError, r"values from -2 to 2, .*networks normalise"),
        ("own.py:with_state", RecipeError, "two images for one seed"),
    ],
)
def test_what_no_view_can_use_is_refused(
    entry: Entry, kind: type[UnderstudyError], words: str, own: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(own.parent)
    with pytest.raises(kind, match=words):
        views(entry)


@pytest.mark.parametrize("entry", [{"num_ops": 2}, "", {"name": "RGB", "before": 1}, 5])
def test_what_is_no_entry_is_refused_by_the_recipe(entry: Any) -> None:
    with pytest.raises(RecipeError, match=r"data.transforms\[0\]"):
        Recipe.from_dict({"data": {"transforms": [entry]}})


def test_only_files_of_the_working_folder_are_executed_unasked(
    own: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    entry = {"name": "RandomApply", "transforms": [f"{own}:shifted"]}
    file = tmp_path / "recipe.yaml"
    file.write_text(Recipe.from_dict({"data": {"transforms": [entry]}}).to_yaml())
    with pytest.raises(RecipeError, match="name it yourself by --data"):
        Recipe.load(file)
    assert Recipe.load(file, {"data.transforms": ["RGB"]})
    assert Recipe.load(file, {"trust": True})
    monkeypatch.chdir(tmp_path)
    assert Recipe.load(file)


def test_a_received_run_that_is_continued_executes_no_file_of_its_own(
    own: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "received"
    run.mkdir()
    own = own.rename(run / "own.py")
    recipe = Recipe.from_dict({"trust": True, "data": {"transforms": [f"{own}:shifted"]}})
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="lies outside the working folder or in the run itself"):
        recipe_in(run, {})
    assert recipe_in(run, {"trust": True}).data.transforms == recipe.data.transforms
    assert recipe_in(run, {"data.transforms": ["RGB"]})


def boxed(*entries: Entry) -> ObjectViews:
    named = NamedTransforms(entries)
    return ObjectViews(Squares(), augment="none", seed=0, jitter=0.0, named=named)


def test_boxes_move_with_the_image_and_leave_with_their_objects() -> None:
    moving = [{"name": "RandomAffine", "degrees": 0, "translate": [0.9, 0.9]}, "RandomErasing"]
    for number in range(20):
        images, objects = boxed(*moving)(ints(0), ints(number))
        assert images.max() <= 1
        for left, top, right, bottom in objects.boxes[0].tolist():
            assert 0 <= left < right <= images.shape[3]
            assert 0 <= top < bottom <= images.shape[2]
        assert len(objects.areas[0]) == len(objects.labels[0]) == len(objects.boxes[0])


def test_colours_move_no_box() -> None:
    plain, coloured = (boxed(*entries)(ints(0), ints(1)) for entries in ([], ["RandomInvert"]))
    assert all(map(torch.equal, plain[1].boxes, coloured[1].boxes))
    assert all(map(torch.equal, plain[1].areas, coloured[1].areas))


@pytest.mark.parametrize("name", ["RandAugment", "TrivialAugment"])
def test_what_moves_no_boxes_is_refused_in_detection(name: str) -> None:
    with pytest.raises(RecipeError, match="In detection a transform must move boxes"):
        boxed(name)


def test_an_own_function_can_be_sent_to_another_process(own: Path) -> None:
    import pickle

    made = views({"name": f"{own}:shifted", "most": 50})
    sent = pickle.loads(pickle.dumps(made))
    assert torch.equal(made(ints(1), ints(2)), sent(ints(1), ints(2)))
