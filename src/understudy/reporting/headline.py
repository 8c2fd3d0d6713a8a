"""The headline of a report: the most important result in one sentence, and a second one below."""

from understudy.experiment.splits import best_sentence
from understudy.experiment.teacher_warning import teacher_warning
from understudy.reporting.columns import name
from understudy.reporting.measured_images import measured_images
from understudy.reporting.results import Results

VERDICTS = {
    "gain": "significantly better",
    "no gain": "no significant difference",
    "loss": "significantly worse",
    "too few seeds": "too few seeds: no verdict",
}
"""Word of a verdict → how the page puts it, of a method against the control."""


def headline(results: Results) -> tuple[str, str]:
    """Return the headline, and the sentences below it; these may be empty."""
    title, deck = _verdict(results)
    ended = [arm.sentence for arm in results.ended_early]
    sentences = [_warning(results), deck, *ended, _chosen(results)]
    return title, " ".join(filter(None, sentences))


def _chosen(results: Results) -> str:
    """Say which images chose the best epochs; empty if no epoch was chosen."""
    runs = [run for arm in results.arms for run in arm.runs if run.finished]
    best = [run.evaluation["best"] for run in runs if run.evaluation.get("best")]
    if len(runs) == 1:
        return "".join(best_sentence(one, results.metric) for one in best)
    if any(one["chosen_on"] == "test" for one in best):
        return (
            "The test images themselves chose the best epochs (training.best), whose values are "
            "higher than they would be on new images."
        )
    return ""


def _warning(results: Results) -> str:
    """Say that the teacher is too bad to teach; empty if it is not."""
    teacher = results.teacher.values(results.metric) if results.teacher else []
    known = {"control": results.control} if results.control else {}
    known |= {f"student {arm.name}": arm for arm in results.arms if arm.role == "run"}
    values = {who: arm.values(results.metric) for who, arm in known.items()}
    means = {who: sum(xs) / len(xs) for who, xs in values.items() if xs}
    mean = sum(teacher) / len(teacher) if teacher else None
    classes, images = len(results.classes), measured_images(results).count
    return teacher_warning(results.metric, mean, means, classes=classes, images=images)


def _verdict(results: Results) -> tuple[str, str]:
    if not results.judged:
        if words := {arm.word for arm in results.ended_early}:
            return f"The training of every method {' or '.join(sorted(words))}.", ""
        return _without_control(results)
    best, *others = results.judged
    if best.word == "too few seeds":
        return (
            "No verdict: fewer than three seeds cannot tell an effect from chance.",
            best.sentence,
        )
    better = [arm for arm in results.judged if arm.word == "gain"]
    if not better:
        return "No method is significantly better than the control.", best.sentence
    count = f"{len(better)} of {len(others) + 1} methods"
    verb = "is" if len(better) == 1 else "are"
    deck = f"{count} {verb} significantly better than the control." if others else ""
    return better[0].sentence, deck


def _without_control(results: Results) -> tuple[str, str]:
    deck = "Without a control there is no verdict: 'understudy compare' trains one."
    runs = [arm for arm in results.arms if arm.role == "run"]
    if len(runs) > 1:
        return f"{len(runs)} runs side by side.", deck
    (arm,) = runs
    epochs = max((run.history[-1]["epoch"] for run in arm.runs if run.history), default=0)
    value = arm.values(results.metric)
    if not value:
        return f"{arm.name} has not been evaluated yet ({epochs} epochs).", deck
    unit = "epoch" if epochs == 1 else "epochs"
    metric = name(results.metric)
    measured = [run.evaluation.get("split") for run in arm.runs if run.finished]
    where = " on the validation images" if measured == ["validation"] else ""
    return f"{arm.name} reaches {value[0]:.2f} {metric}{where} after {epochs} {unit}.", deck
