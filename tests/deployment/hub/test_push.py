"""Exported folders are pushed to a stand-in of the hub, and come back as teachers."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import understudy
from tests.deployment.hub.test_card import CONFIG
from tests.support.hub import OWNER, TOKEN, Hub, served
from tests.support.processes import Fresh
from understudy.config.recipe import Network
from understudy.deployment.hub.card import write_card
from understudy.deployment.hub.push import _files
from understudy.experiment.student_file.config import Preprocessing

Command = Callable[..., "subprocess.CompletedProcess[str]"]

NAME = "resnet10t"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with served() as running:
        yield running


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An exported folder of a small network of timm."""
    folder = tmp_path / "exported"
    folder.mkdir()
    torch.manual_seed(0)
    network = timm.create_model(NAME, num_classes=3)
    pretrained = {
        **{"input_size": [3, 32, 32], "num_classes": 3, "license": "mit"},
        **{"mean": [0.5] * 3, "std": [0.5] * 3, "label_names": ["a", "b", "c"]},
        **{"first_conv": "conv1.0", "classifier": "fc", "interpolation": "bilinear"},
    }
    known = {"architecture": NAME, "num_features": network.num_features}
    steps = Preprocessing(resize=36, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    config = replace(
        CONFIG,
        **{"num_classes": 3, "classes": ("a", "b", "c"), "preprocessing": steps},
        timm={**known, "pretrained_cfg": pretrained},
        network=Network(name=f"timm:{NAME}"),
        teacher={**(CONFIG.teacher or {}), "weights": "/home/me/runs/teacher"},
    )
    config.write(folder)
    save_file(network.state_dict(), folder / "model.safetensors")
    write_card(folder, config)
    (folder / "notes.docx").write_bytes(b"mine")
    (folder / ".hidden.json").write_bytes(b"{}")
    return folder


@pytest.fixture
def command(hub: Hub, tmp_path: Path) -> Command:
    """Runs a program in a process of its own, for which the stand-in is the hub."""

    def run(
        *words: str, program: str = COMMAND, token: str = TOKEN, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
        own |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        process = Fresh("-c", FORGET + program, *words, environment={**own, **variables})
        return subprocess.CompletedProcess(words, process.wait(), process.out, process.err)

    return run


FORGET = """
import sys
for name in [name for name in sys.modules if name.startswith(("huggingface_hub", "timm"))]:
    del sys.modules[name]
"""
"""The hub is read from the environment when these are imported, which a fork has done already."""
COMMAND = "import runpy; runpy.run_module('understudy', run_name='__main__', alter_sys=True)"

PULL = """
import sys, torch
from understudy import models
network = models.find("hf-hub:" + sys.argv[1], weights="pretrained", classes_from_weights=True)
assert network.num_classes == 3 and network.input.size == 32, network.input
torch.save(network.module.state_dict(), sys.argv[2])
"""


def test_a_pushed_student_comes_back_as_a_teacher(
    hub: Hub, command: Command, exported: Path, tmp_path: Path
) -> None:
    done = command("push", str(exported), f"{OWNER}/small", "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{hub.endpoint}/{OWNER}/small: README.md, config.json, model.safetensors" in done.stdout
    assert (
        "left out, as the last export did not write them: .hidden.json, notes.docx" in done.stdout
    )
    assert hub.private == {f"{OWNER}/small"}
    pushed = hub.repositories[f"{OWNER}/small"]
    assert set(pushed) == {"README.md", "config.json", "model.safetensors"}
    for name in ("README.md", "model.safetensors"):
        assert pushed[name] == (exported / name).read_bytes()
    config = json.loads(pushed["config.json"])["understudy"]
    assert config == json.loads((exported / "config.json").read_text())["understudy"] | {
        key: config[key] for key in ("network", "teacher", "initial", "data")
    }
    assert "/" not in config["teacher"]["weights"] + config["initial"].get("weights", "")
    assert b"license: apache-2.0" in pushed["README.md"]

    pulled = command(f"{OWNER}/small", str(tmp_path / "pulled.pth"), program=PULL)
    assert pulled.returncode == 0, pulled.stderr
    torch.manual_seed(0)
    expected = timm.create_model(NAME, num_classes=3).state_dict()
    for name, weight in torch.load(tmp_path / "pulled.pth", weights_only=True).items():
        assert torch.equal(weight, expected[name])


def push(folder: Path, repository: str, licence: str = "") -> None:
    from understudy.deployment.hub.push import push

    push(folder, repository, licence=licence)


def test_a_missing_licence_is_asked_for(hub: Hub, command: Command, exported: Path) -> None:
    write_card(exported, replace(CONFIG, teacher={**(CONFIG.teacher or {}), "license": None}))
    asked = len(hub.asked)
    with pytest.raises(understudy.UnderstudyError, match=r"names no licence.*--license"):
        push(exported, f"{OWNER}/unlicensed")
    assert len(hub.asked) == asked
    words = ["push", str(exported), f"{OWNER}/licensed", "--license", "cc-by-nc-4.0"]
    done = command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert b"license: cc-by-nc-4.0" in hub.repositories[f"{OWNER}/licensed"]["README.md"]


@pytest.mark.parametrize(
    ("token", "variables", "words"),
    [
        ("hf_wrong", {}, "does not know your token: run `hf auth login`"),
        (TOKEN, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (TOKEN, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "The hub cannot be reached"),
    ],
)
def test_what_went_wrong_is_said(
    command: Command, exported: Path, token: str, variables: dict[str, str], words: str
) -> None:
    arguments = ("push", str(exported), f"{OWNER}/other")
    done = command(*arguments, token=token, **variables)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_files_of_an_earlier_export_stay_where_they_are(exported: Path) -> None:
    """What `export.json` does not name may be of another student than the card."""
    written = {"files": {"hub": "model.safetensors"}, "parity": {}, "int8": None, "speeds": None}
    (exported / "export.json").write_text(json.dumps(written))
    for name in ("student_int8.onnx", "student.safetensors"):
        (exported / name).write_bytes(b"of another student")
    write_card(exported, CONFIG)
    assert "student.safetensors" not in (exported / "README.md").read_text()
    kept, left_out = _files(exported)
    assert kept == ["README.md", "config.json", "export.json", "model.safetensors"]
    assert {"student_int8.onnx", "student.safetensors"} < set(left_out)
    (exported / "model.safetensors").unlink()
    with pytest.raises(understudy.UnderstudyError, match="has no weights"):
        push(exported, f"{OWNER}/earlier")


def test_what_is_no_export_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(understudy.UnderstudyError, match="does not exist"):
        push(tmp_path / "missing", "me/x")
    (exported / "README.md").unlink()
    (exported / "metrics.jsonl").touch()
    with pytest.raises(
        understudy.UnderstudyError, match=r"has no README.md.*understudy export .*exported --to hub"
    ):
        push(exported, "me/x")


@pytest.mark.parametrize("name", ["a/b/c", "me/a b", "-x", "me/..", ""])
def test_a_name_that_no_repository_has_is_refused(exported: Path, name: str) -> None:
    with pytest.raises(understudy.UnderstudyError, match="is no name of a repository"):
        push(exported, name)
