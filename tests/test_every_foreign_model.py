"""Features of the networks of other libraries are found automatically."""

import pytest
import torch

from tests.support.network_images import images, stages
from understudy import models
from understudy.errors import NetworkError

_SMALL = {"img_size": 64}
TIMM = {
    "convnext_atto": {"size": 64},
    "davit_tiny": {"size": 64, "options": {"embed_dims": (24, 48, 96, 192)}},
    "deit_tiny_distilled_patch16_224": {"size": 64, "options": _SMALL},
    "edgenext_xx_small": {"size": 64},
    "efficientnet_b0": {"size": 64},
    "efficientvit_b0": {"size": 64},
    "efficientvit_m0": {"size": 224},
    "fastvit_t8": {"size": 64},
    "ghostnet_100": {"size": 64},
    "hiera_tiny_224": {"size": 224, "options": {"stages": (1, 1, 2, 1), "embed_dim": 48}},
    "levit_128s": {"size": 224},
    "maxvit_rmlp_pico_rw_256": {"size": 64, "options": _SMALL},
    "mixer_s32_224": {"size": 224},
    "mobilenetv3_small_100": {"size": 64},
    "mobilenetv4_conv_small": {"size": 64},
    "naflexvit_base_patch16_gap": {
        "size": 64,
        "options": {"embed_dim": 48, "depth": 8, "num_heads": 3},
    },
    "pvt_v2_b0": {"size": 64},
    "regnety_002": {"size": 64},
    "repvgg_a0": {"size": 64},
    "resnet18": {"size": 64},
    "resnet50d": {"size": 64},
    "starnet_s1": {"size": 64},
    "swin_tiny_patch4_window7_224": {
        "size": 64,
        "options": {"img_size": 64, "window_size": 2, "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
    },
    "twins_svt_small": {"size": 64, "options": _SMALL},
    "vit_small_patch14_dinov2": {"size": 56, "options": {"img_size": 56, "num_classes": 5}},
    "vit_tiny_patch16_224": {"size": 64, "options": _SMALL},
    "xcit_nano_12_p16_224": {"size": 64},
}
TORCHVISION = {
    "alexnet": {"size": 128},
    "convnext_tiny": {"size": 64},
    "densenet121": {"size": 64},
    "efficientnet_b0": {"size": 64},
    "googlenet": {"size": 64, "options": {"init_weights": False}},
    "inception_v3": {"size": 96, "options": {"init_weights": False}},
    "mnasnet0_5": {"size": 64},
    "mobilenet_v2": {"size": 64},
    "mobilenet_v3_small": {"size": 64},
    "regnet_y_400mf": {"size": 64},
    "resnet18": {"size": 64},
    "resnext50_32x4d": {"size": 64},
    "shufflenet_v2_x0_5": {"size": 64},
    "squeezenet1_1": {"size": 64},
    "swin_t": {"size": 64},
    "vgg11": {"size": 64, "options": {"init_weights": False}},
    "vit_b_16": {"size": 64, "options": {"image_size": 64}},
}
FOREIGN = {f"timm:{k}": v for k, v in TIMM.items()}
FOREIGN |= {f"torchvision:{k}": v for k, v in TORCHVISION.items()}
NOT_LINEAR = {
    "timm:deit_tiny_distilled_patch16_224": "two classifiers, averaged",
    "timm:levit_128s": "two classifiers after norms, averaged",
    "torchvision:squeezenet1_1": "rectified after the classifier",
}
FEW = {"torchvision:alexnet": 2}
"""Networks with fewer than three resolutions after the stem."""


@pytest.mark.parametrize("name", FOREIGN)
def test_features_of_a_foreign_network_are_found(name: str) -> None:
    arguments = dict(FOREIGN[name])
    options = dict(arguments.pop("options", {}))
    network = models.find(
        name, num_classes=options.pop("num_classes", 5), options=options, **arguments
    )
    network.eval()
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        # Else norms that differ when trained are all the same.
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    features = network.features(images(network, batch=2))
    assert next(iter(features)) == "stem"
    assert {key: f.shape[1:] for key, f in features.items()} == dict(network.shapes)
    assert network.shapes["logits"] == (5,)
    assert network.shapes.vector("penultimate") == network.classifier_weight.shape[1]

    logits = features["penultimate"] @ network.classifier_weight.T
    logits = logits if network.classifier_bias is None else logits + network.classifier_bias
    assert torch.allclose(logits, features["logits"], rtol=1e-4, atol=1e-5) == (
        name not in NOT_LINEAR
    )

    shapes = [network.shapes[key] for key in stages(network)]
    positions = [shape[1] * shape[2] if len(shape) == 3 else shape[0] for shape in shapes]
    assert len(shapes) >= FEW.get(name, 3)
    assert positions == sorted(positions, reverse=True)
    assert all(feature.requires_grad for feature in features.values())
    sum((feature + feature.square()).sum() for feature in features.values()).backward()
    gradients = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert f"module.{network.classifier}.weight" in gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:resnet18"])
def test_network_without_classifier(name: str) -> None:
    network = models.find(name, num_classes=0).eval()
    features = network.features(images(network, batch=1))
    assert "logits" not in features
    assert network.num_classes is None
    assert network.classifier_weight is None
    assert torch.equal(features["penultimate"], network(images(network, batch=1)))
    with pytest.raises(NetworkError, match="embedding"):
        network.embed(8)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:convnext_atto"])
def test_foreign_network_compiles_and_folds(name: str) -> None:
    network = models.find(name, num_classes=5, size=64).eval()
    keys = list(network.module.state_dict())
    network.embed(16)
    compiled = torch.compile(network.features, fullgraph=True, backend="eager")
    x = images(network)
    assert torch.equal(compiled(x)["penultimate"], network.features(x)["penultimate"])
    plain = network.plain()
    assert list(plain.state_dict()) == keys
    expected = network(x)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.input.mean, network.input.std))
    torch.testing.assert_close(plain((x - mean) / std), expected, rtol=1e-4, atol=1e-5)
