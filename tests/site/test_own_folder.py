"""The steps for a folder of images end with a plain student, which timm loads."""

import torch

from tests.site.conftest import Reader
from tests.site.page_blocks import blocks
from tests.support.processes import Fresh
from tests.support.trained_students import COUNTS, NAMES
from understudy import Run, models

PAGE = "docs/own_folder.md"
FORWARD = """
import torch
from pathlib import Path
from PIL import Image

files = sorted(Path("my_images/test").rglob("*.png"))
images = torch.stack([transform(Image.open(file)) for file in files])
with torch.no_grad():
    torch.save((images, network(images), list(classes)), "logits.pt")
"""
"""Follows the last step: computes the logits of all test images."""


def test_the_student_is_the_one_that_was_measured(reader: Reader) -> None:
    place = reader(PAGE)
    (script,) = (block.code for block in blocks(PAGE) if block.kind == "python")
    without = "import sys; sys.modules['understudy'] = None"
    Fresh("-c", f"{without}\n{script}\n{FORWARD}", folder=place).finish()
    images, logits, classes = torch.load(place / "logits.pt")
    assert classes == sorted(NAMES)
    # The state of the run holds the embedding layer that the student's file has folded in.
    run = Run.open(place / "runs" / "mine" / "lshfm" / "seed0")
    state, count = str(run.path / "last"), len(NAMES)
    trained = models.find("timm:test_efficientnet", num_classes=count, weights=state).module.eval()
    torch.testing.assert_close(logits, trained(images))
    assert torch.equal(logits, run.student()(images))
    correct = logits.argmax(1) == torch.arange(count).repeat_interleave(COUNTS["test"])
    assert "".join(str(int(x)) for x in correct) == run.outcomes["correct"]
    assert run.config.verdict
