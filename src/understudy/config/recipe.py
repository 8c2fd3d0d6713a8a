"""Recipes: one experiment as frozen data, read from and written to YAML. Imports no torch.

Every field is a key of the YAML file and, by its dotted path, a flag of the command line
(`--training.epochs 3`). The string under each field is its help.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from understudy.config import rules, trust
from understudy.config.groups import Bank as Bank
from understudy.config.groups import Data as Data
from understudy.config.groups import Network as Network
from understudy.config.groups import OneTeacher as OneTeacher
from understudy.config.groups import Student as Student
from understudy.config.groups import Training as Training
from understudy.config.limits import NonNegative, RunName, Seed
from understudy.config.schema import build, check_plain, leaves, plain
from understudy.config.tables import PAPERS, merged, name_of, put, read

TaskName = Literal["classification", "multilabel", "detection", "none"]
"""Tasks by name; see `understudy list tasks`."""

NOT_IN_DIGEST = (
    *("name", "trust", "data.root", "data.unlabelled", "data.workers", "data.decoded"),
    *("bank.path", "bank.views", "bank.codes", "methods.*.keep"),
    *("teachers.*.bank.path", "teachers.*.bank.views", "teachers.*.bank.codes"),
    "teachers.*.methods.*.keep",
)
"""Keys that do not change the result: names, folders, and what makes a run faster.

`*` is any label. `keep` is the folder where a method stores what it measured of the teacher, for
several runs.
"""


@dataclass(frozen=True)
class Recipe:
    """One experiment: student, teacher, methods, data, training."""

    name: RunName = ""
    """Name of the experiment; the default run directory is `runs/<name>`. Default: what it is, such
    as `resnet18_from_resnet50_lshfm`."""
    task: TaskName = "classification"
    """`multilabel`: several classes per image; `none`: no labels, the teacher alone."""
    data: Data = field(default_factory=Data)
    """Source of the images, and how they are augmented."""
    student: Student = field(default_factory=Student)
    """Network to train."""
    teacher: Network = field(default_factory=Network)
    """Frozen network to learn from; not needed without methods."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label → hyper-parameters and `weight`; a label that is no method's name needs `method`."""
    bank: Bank = field(default_factory=Bank)
    """Stored outputs of the teacher."""
    teachers: dict[str, OneTeacher] = field(default_factory=dict)
    """Several teachers by names of your own, in the place of `teacher`, `methods` and `bank`: each
    has the keys of `teacher`, and `methods` and a `bank` of its own."""
    task_weight: NonNegative = 1.0
    """Weight of the loss on labels."""
    weights: Literal["published", "auto"] = "published"
    """Weights of the methods: `published`, or those of the recipe where it states them; `auto`:
    found before training, so that the gradients of all methods together equal that of the labels.
    """
    training: Training = field(default_factory=Training)
    """Optimizer, schedule, precision and evaluation."""
    seed: Seed = 0
    """Seed of initial weights, image order and augmentation."""
    trust: bool = False
    """Execute the Python files outside the working folder that a run directory or the file of a
    recipe names for its networks; only where you know these files."""

    @classmethod
    def load(
        cls,
        recipe: "str | Path | Mapping[str, Any] | Recipe",
        overrides: Mapping[str, Any] | None = None,
    ) -> "Recipe":
        """Return a recipe given in any form, with some keys replaced.

        A recipe from a file without a `name` takes the name it is shipped under, or that of the
        file. See `understudy.config.tables` for `base` and `rows`.

        Args:
            recipe: Name of a shipped recipe, path of a YAML file, nested dictionary, or recipe.
            overrides: Keys to replace, dotted or nested: `{"training.epochs": 1}` and
                `{"training": {"epochs": 1}}` are the same. `methods`, `teachers`, `options` and
                `taps` are values: a mapping replaces them whole, a dotted key such as
                `methods.kd.weight` changes one entry. A network given as a string replaces all its
                keys.

        Raises:
            NameNotFound: `recipe` is neither a file nor the name of a shipped recipe.
            RecipeError: Not YAML, an unknown key, or a value of the wrong type or out of its range.
            NetworkError: The file names a Python file outside the working folder, which neither
                `overrides` name nor its key `trust` allows; see `understudy.config.trust`.

        >>> Recipe.load("fashion/demo", {"training.epochs": 1}).training.epochs
        1
        >>> Recipe.load({"student": "resnet8"}, {"training": {"lr": 0.1}}).training.lr
        0.1
        """
        replaced = dict(_dotted(overrides or {}))
        if isinstance(recipe, str | Path):
            file, recipe = recipe, {"name": name_of(recipe)} | read(recipe)
            trust.check_recipe_file(file, recipe, replaced)
        # One made in Python is checked as those of files are.
        content = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
        loaded = cls.from_dict(content)
        if not replaced:
            return loaded
        content = loaded.to_dict()
        for path, value in replaced.items():
            put(content, path, value)
        return cls.from_dict(content)

    @classmethod
    def read(cls, recipe: str | Path) -> "Recipe":
        """Return a recipe by its name or file, to look at: nothing is said of what it may execute.

        Raises:
            NameNotFound: Neither a file nor the name of a shipped recipe.
            RecipeError: As for `load`.

        >>> Recipe.read("fashion/demo").task
        'classification'
        """
        return cls.from_dict({"name": name_of(recipe)} | read(recipe))

    @classmethod
    def of_run(cls, file: Path) -> "Recipe":
        """Return the recipe that a run has written, in which nothing is `auto`.

        A key that is newer than the run has the value of `recipes/_papers.yaml`: what it was before
        anything was chosen.

        Raises:
            RecipeError: As for `load`.
        """
        return cls.from_dict(merged(read(PAPERS), {"name": name_of(file)} | read(file)))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of nested dictionaries; a missing key has its default.

        Raises:
            RecipeError: An unknown key, a value of the wrong type or out of its range, or values
                that exclude each other; names the dotted path.

        >>> Recipe.from_dict({"student": "resnet8", "training": {"epochs": 2}}).student.name
        'resnet8'
        """
        check_plain(content)
        recipe = build(cls, plain(content))
        rules.check(recipe)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as dictionaries, lists, numbers and strings: `from_dict` reads it.

        >>> Recipe().to_dict()["training"]["milestones"]
        [150, 180, 210]
        """
        content: dict[str, Any] = plain(asdict(self))
        return content

    def to_yaml(self) -> str:
        """Return the recipe as YAML with every key written out.

        >>> print(Recipe(name="mine").to_yaml().splitlines()[0])
        name: mine
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Return dotted path → value of every key, methods included.

        >>> Recipe(methods={"kd": {"weight": 2}}).flat()["methods.kd.weight"]
        2
        """
        return dict(_flatten(self.to_dict(), ""))

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any key but those in `NOT_IN_DIGEST`.

        Keys at their default do not count, so adding a key to `Recipe` changes no earlier digest.
        For what is `auto` by default that is the value of `recipes/_papers.yaml`.
        """
        default = _of_papers().flat() | self._defaults_of_teachers()
        content = {
            key: value
            for key, value in self.flat().items()
            if not any(fnmatchcase(key, path) for path in NOT_IN_DIGEST)
            and value != default.get(key)
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _defaults_of_teachers(self) -> dict[str, Any]:
        keys = asdict(OneTeacher())
        return {
            path: value
            for name in self.teachers
            for path, value in _flatten(plain(keys), f"teachers.{name}.")
        }

    @property
    def each_teacher(self) -> dict[str, OneTeacher]:
        """Name → teacher, with its methods and its bank; empty if the recipe names none.

        That of `teacher`, `methods` and `bank` has the empty name.

        >>> [*Recipe(teacher=Network("resnet50"), methods={"kd": {}}).each_teacher[""].methods]
        ['kd']
        """
        if self.teachers or not (self.teacher.name or self.teacher.weights):
            return dict(self.teachers)
        keys = _keys_of_network(self.teacher)
        return {"": OneTeacher(**keys, methods=self.methods, bank=self.bank)}

    @property
    def each_method(self) -> dict[str, dict[str, Any]]:
        """Label → hyper-parameters of all methods; `dino/kd` of a teacher with the name `dino`.

        >>> several = {"dino": OneTeacher("resnet50", methods={"kd": {}})}
        >>> Recipe(methods={"kd": {}}).each_method, Recipe(teachers=several).each_method
        ({'kd': {}}, {'dino/kd': {}})
        """
        return self.methods | {
            labelled(name, label): entry
            for name, teacher in self.teachers.items()
            for label, entry in teacher.methods.items()
        }

    def with_methods(self, methods: Mapping[str, dict[str, Any]]) -> "Recipe":
        """Return the recipe with other methods, by the labels of `each_method`.

        >>> several = Recipe(teachers={"dino": OneTeacher("resnet50", methods={"kd": {}})})
        >>> several.with_methods({}).teachers["dino"].methods
        {}
        """
        if not self.teachers:
            return replace(self, methods=dict(methods))
        parts = {label: teacher_and_method(label) for label in methods}
        teachers = {
            name: replace(
                teacher,
                methods={own: methods[label] for label, (of, own) in parts.items() if of == name},
            )
            for name, teacher in self.teachers.items()
        }
        return replace(self, teachers=teachers)

    def with_teacher(self, network: Network) -> "Recipe":
        """Return the recipe with one network in the place of all teachers, methods and banks."""
        return replace(self, teacher=network, methods={}, bank=Bank(), teachers={})

    def with_banks(self, change: Callable[[Bank], Bank]) -> "Recipe":
        """Return the recipe with the bank of each teacher changed by a function."""
        teachers = {
            name: replace(teacher, bank=change(teacher.bank))
            for name, teacher in self.teachers.items()
        }
        return replace(self, bank=change(self.bank), teachers=teachers)

    def alone(self, name: str) -> "Recipe":
        """Return the recipe of one teacher by its name in `each_teacher`, as if it had no other.

        >>> several = Recipe(teachers={"dino": OneTeacher("resnet50", methods={"kd": {}})})
        >>> several.alone("dino").teacher.name, several.alone("dino").methods
        ('resnet50', {'kd': {}})
        """
        if not name:
            return self
        one = self.teachers[name]
        network = Network(**_keys_of_network(one))
        return replace(self, teacher=network, methods=one.methods, bank=one.bank, teachers={})


def _keys_of_network(network: Network) -> dict[str, Any]:
    """Return the keys that every network has, without those of a teacher among several."""
    return {each.name: getattr(network, each.name) for each in fields(Network)}


def labelled(teacher: str, method: str) -> str:
    """Return the label of a teacher's method among those of all teachers: `dino/kd`, or `kd`."""
    return f"{teacher}/{method}" if teacher else method


def teacher_and_method(label: str) -> tuple[str, str]:
    """Return the name of the teacher and the method's label among its own; see `labelled`.

    >>> teacher_and_method("dino/kd"), teacher_and_method("kd")
    (('dino', 'kd'), ('', 'kd'))
    """
    teacher, _, method = label.rpartition("/")
    return teacher, method


def key_of(teacher: str) -> str:
    """Return the key of a teacher in a recipe: `teachers.dino`, or `teacher`."""
    return f"teachers.{teacher}" if teacher else "teacher"


def key_of_bank(teacher: str) -> str:
    """Return the key of a teacher's bank in a recipe: `teachers.dino.bank`, or `bank`."""
    return f"{key_of(teacher)}.bank" if teacher else "bank"


def key_of_method(label: str) -> str:
    """Return the key of a method in a recipe: `teachers.dino.methods.kd`, or `methods.kd`."""
    teacher, method = teacher_and_method(label)
    return f"{key_of(teacher)}.methods.{method}" if teacher else f"methods.{method}"


def _dotted(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every override; a mapping is entered where a recipe has a group."""
    groups = {path.rpartition(".")[0] for path, _, _ in leaves(Recipe)} - {""}
    for key, value in overrides.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path in groups:
            yield from _dotted(value, f"{path}.")
        else:
            yield path, value


def _flatten(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@cache
def _of_papers() -> Recipe:
    return Recipe.read(PAPERS)


def without_methods(recipe: Recipe) -> Recipe:
    """Return the control of a recipe: same student, data and budget, without methods."""
    return recipe.with_methods({})
