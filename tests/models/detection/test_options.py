"""Options of detectors have limits, which torchvision itself hardly checks."""

from typing import Any

import pytest

from understudy.errors import RecipeError
from understudy.models.detection.families import check_values

NAN = float("nan")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("min_size", -5), ("min_size", "x"), ("min_size", [0]), ("max_size", 1e9), ("size", 0)),
        *(("size", [300]), ("backbone", 5), ("backbone_weights", True), ("trainable_layers", -1)),
        *(("image_mean", [NAN] * 3), ("image_std", [0, 1, 1]), ("channels", 0), ("widths", [-1])),
        *(("box_score_thresh", NAN), ("nms_thresh", 2), ("rpn_positive_fraction", -1)),
        *(("detections_per_img", 0), ("rpn_pre_nms_top_n_test", "2000"), ("topk_candidates", 0.5)),
        ("box_batch_size_per_image", -1),
    ],
)
def test_an_option_out_of_its_limits_is_refused(option: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"options.{option}"):
        check_values({option: value})


def test_published_and_unknown_options_are_taken() -> None:
    check_values(
        {
            "min_size": [640, 800],
            "max_size": 1333,
            "size": (320, 320),
            "image_std": None,
            "rpn_nms_thresh": 0.7,
            "box_detections_per_img": 100,
            "mine": object(),
        }
    )
