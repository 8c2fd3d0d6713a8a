"""Files of recipes: bases, tables, and what is known about a row."""

from pathlib import Path

import pytest

from understudy.config import recipe, tables
from understudy.config.recipe import Recipe
from understudy.config.tables import About
from understudy.errors import NameNotFound, RecipeError

TABLE = """
about: {paper: Somebody 2020, cost: a day}
base: cifar100/pairs
methods: {kd: {weight: 0.9}}
training: {epochs: 3}
rows:
  resnet56_resnet20: 70.60
  resnet110_resnet20: {training.lr: 0.2, methods.kd.weight: 0.5, methods.nd.weight: 2}
  vgg13_vgg8: ~
  mine: {base: other.yaml, about.published: 1 ± 2}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "other.yaml").write_text("name: other\nstudent: resnet8\nmethods: {pefd: {}}")
    path = tmp_path / "table.yaml"
    path.write_text(TABLE)
    return path


def test_a_row_means_the_same_row_of_its_base(table: Path) -> None:
    made = Recipe.load(f"{table}/resnet56_resnet20")
    assert made.name == "resnet56_resnet20"
    assert (made.teacher.name, made.student.name) == ("resnet56", "resnet20")
    assert (made.training.epochs, made.training.batch) == (3, 64)
    assert made.methods == {"kd": {"weight": 0.9}}


def test_a_row_differs_by_dotted_keys(table: Path) -> None:
    made = Recipe.load(f"{table}/resnet110_resnet20", {"training.epochs": 5})
    assert (made.training.lr, made.training.epochs) == (0.2, 5)
    assert made.methods == {"kd": {"weight": 0.5}, "nd": {"weight": 2}}
    assert Recipe.load(f"{table}/resnet56_resnet20").methods == {"kd": {"weight": 0.9}}


def test_a_row_may_have_a_base_of_its_own(table: Path) -> None:
    made = Recipe.load(f"{table}/mine")
    assert (made.name, made.student.name) == ("mine", "resnet8")
    assert made.methods == {"pefd": {}, "kd": {"weight": 0.9}}


def test_what_is_known_of_a_row(table: Path) -> None:
    about = tables.about(f"{table}/resnet56_resnet20")
    assert about.paper == "Somebody 2020"
    assert (about.published, about.student, about.teacher) == ("70.60", "69.06", "72.34")
    assert tables.about(f"{table}/vgg13_vgg8").published == ""
    assert tables.about(f"{table}/mine") == About("Somebody 2020", "", "1 ± 2", cost="a day")


def test_a_base_changes_no_digest(table: Path) -> None:
    made = Recipe.load(f"{table}/resnet110_resnet20")
    written = table.with_name("written.yaml")
    written.write_text(made.to_yaml())
    assert "base" not in written.read_text()
    assert Recipe.load(written) == made
    assert Recipe.load(written).digest == made.digest


def test_a_network_may_be_just_its_name_in_a_base(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("student: resnet8\nteacher: {name: resnet20, size: 16}")
    path = tmp_path / "above.yaml"
    path.write_text("base: below.yaml\nstudent: {size: 16}\nteacher: resnet32")
    made = Recipe.load(path)
    assert made.student == recipe.Student("resnet8", size=16)
    assert made.teacher == recipe.Network("resnet32")


def test_every_file_is_a_table_or_a_recipe() -> None:
    names = tables.shipped()
    assert list(names) == sorted(names)
    assert set(names.values()) == set(tables.tables().values())
    assert "cifar100/crd/resnet56_resnet20" in names
    assert "cifar100/crd" not in names


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (TABLE, "", r"table.yaml is a table of 4 recipes; name a row, such as .*resnet56_resnet20"),
        (TABLE, "/vgg13_vgg9", r"has no row 'vgg13_vgg9' \(did you mean 'vgg13_vgg8'\?\)"),
        ("base: table.yaml", "", "is its own base"),
        ("base: cifar100/pairs", "", "cifar100/pairs is a table of 14 recipes"),
        ("rows: 3", "", "'rows' of .* must be a group of keys, not 3"),
        ("base: [a]", "", "'base' is .*; it must be text"),
        ("student: a\nrows: {b: {student.name: c}}", "/b", "'student.name' cannot be set"),
    ],
)
def test_a_file_that_makes_no_sense(table: Path, text: str, name: str, words: str) -> None:
    table.write_text(text)
    with pytest.raises((RecipeError, NameNotFound), match=words):
        Recipe.load(f"{table}{name}")


def test_what_is_known_is_checked_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("about: {papr: me}")
    with pytest.raises(RecipeError, match=r"'about.papr' \(did you mean 'paper'\?\)"):
        tables.about(path)
    path.write_text("about: me")
    with pytest.raises(RecipeError, match="'about' must be a group of keys"):
        tables.about(path)
    assert Recipe.load(path).name == "mine"


def test_an_unknown_recipe_is_answered_with_the_nearest_table() -> None:
    with pytest.raises(NameNotFound, match=r"did you mean 'cifar100/crd'") as error:
        Recipe.load("cifar100/crdd")
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize(
    ("pair", "betas", "lr"),
    [
        ("fasterrcnn_resnet101_resnet50", (7, 7, 7), 0.01),
        ("fasterrcnn_vgg16_vgg11", (7, 7, 7), 0.01),
        ("retinanet_resnet101_resnet50", (7, 7, 7), 0.005),
        ("retinanet_vgg16_vgg11", (7, 6, 8), 0.005),
    ],
)
def test_detectors_of_lshfm_are_as_published(
    pair: str, betas: tuple[int, int, int], lr: float
) -> None:
    for terms, beta in zip(("l2", "lsh", "lshl2"), betas, strict=True):
        made = Recipe.load(f"voc0712/{terms}/{pair}")
        family, theirs, ours = pair.split("_")
        assert family == made.student.name == made.teacher.name
        assert theirs in made.teacher.options["backbone"]
        assert ours in made.student.options["backbone"]
        assert made.methods["lshfm"]["terms"] == terms
        assert made.methods["lshfm"]["weight"] == beta
        assert (made.training.lr, made.training.batch, made.training.epochs) == (lr, 8, 24)
        assert made.training.milestones == (18, 22)
        assert made.student.options["min_size"] == [*range(480, 801, 32)]


@pytest.mark.parametrize(
    ("pair", "kd_nd", "reviewkd_nd"),
    [
        ("resnet101_resnet18", (1.0, 1.5), (1.2, 1.5)),
        ("resnet101_resnet50", (1.0, 1.0), (1.4, 1.0)),
        ("resnet50_mobilenet_v2", (1.0, 1.0), (2.2, 1.5)),
    ],
)
def test_detectors_of_nd_are_as_configured(
    pair: str, kd_nd: tuple[float, float], reviewkd_nd: tuple[float, float]
) -> None:
    for name, weights in {"kd++": kd_nd, "reviewkd++": reviewkd_nd}.items():
        made = Recipe.load(f"coco/{name}/{pair}")
        assert tuple(each["weight"] for each in made.methods.values()) == weights
        assert made.training.lr == 0.01
        steps = [epoch * -(-118_287 // 8) for epoch in (*made.training.milestones, 12)]
        assert steps == pytest.approx([120_000, 160_000, 180_000], rel=0.02)


def test_the_page_names_every_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for name in tables.tables():
        folder, _, file = name.partition("/")
        rows = [line for line in page.splitlines() if line.startswith(f"| `{folder}/")]
        assert any(f"`{file}`" in row or f"`{name}`" in row for row in rows), name
