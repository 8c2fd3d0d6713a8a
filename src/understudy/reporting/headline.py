"""The one sentence a reader takes away, and the one below it."""

from understudy.reporting.columns import name
from understudy.reporting.results import Results


def headline(results: Results) -> tuple[str, str]:
    """The verdict of the whole page, and what has to be said with it."""
    title, deck = _verdict(results)
    broken = [str((arm.verdict or {})["sentence"]) for arm in results.diverged]
    return title, " ".join([deck, *broken]).strip()


def _verdict(results: Results) -> tuple[str, str]:
    if not results.judged:
        if results.diverged:
            return "No method survived its training.", ""
        return _without_control(results)
    best, *others = results.judged
    sentences = {arm.name: str((arm.verdict or {})["sentence"]) for arm in results.judged}
    words = {arm.name: (arm.verdict or {})["word"] for arm in results.judged}
    if words[best.name] == "one seed":
        return "No verdict yet: one seed cannot tell a method from luck.", sentences[best.name]
    winners = [arm for arm in results.judged if words[arm.name] == "gain"]
    if not winners:
        return "No method was shown to beat the control.", sentences[best.name]
    deck = f"{len(winners)} of {len(others) + 1} methods beat the control." if others else ""
    return sentences[winners[0].name], deck


def _without_control(results: Results) -> tuple[str, str]:
    deck = "There is no verdict without a control: 'understudy compare' trains one beside it."
    if len(results.arms) > 1:
        return f"{len(results.arms)} runs side by side.", deck
    (arm,) = results.arms
    epochs = max((run.history[-1]["epoch"] for run in arm.runs if run.history), default=0)
    value = arm.values(results.metric)
    if not value:
        return f"{arm.name} has not been evaluated yet ({epochs} epochs).", deck
    unit = "epoch" if epochs == 1 else "epochs"
    metric = name(results.metric)
    return f"{arm.name} reaches {value[0]:.2f} {metric} after {epochs} {unit}.", deck
