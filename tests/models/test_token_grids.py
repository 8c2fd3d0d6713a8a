"""Where patches lie among the tokens of transformers, and the features that are read by it."""

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from understudy import tasks
from understudy.distillation.user_networks import wrap
from understudy.errors import NetworkError, ShapeError
from understudy.features import TokenGrid
from understudy.methods._projectors import as_map, map_shape
from understudy.models import Input, Network

_VIT: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}
TIMM: dict[str, tuple[str, dict[str, Any], tuple[int, int, tuple[int, int]]]] = {
    "DINOv2": ("vit_small_patch14_dinov2", {"img_size": 56}, (1, 0, (4, 4))),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56}, (1, 4, (4, 4))),
    "DINOv3": ("vit_small_patch16_dinov3", {"img_size": 48}, (1, 4, (3, 3))),
    "SigLIP": ("vit_base_patch16_siglip_224", {"img_size": 48}, (0, 0, (3, 3))),
    "C-RADIO": ("vit_base_patch16_radio_v3", {"img_size": 48}, (1, 7, (3, 3))),
    "NaFlexViT": ("naflexvit_base_patch16_gap", {}, (0, 4, (3, 3))),
    "oblong": ("vit_small_patch16_dinov3", {"img_size": 56, "patch_size": (28, 8)}, (1, 4, (2, 7))),
}


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def built(name: str) -> Network:
    torch.manual_seed(0)
    model, options, _ = TIMM[name]
    side = options.get("img_size", 48)
    module = timm.create_model(model, **_VIT, **options)
    return Network(module, input=Input(size=side)).eval()


@pytest.mark.parametrize("name", TIMM)
def test_reads_the_parts_of_what_timm_returns(name: str) -> None:
    network, (classes, registers, (height, width)) = built(name), TIMM[name][2]
    prefix = classes + registers
    side = network.input.size or 0
    with torch.no_grad():
        features = network.features(images(side, side))
        expected = network.module.forward_features(images(side, side))  # type: ignore[operator]
    assert torch.equal(features["tokens"], expected)
    rows = expected[:, prefix:].mT.unflatten(2, (height, width))
    assert torch.equal(features["patches"], rows)
    assert ("cls" in features, "registers" in features) == (classes > 0, registers > 0)
    if classes:
        assert torch.equal(features["cls"], expected[:, 0])
    if registers:
        assert torch.equal(features["registers"], expected[:, classes:prefix])
    grid = TokenGrid(prefix, height, width)
    assert all(network.shapes.grids[x] == grid for x in ("stage1", "stage2", "tokens"))
    assert map_shape(network.shapes, "stage2") == network.shapes["patches"] == (24, height, width)
    assert torch.equal(as_map(features["tokens"], grid), rows)


def hugging_face(name: str) -> nn.Module:
    import transformers

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 48, "image_size": 56, "patch_size": 14}
    if name == "DINOv3ViT":
        sizes["num_register_tokens"] = 4
    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}Model")(config)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "prefix", "registers"),
    [
        ("Dinov2", 1, 0),
        ("Dinov2WithRegisters", 5, 4),
        ("DINOv3ViT", 5, 4),
        ("SiglipVision", 0, 0),
        ("ViT", 1, 0),
    ],
)
def test_reads_the_parts_of_what_hugging_face_returns(
    name: str, prefix: int, registers: int
) -> None:
    pytest.importorskip("transformers")
    module = hugging_face(name).eval()
    network = Network(module, input=Input(size=56), classifier="")
    with torch.no_grad():
        features = network.features(images(56, 56))
        expected = module(images(56, 56)).last_hidden_state
    torch.testing.assert_close(features["tokens"], expected)
    assert network.shapes.grids["tokens"] == TokenGrid(prefix, 4, 4)
    assert ("registers" in network.shapes) == (registers > 0)
    if registers:
        assert network.shapes["registers"] == (registers, 24)
    assert ("cls" in features) == (prefix > 0)


class Tower(nn.Module):
    """A transformer that tells nothing of its tokens, with some before and some behind."""

    def __init__(self, before: int, behind: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, stride=8)
        self.extra = nn.Parameter(torch.randn(1, before + behind, 8))
        self.before = before
        blocks = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        extra = self.extra.expand(len(x), -1, -1)
        tokens = torch.cat([extra[:, : self.before], tokens, extra[:, self.before :]], 1)
        logits: Tensor = self.head(self.blocks(tokens).mean(1))
        return logits


@pytest.mark.parametrize(("before", "size"), [(0, (32, 32)), (1, (32, 32)), (3, (32, 32))])
def test_the_trace_tells_what_nothing_declares(before: int, size: tuple[int, int]) -> None:
    network = Network(Tower(before, 0), example_size=size)
    assert network.shapes.grids["tokens"] == TokenGrid(before, 4, 4)
    assert network.shapes["patches"] == (8, 4, 4)
    assert ("cls" in network.shapes, "registers" in network.shapes) == (before == 1, before > 1)


def test_images_that_are_no_squares_have_oblong_grids() -> None:
    network = Network(Tower(2, 0), example_size=(24, 40))
    assert network.shapes["patches"] == (8, 3, 5)
    assert network.features(images(24, 40))["patches"].shape[2:] == (3, 5)
    # Larger images of the same proportion have a larger grid; others are refused.
    assert network.features(images(48, 80))["patches"].shape[2:] == (6, 10)
    with pytest.raises(ShapeError, match="14 tokens are no grid in the proportion 3 × 5"):
        network.features(images(24, 32))


def test_tokens_that_are_no_grid_are_refused_with_the_cause() -> None:
    module = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, **_VIT)
    block = module.blocks[0]
    module.blocks[0] = nn.Sequential()
    module.blocks[0].forward = lambda x, **_: block(x)[:, :-2]  # two patches are dropped
    network = Network(module, input=Input(size=56), classifier="", taps={"odd": "blocks.0"})
    words = "'odd' of VisionTransformer has 19 tokens, .* patches are 4 × 4, behind 5 other tokens"
    with pytest.raises(ShapeError, match=words):
        map_shape(network.shapes, "odd")


def test_any_block_can_be_tapped_behind_the_last_norm() -> None:
    taps = {"raw": "blocks.0", "seen": "blocks.0:patches", "block1": "blocks.0:normalised"}
    taps |= {"map1": "blocks.0:normalised patches", "summary": "blocks.0:normalised cls"}
    module = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, **_VIT).eval()
    network = Network(module, input=Input(size=56), taps=taps)
    with torch.no_grad():
        features = network.features(images(56, 56))
        rows = module.norm(features["raw"])
    assert torch.equal(features["block1"], rows)
    assert torch.equal(features["map1"], rows[:, 5:].mT.unflatten(2, (4, 4)))
    assert torch.equal(features["seen"], features["raw"][:, 5:].mT.unflatten(2, (4, 4)))
    assert torch.equal(features["summary"], rows[:, 0])
    # A copy is normalised by its own norm.
    other = deepcopy(network)
    nn.init.constant_(module.norm.weight, 0.0)
    with torch.no_grad():
        assert torch.equal(other.features(images(56, 56))["block1"], rows)
        assert not network.features(images(56, 56))["block1"].any()


@pytest.mark.parametrize(
    ("tap", "words"),
    [
        ("blocks.0:registers", "no 'registers' among these 17 tokens: .* 4 × 4, behind 1 other"),
        ("patch_embed.proj:patches", "selects among tokens"),
        ("blocks.0:patch", "a part \\(cls, registers, patches\\)"),
    ],
)
def test_taps_that_select_nothing_are_refused(tap: str, words: str) -> None:
    module = timm.create_model("vit_small_patch14_dinov2", img_size=56, **_VIT)
    with pytest.raises(NetworkError, match=words):
        Network(module, input=Input(size=56), taps={"mine": tap})


def test_without_a_last_norm_nothing_is_normalised() -> None:
    with pytest.raises(NetworkError, match="none was found behind"):
        Network(Tower(1, 0), example_size=(32, 32), taps={"mine": "blocks.0:normalised"})


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "naflexvit_base_patch16_gap"])
def test_the_example_of_a_loop_of_ones_own_gives_the_proportion(name: str) -> None:
    size = {"img_size": (32, 64)} if name.startswith("vit") else {}
    module = timm.create_model(name, **_VIT, **size)
    network = wrap(module, "teacher", tasks.find("classification"), images(32, 64), None)
    assert network.shapes["patches"] == (24, 2, 4)


@pytest.mark.parametrize("name", ["patches", "registers"])
def test_the_name_of_a_submodule_makes_no_tokens(name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            setattr(self, name, nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU()))
            self.head = nn.Linear(8, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(getattr(self, name)(self.stem(images)).mean((2, 3)))

    assert not Network(Named(), input=Input(size=16)).shapes.grids


def test_downsampling_of_oblong_images_is_no_patch_embedding() -> None:
    module = timm.create_model("convnext_atto", num_classes=5)
    network = Network(module, example_size=(64, 128))
    stages = [network.shapes[f"stage{i}"] for i in range(1, 5)]
    assert stages == [(40, 16, 32), (80, 8, 16), (160, 4, 8), (320, 2, 4)]
