"""Without a connection: one sentence within seconds, with the cause and where to put the file."""

import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from understudy import models
from understudy.config.downloads import from_hub, unreachable
from understudy.data.sources import hf
from understudy.errors import DataError, NetworkError
from understudy.models import detection

NOWHERE = "http://127.0.0.1:9"
"""A port at which nobody answers."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub answers, and nothing is cached."""
    from huggingface_hub import constants

    for key in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(key, raising=False)
        monkeypatch.setenv(key.upper(), NOWHERE)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


NETWORKS = {
    "timm:test_resnet": "model.safetensors) and give that file as --student.weights FILE",
    "hf-hub:timm/resnet18.a1_in1k": "timm:local-dir:FOLDER",
    "torchvision:squeezenet1_1": "/checkpoints, or give it as --student.weights FILE",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_a_network(
    name: str, offline: None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NetworkError) as refused:
        models.find(name, num_classes=None, weights="pretrained")
    sentence = str(refused.value)
    assert NETWORKS[name] in sentence
    assert "refused" in sentence, "the cause"
    assert "Retry" not in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "squeezenet1_1"])
def test_weights_of_a_backbone(backbone: str, offline: None) -> None:
    options = {"backbone": backbone, "backbone_weights": "pretrained", "size": 64, "extra": []}
    with pytest.raises(NetworkError, match=r"Where there is (one|a connection), download"):
        detection.find("ssd", num_classes=2, options=options)


def test_a_data_set(offline: None, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="hf download owner/images --repo-type dataset") as refused:
        hf.load("owner/images", "train")
    assert "neither a folder nor in the cache" in str(refused.value)
    assert "Retry" not in caplog.text


def test_the_hub_is_tried_again_afterwards(offline: None) -> None:
    from huggingface_hub import constants

    with from_hub() as reason:
        assert "refused" in reason
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_data_sets_stay_offline_where_the_user_wants_that(
    offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = ModuleType("datasets.config")
    config.HF_HUB_OFFLINE = True
    monkeypatch.setitem(sys.modules, "datasets.config", config)
    with from_hub() as reason:
        assert "refused" in reason
    assert config.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for key in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(key, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert unreachable(address) == ""
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with from_hub() as reason:
            assert reason == ""
            assert not constants.HF_HUB_OFFLINE
    assert "refused" in unreachable(address)
