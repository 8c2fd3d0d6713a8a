"""A Mac's GPU is chosen where there is one, and what it lacks is said in a sentence."""

import pytest
import torch

from understudy.comparison.jobs.count import choose
from understudy.distillation.device_names import find_device
from understudy.errors import RecipeError
from understudy.training.missing_operations import missing_operations_explained


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_the_gpu_of_a_mac_is_chosen(mac: None) -> None:
    assert find_device(None).type == "mps"
    assert find_device("mps").type == "mps"
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            NotImplementedError(
                "The operator 'aten::_ctc_loss' is not currently implemented for the MPS device. "
                "If you want this op to be considered for addition please comment on …"
            ),
            r"\(mps\) has no aten::_ctc_loss.*PYTORCH_ENABLE_MPS_FALLBACK=1.*--device cpu",
        ),
        (
            TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support "
                "float64. Please use float32 instead."
            ),
            r"\(mps\) has no numbers in float64.*--device cpu",
        ),
    ],
)
def test_what_it_lacks_is_said(error: Exception, words: str) -> None:
    with pytest.raises(RecipeError, match=words), missing_operations_explained():
        raise error


@pytest.mark.parametrize("error", [TypeError("an integer is required"), RuntimeError("CUDA error")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), missing_operations_explained():
        raise error


def test_one_run_at_a_time_on_it(mac: None) -> None:
    from understudy.comparison.arms import Needs

    count = choose(None, None, Needs(macs=1, bytes=1), device=None, runs=[])
    assert (count.jobs, list(count.gpus)) == (1, [])
    assert "on the GPU of this Mac" in count.reason
