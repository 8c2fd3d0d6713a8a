"""A JSON file of another form ends in one sentence that names the file, wherever it is read."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import object_directories
from tests.support.banked_runs import folder_of_images
from tests.support.report_directories import diagnosed, write_comparison, write_run
from understudy.bank import Contract, Table
from understudy.comparison.compare import compare
from understudy.comparison.result import Comparison
from understudy.config.json_form import check_form
from understudy.config.recipe import Recipe
from understudy.data.decoded import DecodedSource
from understudy.data.source import MemorySource
from understudy.data.sources import folder
from understudy.errors import BankError, DataError, RunError, UnderstudyError
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.reporting import report, terminal_table
from understudy.reporting.charts.confusion import confusions
from understudy.reporting.charts.differences import changes
from understudy.reporting.charts.feature_geometry import feature_geometry
from understudy.reporting.charts.precision_recall import precision_recall
from understudy.reporting.charts.samples import samples
from understudy.reporting.collect import of_runs
from understudy.reporting.columns import columns
from understudy.reporting.headline import headline

WRONG: tuple[Any, ...] = (None, 7, "x", [], [[1]], {}, {"a": 1}, True)

ENDS: tuple[Any, ...] = ((7, [90, 70]), ("a", None), ("a", [90]), ("a", ["x", "y"]), ("a", 7))
"""Wrong digests of contents and sizes, at the end of an entry about an image."""


@pytest.mark.parametrize(
    ("content", "form", "words"),
    [
        ({"a": 1}, {"a": int, "b?": str}, ""),
        ({"a": 1, "c": None}, {"a": (str, int)}, ""),
        ({"a": 1.5}, {"a": int}, "holds a number as a, not a whole number"),
        ({"a": True}, {"a": float}, "holds true or false as a, not a number"),
        ({"b": 1}, {"a": int, "c": str}, "has no a, c"),
        ([1], {"a": int}, "holds a list, not a group of keys"),
        ({"a": [1, "x"]}, {"a": [int]}, r"holds text as a\[1\], not a whole number"),
        (
            {"a": {"b": {"c": "x"}}},
            {"a": {str: {"c": (float, None)}}},
            "holds text as a.b.c, not a n",
        ),
        ({"a": {"b": 1}}, {"a": ({"c": int}, None)}, "has no a.c"),
        (None, (int, None), ""),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: Any, form: Any, words: str) -> None:
    if not words:
        check_form(content, form, "file.json", remedy="repair it")
        return
    with pytest.raises(RunError, match=rf"^file\.json {words}.*; repair it\.$"):
        check_form(content, form, "file.json", remedy="repair it")


def outcome_of(use: Callable[[], object], file: Path) -> str:
    """What came of a damaged file: nothing, or a sentence that names it."""
    try:
        use()
    except UnderstudyError as error:
        return "refused" if str(file) in str(error) else f"it says {error}"
    return "read"


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    write_comparison(
        tmp_path, arms=("control", "kd"), seeds=1, epochs=2, diagnostics=diagnosed(projects=True)
    )
    return tmp_path


@pytest.mark.parametrize("name", ["evaluation.json", "diagnostics.json", "environment.json"])
def test_a_file_of_a_run(compared: Path, name: str) -> None:
    file = compared / "kd" / "seed0" / name
    text, run = file.read_text(), Run(file.parent)
    content, seen = json.loads(text), set()

    def read() -> object:
        return of_runs([run]), run.diagnostics

    damaged = [*WRONG, *({**content, key: wrong} for key in content for wrong in ([], 7, {"a": 1}))]
    for wrong in damaged:
        file.write_text(json.dumps(wrong))
        seen.add(outcome_of(read, file))
    assert seen == {"refused", "read"}
    for broken in (b"", text.encode()[:-9], b"\xff\xfe\x00", b"[" * 100_000):
        file.write_bytes(broken)
        assert outcome_of(lambda: report(file.parent), file) == "refused"


def test_the_record_of_an_epoch(compared: Path) -> None:
    file = compared / "kd" / "seed0" / "metrics.jsonl"
    first, last = file.read_text().splitlines()
    for wrong in WRONG:
        file.write_text(f"{json.dumps(wrong)}\n{last}\n")
        with pytest.raises(RunError, match=r"^Line 1 of .*metrics\.jsonl.*; remove that line, or"):
            report(file.parent)
    file.write_text(f"{first}\n{last[:20]}")
    assert len(Run(file.parent).history) == 1


def test_a_comparison(compared: Path, tiny: Recipe) -> None:
    file = compared / "comparison.json"
    content = json.loads(file.read_text())
    arm = content["arms"][1]
    damaged = [*WRONG, *({**content, key: wrong} for key in content for wrong in (7, {"a": 1}))]
    damaged += [{k: v for k, v in content.items() if k != key} for key in content]
    for key in arm:
        for wrong in (7, {"a": 1}, [], [1, 2]):
            damaged.append({**content, "arms": [content["arms"][0], {**arm, key: wrong}]})
    readings = (Comparison.load, terminal_table, report, lambda p: compare(tiny, out=p))
    for wrong in damaged:
        file.write_text(json.dumps(wrong))
        outcomes = {outcome_of(lambda r=r: r(compared), file) for r in readings[:2]}
        assert outcomes in ({"refused"}, {"read"})
    file.write_text("[]")
    for read in readings:
        assert outcome_of(lambda r=read: r(compared), file) == "refused"


def test_a_run_that_goes_on(tiny: Recipe, tmp_path: Path) -> None:
    train(tiny, out=tmp_path)
    (tmp_path / "evaluation.json").unlink()
    for wrong in ({}, {"digests": []}, {"digests": {}}, {"digests": {"teacher": 7}}, [], 3):
        (tmp_path / "environment.json").write_text(json.dumps(wrong))
        with pytest.raises(RunError, match=r"environment\.json|changed since"):
            train(tiny, out=tmp_path, resume=True)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_manifest(tmp_path: Path, wrong: Any) -> None:
    contract = Contract("t", "i", "fp32", "x", "v", 5, 3, {"logits": (4,)})
    Table(tmp_path / "bank", contract)
    (tmp_path / "bank" / "manifest.json").write_text(json.dumps(wrong))
    with pytest.raises(BankError, match=r"manifest\.json .*; delete the bank"):
        Table(tmp_path / "bank", contract)
    images = MemorySource(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2), ("a",))
    DecodedSource(images, tmp_path / "decoded")
    (tmp_path / "decoded" / "manifest.json").write_text(json.dumps(wrong))
    with pytest.raises(DataError, match=r"decoded.*[Dd]elete "):
        DecodedSource(images, tmp_path / "decoded")


@pytest.mark.parametrize("sides", [np.zeros(3), np.zeros((2, 2)), np.ones((9, 2), np.int64)])
def test_sides_of_other_images(tmp_path: Path, sides: Any) -> None:
    images = MemorySource(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2), ("a",))
    DecodedSource(images, tmp_path / "decoded")
    np.save(tmp_path / "decoded" / "sides.npy", sides)
    with pytest.raises(DataError, match=r"sides\.npy is damaged \(it holds no sides of 2 images"):
        DecodedSource(images, tmp_path / "decoded")


def test_notes_about_images_are_made_again(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "images", train=2, test=2)
    whole = folder.load(str(root), "train").images_digest
    notes = root / ".understudy-check.json"
    content = json.loads(notes.read_text())
    entries: list[Any] = [
        [*entry[:-2], *end] for entry in list(content.values())[:1] for end in ENDS
    ]
    for wrong in [*WRONG, *(dict.fromkeys(content, entry) for entry in (*WRONG, *entries))]:
        notes.write_text(json.dumps(wrong))
        assert folder.load(str(root), "train").images_digest == whole


def lists_in(content: Any, place: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Lists of a JSON file; those in the items of a list have its place."""
    inner = content.items() if isinstance(content, dict) else ()
    inner = [("*", x) for x in content] if isinstance(content, list) else inner
    if isinstance(content, list) and content:
        yield place, content
    for key, value in inner:
        yield from lists_in(value, f"{place}.{key}")


def charts(run: Path) -> object:
    """All that a report computes, without its drawings."""
    results = of_runs([Run(run)])
    parts = (feature_geometry, confusions, samples, precision_recall, changes, headline, columns)
    return [part(results) for part in parts]


TEMPLATES = {
    "method": "letkd",
    "images": ["a", "b"],
    "places": {"last": {"student": [[[0, 1], [2, 3]]] * 2, "teacher": None, "agreement": None}},
}


@pytest.mark.parametrize("kind", ["classification", "detection", "multilabel"])
def test_lists_that_are_cut_are_noticed(tmp_path: Path, kind: str) -> None:
    """Each list loses its last item: the report is made, or one sentence names the file."""
    if kind == "classification":
        more = {"confusion": [[5, 1], [2, 6]], "templates": TEMPLATES}
        write_run(
            tmp_path / "run", epochs=2, classes=2, diagnostics=diagnosed(projects=True) | more
        )
    else:
        object_directories.write_run(tmp_path / "run", kind, 0.2, 1)
    outcomes = dict[str, str]()
    for name in ("diagnostics.json", "evaluation.json"):
        file = tmp_path / "run" / name
        text = file.read_text()
        for place in dict(lists_in(json.loads(text))):
            content = json.loads(text)
            dict(lists_in(content))[place].pop()
            file.write_text(json.dumps(content))
            outcomes[place] = outcome_of(lambda: charts(tmp_path / "run"), file)
        file.write_text(text)
    assert set(outcomes.values()) == {"refused", "read"}
    # What may be shorter: fewer entries, boxes, or recalls that are reached.
    shorter = {place for place, outcome in outcomes.items() if outcome == "read"}
    assert all(re.fullmatch(r"\.(projectors|precision|scenes)(\.\*\.\w+)?", p) for p in shorter)
