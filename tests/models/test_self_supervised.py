"""Published self-supervised checkpoints: names, heads, and teachers without classes."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from understudy import models
from understudy.errors import NetworkError

State = dict[str, Tensor]

RESNET = ("resnet10t", {"stem_width": 8, "channels": (8, 8, 16, 16)})
VIT = ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2})
DINOV2 = ("vit_small_patch14_reg4_dinov2", {**VIT[1], "img_size": 28})
DINOV3 = ("vit_small_patch16_dinov3_qkvb", VIT[1])


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def other(state: State) -> State:
    """Return the checkpoint's second encoder, which must not be loaded."""
    return {key: torch.full_like(value, 9) for key, value in state.items()}


def moco_v1(state: State) -> Any:
    head = {"module.encoder_q.fc.weight": torch.ones(7, 16)}
    both = under("module.encoder_q.", state) | head | under("module.encoder_k.", other(state))
    queue = {"module.queue": torch.ones(7, 5), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 200, "arch": "resnet", "state_dict": both | queue}


def moco_v2(state: State) -> Any:
    head = {f"module.encoder_q.fc.{i}.weight": torch.ones(7, 16) for i in (0, 2)}
    both = under("module.encoder_q.", state) | head | under("module.encoder_k.", other(state))
    return {"state_dict": both}


def moco_v3(state: State) -> Any:
    path = "head" if "cls_token" in state else "fc"
    head = {f"{path}.{i}.weight": torch.ones(7, 16) for i in (0, 3, 6)}
    both = under("module.base_encoder.", state | head)
    both |= under("module.momentum_encoder.", other(state))
    return {"state_dict": both | {"module.predictor.0.weight": torch.ones(3, 3)}}


def dino(state: State) -> Any:
    heads = {"head.mlp.0.weight": torch.ones(3, 3), "head.last_layer.weight_v": torch.ones(3, 3)}
    return {
        "student": under("module.backbone.", other(state)) | under("module.", heads),
        "teacher": under("backbone.", state) | heads,
        "args": Namespace(arch="vit_tiny"),
        "epoch": 100,
    }


def dinov2(state: State) -> Any:
    """A backbone whose class token is apart from the registers, with its own position."""
    names = dict(state)
    names["register_tokens"] = names.pop("reg_token")
    position = torch.full_like(names["cls_token"], 0.5)
    names["cls_token"] = names["cls_token"] - position
    names["pos_embed"] = torch.cat([position, names["pos_embed"]], 1)
    return names | {"mask_token": torch.zeros(1, 24)}


def dinov2_in_training(state: State) -> Any:
    heads = {"dino_head.mlp.0.weight": torch.ones(3, 3), "ibot_head.mlp.0.weight": torch.ones(3, 3)}
    return {"teacher": under("backbone.", dinov2(state)) | heads}


def dinov3(state: State) -> Any:
    names = {"storage_tokens": state["reg_token"], "mask_token": torch.zeros(1, 24)}
    names["rope_embed.periods"] = torch.ones(4)
    for key, value in state.items():
        if key.endswith("q_bias"):
            v = state[key.replace("q_bias", "v_bias")]
            names[key.replace("q_bias", "qkv.bias")] = torch.cat([value, 0 * v, v])
            names[key.replace("q_bias", "qkv.bias_mask")] = torch.ones(72)
        elif not key.endswith(("v_bias", "reg_token")):
            names[key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return names


STYLES: list[tuple[tuple[str, dict[str, Any]], Callable[[State], Any]]] = [
    *((RESNET, style) for style in (moco_v1, moco_v2, moco_v3, dino)),
    *((VIT, style) for style in (moco_v3, dino)),
    *((DINOV2, style) for style in (dinov2, dinov2_in_training)),
    (DINOV3, dinov3),
]


def made(architecture: tuple[str, dict[str, Any]]) -> nn.Module:
    name, options = architecture
    torch.manual_seed(1)
    module: nn.Module = timm.create_model(name, num_classes=0, **options)
    for x in module.state_dict().values():
        x.copy_(torch.rand(x.shape) if x.is_floating_point() else x)
    return module


@pytest.mark.filterwarnings("ignore")  # timm warns while it converts
@pytest.mark.parametrize(
    ("architecture", "style"), STYLES, ids=lambda x: x[0] if isinstance(x, tuple) else x.__name__
)
def test_a_teacher_without_classes(
    architecture: tuple[str, dict[str, Any]], style: Callable[[State], Any], tmp_path: Path
) -> None:
    source = made(architecture).state_dict()
    torch.save(style(source), tmp_path / "weights.pth")
    name, options = architecture
    teacher = models.find(
        f"timm:{name}",
        num_classes=5,
        weights=str(tmp_path / "weights.pth"),
        options={"num_classes": 0, **options},
        classes_from_weights=True,
    )
    for key, value in teacher.module.state_dict().items():
        torch.testing.assert_close(value, source[key], msg=key)
    assert teacher.num_classes is None
    assert "logits" not in teacher.shapes
    assert teacher.shapes.vector("penultimate") == teacher.module.num_features


def find(style: Callable[[State], Any], tmp_path: Path, **hyper: Any) -> models.Network:
    torch.save(style(made(RESNET).state_dict()), tmp_path / "weights.pth")
    weights, (name, options) = str(tmp_path / "weights.pth"), RESNET
    return models.find(f"timm:{name}", num_classes=5, weights=weights, options=options, **hyper)


def test_a_missing_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"hold no classifier.*num_classes: 0"):
        find(moco_v2, tmp_path, classes_from_weights=True)


def test_a_student_may_start_from_it_with_a_new_classifier(tmp_path: Path) -> None:
    student = find(dino, tmp_path, reset_classifier=True)
    assert student.num_classes == 5
    kept = made(RESNET).state_dict()["conv1.0.weight"]
    assert torch.equal(student.module.state_dict()["conv1.0.weight"], kept)


def test_other_architectures_are_still_refused(tmp_path: Path) -> None:
    torch.save(moco_v2(made(VIT).state_dict()), tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match="another architecture"):
        models.find(
            "timm:resnet10t",
            num_classes=5,
            weights=str(tmp_path / "weights.pth"),
            options={"num_classes": 0},
        )
