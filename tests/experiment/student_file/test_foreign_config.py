"""`config.json` of somebody else: what it may hold, and the lines that are printed of it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from understudy.config.recipe import Network
from understudy.errors import RunError
from understudy.experiment.student_file.config import FILE, Preprocessing, StudentConfig
from understudy.experiment.student_file.loading_lines import loading_lines

THIRDS = (0.5, 0.5, 0.5)
STEPS = Preprocessing(resize=36, crop=32, mean=THIRDS, std=THIRDS)


def config(name: str = "resnet8", **keys: Any) -> StudentConfig:
    own = {"library": "file" if ".py:" in name else "understudy", "classes": ("a", "b"), **keys}
    return StudentConfig(
        "classification", network=Network(name), preprocessing=STEPS, num_classes=2, **own
    )


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("format", 2, "holds 2 in understudy.format"),
        ("library", "other", "'other' in understudy.library"),
        ("task", "other", "'other' in understudy.task"),
        ("threshold", 1.5, "1.5 in understudy.threshold"),
        ("classes", ["a"], "1 names of 2 classes"),
        ("preprocessing.crop", 0, "a side of 0 pixels"),
        ("preprocessing.reduced", -1, "a side of -1 pixels"),
        ("preprocessing.mean", [0.5], "1 channel means and 3 deviations"),
        ("preprocessing.interpolation", "x())", "in understudy.preprocessing.interpol"),
        ("network.options", {"a=print(1), b": 1}, "the argument 'a=print"),
        ("factory", {"arguments": {"a=print(1), b": 1}}, "the argument 'a=print"),
        ("factory", {"path": "fc", "classifier": "print(1)"}, "'print.1.', which builds no"),
        ("detector", {"features": ".features; print(1)"}, "in understudy.detector.features"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, place: str, value: object, fault: str) -> None:
    content = json.loads(config().to_json())
    *groups, key = place.split(".")
    group = content["understudy"]
    for name in groups:
        group = group[name]
    group[key] = value
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(RunError, match=fault):
        StudentConfig.read(tmp_path)


def test_a_config_is_what_was_written(tmp_path: Path) -> None:
    factory = {"arguments": {}, "path": "", "classifier": "torch.nn.Linear(4, 2, bias=True)"}
    written = config("net.py:net", factory={**factory, "needs_understudy": False})
    written.write(tmp_path)
    assert StudentConfig.read(tmp_path) == written


@pytest.mark.parametrize("file", ["net.py", "my-net.py", "net.v2.py", "class.py"])
def test_a_module_is_loaded_whatever_its_file_is_called(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_text(
        "from torch import nn\ndef net(num_classes):\n    return nn.Linear(4, num_classes)\n"
    )
    student = config(f"{tmp_path / file}:net", factory={"arguments": {"num_classes": 2}})
    lines = loading_lines(student, tmp_path).code
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    defined: dict[str, Any] = {}
    exec(lines[: lines.index("network.load_state_dict")], defined)
    assert isinstance(defined["network"], nn.Linear)
    assert defined["network"].out_features == 2
