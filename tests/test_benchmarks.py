"""The benchmarks are a program like any other: every part of ours measures something in seconds."""

import json
import runpy
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    bank_scale,
    clock,
    deployment,
    detection,
    fidelity,
    first,
    int8_latency,
    pairs,
    peers,
    reading,
    run,
    steps,
)

PEER = """
import torch
import helper
weight = torch.nn.Parameter(torch.zeros(2))
optimizer = torch.optim.SGD([weight], lr=1)
for step in range(3):
    weight.grad = torch.ones(2)
    optimizer.step()
    helper.done.append(step)
    print(step)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything."""
    monkeypatch.setattr(reading, "IMAGES", 50)
    monkeypatch.setattr(reading, "VIEWS", 4)
    monkeypatch.setattr(reading, "FILES", 8)
    monkeypatch.setattr(steps, "METHODS", {"kd": {"kd": {}}})
    monkeypatch.setattr(fidelity, "STEPS", 2)
    monkeypatch.setattr(fidelity, "IMAGES", 160)
    monkeypatch.setattr(fidelity, "SEEDS", (0,))


def test_a_ratio_is_that_of_turns_in_one_round() -> None:
    figure = clock.ratio({0: 2.0, 1: 8.0, 2: 6.0, 5: 9.0}, {0: 1.0, 1: 2.0, 2: 2.0})
    assert figure == {"low": 2.5, "median": 3.0, "high": 3.5}


def test_seldom_variants_take_fewer_turns() -> None:
    turns = clock.interleaved({"a": iter(range(99)), "b": iter(range(99))}, 7, seldom=("b",))
    assert list(turns["a"]) == list(range(7))
    assert list(turns["b"]) == [0, 3, 6]


def test_steps() -> None:
    found = steps.measure(1, [pairs.SMALL])[str(pairs.SMALL)]
    for how in ("fp32", "best"):
        assert set(found[how]["bank"]) == {"kd"}
        assert found[how]["online over alone"]["median"] > 1


def test_first_run() -> None:
    assert 0 < first.share(2, steps=2) <= 1


def test_reading() -> None:
    assert reading.measure(1)["bank over files"]["median"] > 1


def test_fidelity() -> None:
    found = fidelity.measure(1, lesson=500)["variants"]
    assert found["live again"] == found["bank fp32"] == {"weights": 0.0, "loss": 0.0}
    assert 0 < found["bank fp16"]["weights"] < found["stale"]["weights"]


def test_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "STUDENT", "resnet18")
    monkeypatch.setattr(detection, "TEACHER", "resnet18")
    monkeypatch.setattr(detection, "SIDE", 96)
    monkeypatch.setattr(detection, "PROPOSALS", 8)
    monkeypatch.setattr(clock, "WARM_UP", 0)
    found = detection.measure(1)
    assert set(found["added %"]) == {"fp32", "bf16"}
    whole = found["parts"]["ms"]["teacher"]["median"]
    assert 0 < found["parts"]["ms"]["pooling"]["median"] < whole
    assert 0.9 < found["rows in bf16"]["smallest cosine"] <= 1.001


@pytest.fixture
def peer(tmp_path: Path) -> Callable[[], peers.Program]:
    """A program of three steps, in a checkout with a module of its own."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "train.py").write_text(PEER)
    (tmp_path / "checkout" / "helper.py").write_text("done = []")
    script = tmp_path / "checkout" / "train.py"
    return lambda: peers.Program(script, [], modules=(), folder=tmp_path / "work")


def test_a_peer_stands_still_after_every_step(
    peer: Callable[[], peers.Program], capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(sys.modules)
    with closing(peer()) as program, closing(peer()) as other:
        for number in range(3):
            next(program)
            if number == 0:
                next(other)
            # A step of somebody else's optimizer is none of the program's.
            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1).step()
        with pytest.raises(peers.PeerError, match="all its epochs are over"):
            next(program)
    assert "helper" not in set(sys.modules) - before
    assert capsys.readouterr().out == ""


def test_a_peer_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise ValueError('no data')")
    program = peers.Program(tmp_path / "train.py", [], modules=(), folder=tmp_path)
    with closing(program), pytest.raises(peers.PeerError, match="no data"):
        next(program)


@pytest.mark.parametrize("name", peers.names())
def test_every_adapter_has_methods_and_a_program(name: str) -> None:
    adapter = runpy.run_module(f"benchmarks.peers.{name}")
    assert adapter["METHODS"]
    assert callable(adapter["program"])


def test_results_are_kept_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bench.json"
    out.write_text('{"parts": {"input": 1}}')
    monkeypatch.setattr(first, "EPOCHS", (2,))
    run.main(["first", "--out", str(out)])
    kept: dict[str, Any] = json.loads(out.read_text())
    assert set(kept["parts"]) == {"input", "first"}


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["peers", "--peer", "nobody=/"])
    assert "there is no 'nobody'" in capsys.readouterr().err


def test_tables_render(tmp_path: Path) -> None:
    tables = runpy.run_path(str(ROOT / "results" / "tables.py"))
    figure = {"low": 1.0, "median": 1.004, "high": 1.1}
    step = {"bank": {"kd": figure, "nd": {**figure, "median": 1.02}}, "online": figure}
    faster = {what: {"peer": "kd", **figure, "median": 2.614} for what in tables["COMPARED"]}
    content = {
        "machine": "one core",
        "batch": 64,
        "peers": {"repdistiller": "b84f547"},
        "parts": {
            "steps": {"t → s": {"fp32": step, "best": step}},
            "peers": {"t → s": {"fastest": {"fp32": faster, "best": faster}}},
        },
    }
    table, origin = tables["ratios"](content)
    assert "| t → s | 1.00 – 1.02 |" in table
    assert "2.61 ×" in table
    assert "repdistiller b84f547" in origin
    added = {"l2": figure, "ms": {"alone": {**figure, "median": 2400.0}}}
    content["parts"]["detection"] = {"added %": {"fp32": added}}
    assert "| student in fp32 | 2400 | +1.0 % |" in tables["ratios"](content)[0]


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/deploy.md"])
def test_the_tables_of_a_page_are_those_of_the_measurements(page: str) -> None:
    tables = runpy.run_path(str(ROOT / "results" / "tables.py"))
    assert ROOT / page in tables["PAGES"]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert tables["BLOCK"].sub(tables["block"], text) == text


def test_every_measurement_has_a_table() -> None:
    tables = runpy.run_path(str(ROOT / "results" / "tables.py"))
    pages = [ROOT / "docs" / name for name in ("results.md", "deploy.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    measured = {path.stem for path in (ROOT / "results").glob("*.json")}
    assert {match[1] for match in tables["BLOCK"].finditer(text)} == measured


def test_measured_times_replace_those_of_their_networks_alone() -> None:
    columns = ["student", "top-1 fp32", *int8_latency.COLUMNS]
    content = {"columns": columns, "rows": [["ResNet-8 of the demo", "79.80", "1", "2", "3"]]}
    measured = {"ResNet-8": dict.fromkeys(int8_latency.COLUMNS, "0.5 / 4 ms"), "ResNet-32": {}}
    (row,) = int8_latency.fill(content, measured)["rows"]
    assert row == ["ResNet-8 of the demo", "79.80", *["0.5 / 4 ms"] * 3]
    assert int8_latency.fill(content, {})["rows"] == content["rows"]
    stored = json.loads((ROOT / "results" / "int8.json").read_text())
    named = {row[0].partition(" ")[0] for row in stored["rows"]}
    assert named == set(int8_latency.networks())


def test_every_pair_is_named_by_flags_of_the_command_line() -> None:
    from understudy.cli.commands import COMMANDS
    from understudy.cli.flags import parse

    for case in deployment.CASES.values():
        words = deployment.DATA[case.data].flags(Path("data"))
        for network in (case.teacher, case.student):
            _, keys = parse(
                COMMANDS["train"], "train", [*words, "--student.name", *deployment.split(network)]
            )
            assert keys["training.epochs"] == deployment.DATA[case.data].epochs
            assert keys["student.name"] == network.partition(" ")[0]


def test_the_table_of_deployment_has_a_row_for_every_result(tmp_path: Path) -> None:
    parity = {"difference": 3.2e-5, "largest": 12.9, "changed": 0, "decisions": 600}
    result = {
        **{"teacher": "timm:a", "student": "timm:b", "methods": "kd", "data": "unseen"},
        **{"images": 600, "teacher_metric": 78.17, "metric": "top1", "reported": 63.5},
        **{"elsewhere": 63.5, "parity": {"onnx": parity}, "seconds": {"distill": 45.2}},
    }
    (tmp_path / "own_module.json").write_text(json.dumps(result))
    *_, row = deployment.table(tmp_path).splitlines()
    assert (
        "| timm:a → timm:b | kd | unseen (600) | 78.17 | top1 63.5 | 63.5 | 3.2e-05 / 12.9 |" in row
    )


def test_the_cost_of_a_bank_is_extrapolated_from_what_was_measured() -> None:
    figure = bank_scale.measure(bank_scale.Case("a", {"x": (6,)}, "int8", images=300))
    assert 4 + 8 + 4 < figure["bytes"] < 24  # scale, padded numbers, checksum; manifest and marker
    assert figure["built_per_second"] > 0 < figure["read_per_second"]
    large = bank_scale.extrapolated(figure | {"bytes": 50.0}, 1_000_000, rate=1000.0)
    assert large["terabytes"] == pytest.approx(50e7 / 1e12)
    assert large["machine_hours"] == pytest.approx(1e7 / 1000 / 3600)
    assert bank_scale.table([figure], 1000.0).count("\n") == 2
