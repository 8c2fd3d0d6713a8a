"""What an old torch exports wrongly is refused."""

import pytest
import torch
from torch.torch_version import TorchVersion

from understudy.deployment.export.graph import Prepared
from understudy.errors import NetworkError
from understudy.experiment.student_file.config import Preprocessing

STEPS = Preprocessing(resize=36, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("release", ["2.6.0", "2.7.1+cu126"])
def test_the_shorter_side_is_not_exported_before_torch_2_8(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(release))
    with pytest.raises(NetworkError, match=r"install torch 2\.8 or newer"):
        Prepared(STEPS, bytes=True)
    Prepared(Preprocessing(resize=32, crop=32, squash=True, mean=(0.5,), std=(0.5,)), bytes=True)


@pytest.mark.parametrize("release", ["2.8.0", "2.14.1"])
def test_it_is_exported_from_torch_2_8_on(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(release))
    Prepared(STEPS, bytes=True)
