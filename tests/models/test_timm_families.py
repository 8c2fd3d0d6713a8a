"""Every family of timm that has a small member: logits follow from the penultimate feature.

Each network serves as student and teacher alike: its classifier applied to `penultimate` gives its
logits, or it is refused with what to give; `plain()` loads into a fresh network and gives equal
logits. The last test prints the table (`pytest -rA`).
"""

from copy import deepcopy

import pytest
import timm
import torch
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.methods._maps import match_maps
from understudy.models import Input, Network

pytestmark = pytest.mark.usefixtures("quick_weights")

Options = dict[str, object]

_SIDE: Options = {"img_size": 64}
NATIVE: dict[str, tuple[str, ...]] = {
    "": (
        *("test_byobnet", "test_convnext", "cpubone_nano", "csatv2", "cs3darknet_focus_s"),
        *("cspnext_tiny", "test_efficientnet", "efficientvit_b0", "efficientvit_m0"),
        *("ese_vovnet19b_slim_dw", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0"),
        *("hrnet_w18_small", "iformer_t", "lcnetv2_small", "legacy_xception", "lowformer_b0"),
        *("test_mambaout", "mobilenetv3_small_050", "mobilevit_xxs", "test_nfnet"),
        *("poolformer_s12", "rdnet_tiny", "regnetx_002", "repghostnet_050", "resnest14d"),
        *("test_resnet", "resnetv2_18", "rexnet_100", "selecsls42", "starnet_s050"),
        *("test_vit", "xception41p"),
    ),
    "img_size": (
        *("eca_botnext26ts_256", "test_coatnet", "gcvit_xxtiny", "nest_tiny"),
        *("pit_ti_224", "pit_ti_distilled_224", "test_vit_relpos"),
    ),
}
"""Small members that take images of 64 pixels, by the option that tells them so."""

_VIT: Options = {"embed_dim": 48, "depth": 4, "num_heads": 3}
_SWIN: Options = {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 2, 1)}
REDUCED: dict[str, tuple[Options, int]] = {
    "beit_base_patch16_224": (_SIDE | _VIT, 64),
    "cait_xxs24_224": (_SIDE | {"depth": 4}, 64),
    "coat_tiny": (_SIDE | {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1}, 64),
    "convit_tiny": (_SIDE | {"depth": 4, "local_up_to_layer": 2}, 64),
    "convmixer_768_32": ({}, 64),
    "crossvit_tiny_240": ({"depth": [[1, 1, 0]] * 3}, 64),
    "davit_tiny": ({"embed_dims": (24, 48, 96, 192)}, 64),
    "deit_tiny_distilled_patch16_224": (_SIDE | {"depth": 4}, 64),
    "deit_tiny_patch16_224": (_SIDE | {"depth": 4}, 64),
    "densenet121": ({"block_config": (2, 2, 2, 2)}, 64),
    "dla46_c": ({"levels": [1] * 6}, 64),
    "dpn48b": ({"k_sec": (1, 1, 2, 1)}, 64),
    "edgenext_xx_small": ({"depths": (1, 1, 2, 1)}, 64),
    "efficientformer_l1": ({"depths": (1, 1, 2, 2)}, 224),
    "efficientformerv2_s0": (_SIDE | {"depths": (1, 1, 2, 2)}, 64),
    "efficientvim_m1": ({}, 64),
    "fasternet_t0": ({"depths": (1, 1, 2, 1)}, 64),
    "fastvit_t8": ({"layers": (1, 1, 2, 1)}, 64),
    "focalnet_tiny_srf": ({}, 64),
    "gmixer_12_224": (_SIDE, 64),
    "hiera_tiny_224": (_SIDE | {"stages": (1, 1, 2, 1), "embed_dim": 48}, 64),
    "inception_next_atto": ({"depths": (1, 1, 2, 1)}, 64),
    "inception_resnet_v2": ({}, 96),
    "inception_v3": ({}, 96),
    "inception_v4": ({}, 96),
    "legacy_seresnet18": ({"layers": [1, 1, 1, 1]}, 64),
    "levit_128s": (_SIDE | {"depth": (1, 1, 2)}, 64),
    "mvitv2_tiny": ({}, 64),
    "naflexvit_base_patch16_gap": (_VIT, 64),
    "nextvit_small": ({}, 64),
    "pvt_v2_b0": ({"depths": (1, 1, 2, 1)}, 64),
    "repvit_m1": ({"depth": (1, 1, 2, 1)}, 64),
    "res2next50": ({"layers": (1, 1, 1, 1)}, 64),
    "sam2_hiera_tiny": ({"stages": (1, 1, 2, 1), "embed_dim": 48}, 64),
    "samvit_base_patch16_224": ({"embed_dim": 48, "depth": 4, "num_heads": 3}, 224),
    "sequencer2d_s": ({"layers": (1, 1, 1, 1)}, 64),
    "shvit_s1": ({"depth": (1, 1, 1)}, 64),
    "skresnet18": ({"layers": [1, 1, 1, 1]}, 64),
    "swiftformer_xs": ({"layers": (1, 1, 2, 1)}, 64),
    "swin_tiny_patch4_window7_224": (_SIDE | _SWIN, 64),
    "swinv2_cr_tiny_224": (_SIDE | _SWIN, 64),
    "swinv2_tiny_window8_256": (_SIDE | _SWIN, 64),
    "tiny_vit_5m_224": ({"depths": (1, 1, 2, 1)}, 64),
    "tnt_s_legacy_patch16_224": (_SIDE | {"depth": 4}, 64),
    "tresnet_m": ({"layers": [1, 1, 1, 1]}, 64),
    "twins_svt_small": ({"depths": (1, 1, 2, 1)}, 64),
    "vgg11": ({"mlp_ratio": 0.05}, 64),
    "visformer_tiny": (_SIDE | {"depth": (2, 2, 2)}, 64),
    "vit_tiny_patch16_dinov3_qkvb": ({"depth": 4}, 64),
    "vit_tiny_r_s16_p8_224": (_SIDE | {"depth": 4}, 64),
    "vitamin_small_224": (_SIDE, 64),
    "volo_d1_224": (_SIDE, 64),
    "xcit_nano_12_p8_224": ({"depth": 4}, 64),
}
"""Members that are made smaller by options, or that need other images."""

MEMBERS: dict[str, tuple[Options, int]] = {n: ({}, 64) for n in NATIVE[""]}
MEMBERS |= {n: (dict(_SIDE), 64) for n in NATIVE["img_size"]} | REDUCED
TOO_LARGE = {"deepseek_vit", "gemma4_vit", "mobilenetv5", "nasnet", "pnasnet", "qwen3_vit"}
"""Families whose smallest member has more than 80 million parameters and no option for fewer."""

REFUSED = {"crossvit_tiny_240", "efficientvim_m1"}
"""Networks that average the logits of several vectors of different dimensions."""

APART = {"deit_tiny_distilled_patch16_224", "pit_ti_distilled_224", "levit_128s", "repvit_m1"}
"""Networks whose two classifiers, of which the logits are the mean, read two vectors."""

AUXILIARY = {"volo_d1_224"}
"""Networks that add scores of tokens to those of the classifier."""

TABLE: dict[str, str] = {}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    options, _ = MEMBERS[name]
    module = timm.create_model(name, num_classes=5, **options).eval()
    # Classifiers and norms that start equal, or at zero, would hide which of them is which.
    for parameter in module.parameters():
        if parameter.ndim == 1 or not parameter.detach().any():
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return module


def linear(network: Network, feature: Tensor, path: str) -> Tensor:
    layer = network.module.get_submodule(path)
    y = feature @ layer.weight.flatten(1).T
    return y if layer.bias is None else y + layer.bias


@pytest.mark.parametrize("name", MEMBERS)
def test_logits_follow_from_the_penultimate_feature(name: str) -> None:
    side = MEMBERS[name][1]
    module, images = built(name), torch.rand(2, 3, side, side)
    # Building another one takes as long as all the rest.
    fresh = deepcopy(module)
    if name in REFUSED:
        with pytest.raises(NetworkError, match=r"taps: \{penultimate: '") as error:
            Network(module, input=Input(size=side))
        TABLE[name] = "refused: " + str(error.value)[:60]
        tap = str(error.value).split("{penultimate: '")[1].split("'")[0]
        network = Network(module, input=Input(size=side), taps={"penultimate": tap}).eval()
        assert network.num_classes == 5
        return
    network = Network(module, input=Input(size=side)).eval()
    # `ofd` and `reviewkd` choose maps in it by themselves.
    assert match_maps(
        network.shapes,
        network.shapes,
        student_suffix="/preact",
        teacher_suffix="/preact",
        or_activated=True,
    )
    with torch.no_grad():
        features = network.features(images)
        logits = module(images)
        p, head = features["penultimate"], network.classifier
        torch.testing.assert_close(features["logits"], logits)
        if name in APART:
            other = 2 * p - _own(network, images)
            again = (linear(network, _own(network, images), head)) / 2
            again = again + linear(network, other, network.taps["dist_logits"]) / 2
            TABLE[name] = f"mean of {head} and {network.taps['dist_logits']}"
        else:
            again = p @ network.classifier_weight.T
            again = again if network.classifier_bias is None else again + network.classifier_bias
            TABLE[name] = f"{head} of {p.shape[1]}, {network.taps['penultimate']}"
        if name in AUXILIARY:
            TABLE[name] += ", and an auxiliary classifier of tokens"
            assert head == "head"
            assert not torch.allclose(again, logits)
        else:
            torch.testing.assert_close(
                again, logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max())
            )
        for parameter in fresh.parameters():
            parameter.zero_()
        fresh.load_state_dict(network.plain().state_dict())
        assert torch.equal(fresh(images), logits)


def _own(network: Network, images: Tensor) -> Tensor:
    """Return what enters the first classifier of two."""
    inputs: list[Tensor] = []
    layer = network.module.get_submodule(network.classifier)
    handle = layer.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    network.features(images)
    handle.remove()
    return inputs[0]


def test_every_family_has_a_member() -> None:
    members = {timm.models.model_entrypoint(name).__module__.split(".")[-1] for name in MEMBERS}
    assert set(timm.list_modules()) - members == TOO_LARGE


def test_table() -> None:
    print(f"\n{len(TABLE)} networks of {len(timm.list_modules())} families of timm:")
    for name, what in TABLE.items():
        print(f"  {name:34} {what}")
