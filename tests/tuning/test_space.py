"""The space of a search, and the trials that are suggested from it."""

import pytest

from understudy import methods
from understudy.config.recipe import Recipe
from understudy.distillation.wire import check_methods
from understudy.errors import RecipeError
from understudy.tuning.rungs import epochs_to_train, promoted, rungs
from understudy.tuning.space import candidate
from understudy.tuning.suggest import Scored, Suggestions

RECIPE = Recipe.from_dict({"student": "resnet8", "teacher": "resnet14"})


def test_numbers_are_searched_around_their_published_values() -> None:
    knobs = {knob.path: knob for knob in candidate(RECIPE, "kd").knobs}
    assert list(knobs) == ["kd.weight", "kd.temperature"]
    weight = knobs["kd.weight"]
    assert (weight.low, weight.published, weight.high) == pytest.approx((0.09, 0.9, 9.0))
    assert weight.log
    assert str(knobs["kd.temperature"]) == "kd.temperature 1 to 16, log (published 4)"


def test_the_recipe_sets_the_centre_and_labels_their_method() -> None:
    keys = {"mine": {"method": "kd", "weight": 5, "temperature": 2.0}}
    of_label = candidate(Recipe.from_dict({**RECIPE.to_dict(), "methods": keys}), "mine+nd")
    assert of_label.methods["mine"] == {"method": "kd", "weight": 5, "temperature": 2.0}
    assert not any(knob.whole for knob in of_label.knobs)
    assert {knob.path for knob in of_label.knobs} >= {"mine.weight", "nd.weight", "nd.step"}
    changed = of_label.with_values({"mine.weight": 3.0})
    assert changed["mine"] == {"method": "kd", "weight": 3.0, "temperature": 2.0}


def test_a_weight_that_rises_is_refused() -> None:
    keys = {"kd": {"weight": {"value": 1.0, "warmup_epochs": 2}}}
    with pytest.raises(RecipeError, match="rises over epochs"):
        candidate(Recipe.from_dict({**RECIPE.to_dict(), "methods": keys}), "kd")


@pytest.mark.parametrize("name", methods.names())
def test_the_ends_of_every_range_are_allowed(name: str) -> None:
    one = candidate(RECIPE, name)
    assert one.knobs
    for ends in ({x.path: x.low for x in one.knobs}, {x.path: x.high for x in one.knobs}):
        recipe = Recipe.from_dict({**RECIPE.to_dict(), "methods": one.with_values(ends)})
        check_methods(recipe)
    assert all(x.low <= x.published <= x.high for x in one.knobs)


def suggested(count: int, *, seed: int = 0) -> list[Scored]:
    """Trials of two methods, scored by how near the weight of kd is to 3."""
    of_two = Suggestions([candidate(RECIPE, "kd"), candidate(RECIPE, "dist")], seed=seed)
    trials: list[Scored] = []
    while len(trials) < count:
        name, values, _ = of_two.next(trials)
        score = None if len(trials) == 4 else -abs(values.get("kd.weight", 9.0) - 3.0)
        trials.append((name, values, score))
    return trials


def test_trials_begin_as_published_and_are_the_same_again() -> None:
    trials = suggested(11)
    assert [name for name, _, _ in trials[:2]] == ["kd", "dist"]
    assert trials[0][1] == {"kd.weight": 0.9, "kd.temperature": 4.0}
    assert suggested(11) == trials
    assert suggested(11, seed=1)[2:] != trials[2:]
    assert len({str(values) for _, values, _ in trials}) == 11


@pytest.mark.parametrize(
    ("epochs", "at"), [(240, (27, 81, 240)), (30, (4, 12, 30)), (3, (1, 3)), (1, (1,))]
)
def test_rungs_are_multiples_of_the_first(epochs: int, at: tuple[int, ...]) -> None:
    assert rungs(epochs) == at
    assert all(step % at[0] == 0 for step in at[:-1])


def test_a_third_goes_on() -> None:
    assert [promoted(count) for count in (1, 3, 4, 20)] == [1, 1, 2, 7]
    beyond = 7 * 54 + 3 * 159
    assert epochs_to_train(20, (27, 81, 240)) == 20 * 27 + beyond
    assert epochs_to_train(20, (27, 81, 240), begun=20) == beyond
