"""Files `letkd_*.npz`: dotted keys; the first word is the part of the method a case belongs to."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors.archive import Case, Check, Fields, close, leaf, tensor
from tests.vectors.build import batch, load
from understudy.features import Features, Shapes
from understudy.layers.kd_layer import CosineConv, KDLayer
from understudy.methods._letkd.kmeans import nearest
from understudy.methods._letkd.subclasses import Scatter, decisions, prototypes_of
from understudy.methods.letkd import SCORES, LetKD, divergence, word_probabilities
from understudy.models.cifar.resnet import ResNet
from understudy.models.cifar.shufflenetv1 import ShuffleNetV1
from understudy.models.cifar.wrn import WideResNet
from understudy.models.network import Network
from understudy.models.preprocessing import Input

LAYER = {
    "pred_weight": "score.weight", "pred_scale": "score.scale",
    "bn_gamma": "norm.weight", "bn_beta": "norm.bias",
    "bn_mean": "norm.running_mean", "bn_var": "norm.running_var",
    "val_weight": "value.weight", "val_scale": "value.scale",
}  # fmt: skip
"""Name of a recorded array of a KD layer → our name."""

RECORDED = {"penultimate": "kd_penult", "intermediate": "kd_inter"}
"""Place → how the layer there is called in the file."""

GRADIENTS = {"rtol": 1e-7, "atol": 1e-10}


def cases(archive: Fields) -> Iterator[Case]:
    """A case is a part, such as `kl`, one of its variants, such as `pen.a01`, or a whole step."""
    for name in sorted({name_of(key) for key in archive}):
        inside = under(archive, f"{name}.")
        if name == "kl":  # whose targets are those of another part
            inside |= {k: x for k, x in under(archive, "vq.").items() if k.endswith(".soft")}
        yield Case(name, re.split(r"[._]", name)[0], inside)


def name_of(key: str) -> str:
    first, second, *_ = key.split(".")
    return f"{first}.{second}" if first in ("pen", "int") else first


def under(fields: Fields, prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): x for k, x in fields.items() if k.startswith(prefix)}


def check_cosconv(fields: Fields) -> None:
    outputs, inputs = fields["weight"].shape
    layer = CosineConv(inputs, outputs, 1.0).double()
    load(layer, weight=fields["weight"], scale=fields["scale"])
    x = leaf(fields["x"])
    out = layer(x)
    out.backward(tensor(fields["gout"]))
    close(out, fields["out"])
    for name, parameter in {"dx": x, "dweight": layer.weight, "dscale": layer.scale}.items():
        close(parameter.grad, fields[name], **GRADIENTS)
    close(layer(tensor(fields["edge_x"])), fields["edge_out"])


def check_vq(fields: Fields) -> None:
    x, centroids = tensor(fields["x"]), tensor(fields["centroids"])
    index, distance = nearest(x.permute(0, 2, 3, 1).flatten(0, 2), centroids)
    usage = index.bincount(minlength=len(centroids)).double() / len(index)
    for name, temperature in (("T1", 1.0), ("T0p25", 0.25)):
        case = under(fields, f"{name}.")
        soft = word_probabilities(x, centroids, temperature)
        close(soft.permute(0, 2, 3, 1), case["soft"])
        assert torch.equal(index, tensor(case["hard_idx"]).flatten())
        close((-(usage * (usage + 1e-10).log()).sum()).exp(), case["perplexity"])
        close(soft.amax(1).mean(), case["mean_max"])
        close(0.25 * distance.mean() / x.shape[1], case["commit_loss"])


def check_kl(fields: Fields) -> None:
    for name in ("T1", "T0p25"):
        scores = leaf(fields["scores"])
        target = tensor(fields[f"{name}.soft"]).permute(0, 3, 1, 2)
        loss = divergence(scores, target).mean()
        loss.backward()
        close(loss, fields[f"{name}.loss"])
        close(scores.grad, fields[f"{name}.dscores"], **GRADIENTS)
        same = (scores.argmax(1) == target.argmax(1)).double().mean()
        close(100 * same, fields[f"{name}.acc_vword"], rtol=1e-6)  # computed in float32


def kd_layer(fields: Fields, *, alpha: float, averaged: bool = False) -> KDLayer:
    words, channels = fields["pred_weight"].shape
    layer = KDLayer(channels, words, alpha=alpha, averaged=averaged).double()
    names = {"bn_mean0": "bn_mean", "bn_var0": "bn_var"}
    recorded = {names.get(k, k): x for k, x in fields.items()}
    load(layer, **values_of(recorded, alpha))
    return layer


def values_of(recorded: Fields, alpha: float) -> dict[str, Any]:
    """Recorded arrays of a KD layer by our names, and its strength."""
    named = {LAYER[k]: x for k, x in recorded.items() if k in LAYER}
    return named | {"alpha": torch.tensor(alpha, dtype=torch.float64)}


def check_pen(fields: Fields) -> None:
    t, centroids = tensor(fields["teacher_feat"]), tensor(fields["centroids"])
    target = word_probabilities(t, centroids, 1.0)
    close(target.permute(0, 2, 3, 1), fields["p_teacher"])
    check_layer(fields, "penultimate", t)


def check_int(fields: Fields) -> None:
    t = tensor(fields["teacher_feat"])
    if "pca_components" in fields:
        components, mean = tensor(fields["pca_components"]), tensor(fields["pca_mean"])
        t = torch.einsum("ct,bthw->bchw", components, t - mean[:, None, None])
    check_layer(fields, "intermediate", t)


def check_layer(fields: Fields, place: str, t: Tensor) -> None:
    """The layer, its loss through the whole method, all gradients and running statistics."""
    x, g, alpha = leaf(fields["x"]), tensor(fields["g"]), float(fields["alpha"])
    layer = kd_layer(fields, alpha=alpha)
    scores = layer.score(x)
    labels = fields.get("labels")
    method = built(fields, place, scores, t)
    loss = method({SCORES[place]: scores}, {method.features[place]: t}, batch(len(x), labels))
    if place == "intermediate":
        fitted = F.adaptive_avg_pool2d(t, scores.shape[2:])
        target = method.decision_rows(fitted, tensor(labels))
        close(target.permute(0, 2, 3, 1).flatten(0, 2), fields["targets"])
    mapped = layer(x)
    total = loss + (mapped * g).sum()
    total.backward()
    found = {"scores": scores, "loss_kl": loss, "x_hat": mapped, "total": total}
    found["value"] = (mapped - x) / alpha
    for name, value in found.items():
        close(value, fields[name], rtol=1e-9, atol=1e-12)
    close(x.grad, fields["dx"], **GRADIENTS)
    for name, parameter in layer.named_parameters():
        recorded = next(k for k, v in LAYER.items() if v == name)
        close(parameter.grad, fields[f"d{recorded}"], **GRADIENTS)
    close(layer.norm.running_mean, fields["bn_mean1"])
    close(layer.norm.running_var, fields["bn_var1"])
    close(layer.eval()(x), fields["eval_x_hat"])


def built(fields: Fields, place: str, scores: Tensor, t: Tensor) -> LetKD:
    """The method at one place, between features of these shapes."""
    classes = int(fields.get("num_classes", 2))
    student = Shapes("student", {SCORES[place]: tuple(scores.shape[1:]), "logits": (classes,)})
    feature = {"penultimate": "penultimate/map", "intermediate": "last_stage/first"}[place]
    teacher = Shapes("teacher", {feature: tuple(t.shape[1:])})
    method = LetKD(student, teacher, places=place, **sizes(fields)).double()
    load_measured(method, fields)
    return method


def sizes(fields: Fields) -> dict[str, int]:
    """Hyper-parameters that the recorded arrays have."""
    found = {}
    if "centroids" in fields:
        found["words"] = len(fields["centroids"])
    if "centers" in fields:
        found |= {"subclasses": int(fields["k_inter"]), "dims": fields["centers"].shape[1]}
    return found


def load_measured(method: LetKD, fields: Fields) -> None:
    arrays = {}
    if "centroids" in fields:
        arrays["words"] = fields["centroids"]
        arrays["word_counts"] = torch.ones(len(fields["centroids"]), dtype=torch.long)
    if "centers" in fields:
        arrays["axes"] = fields["lda_scalings"][:, : fields["centers"].shape[1]]
        arrays["axes_mean"] = fields["lda_xbar"]
        arrays |= {"centers": fields["centers"], "decisions": fields["score_matrix"]}
    load(method, **arrays)


def check_offline(fields: Fields) -> None:
    features, labels = tensor(fields["features"]), tensor(fields["labels"])
    classes, count = int(labels.max()) + 1, int(fields["k_inter"])
    scatter = Scatter(classes, features.shape[1], torch.device("cpu"))
    for label in range(classes):
        for part in features[labels == label].split(300):
            scatter.add(part, label)
    recorded = tensor(fields["lda_scalings"])
    axes, mean = scatter.axes(recorded.shape[1])
    signs = (axes * recorded).sum(0).sign()
    close(axes * signs, recorded.double(), rtol=1e-3, atol=1e-3)
    close(mean, fields["lda_xbar"])
    z = (features.double() - mean) @ axes[:, : int(fields["n_components"])]
    close(z * signs[: z.shape[1]], tensor(fields["lda_features"]).double(), rtol=1e-3, atol=1e-3)

    z = tensor(fields["lda_features"]).double()
    centers = tensor(fields["centers"]).view(classes, count, -1)
    assigned = torch.empty_like(labels)
    for label in range(classes):
        rows = labels == label
        assigned[rows] = label * count + nearest(z[rows], centers[label])[0]
    assert torch.equal(assigned, tensor(fields["assign"]))
    prototypes = torch.stack([prototypes_of(z[labels == c], centers[c]) for c in range(classes)])
    close(prototypes.flatten(0, 1), fields["prototypes"], rtol=1e-5, atol=1e-5)
    shares = decisions(lambda label: z[labels == label], centers, prototypes)
    close(shares, fields["score_matrix"], rtol=0, atol=1e-15)


def network(state: Fields, classes: int) -> Network:
    """One of our networks with the recorded weights of one of the authors' classes."""
    arrays = {ours(key, state): tensor(x) for key, x in state.items()}
    module = family(state, classes).double()
    load(module, **arrays)
    return Network(module, input=Input(size=32))


def family(state: Fields, classes: int) -> nn.Module:
    """A network of the recorded kind and size."""
    blocks = [
        1 + max(int(m[1]) for k in state if (m := re.match(rf"(?:layer|block){s}\D*(\d+)\.", k)))
        for s in (1, 2, 3)
    ]
    if "block1.layer.0.conv1.weight" in state:
        return WideResNet(classes, depth=6 * blocks[0] + 4, width=1)
    if "linear.weight" in state:
        stages = [
            (len(state[f"layer{s}.0.conv3.weight"]) + w, n)
            for s, n, w in zip((1, 2, 3), blocks, shortcuts(state), strict=True)
        ]
        return ShuffleNetV1(classes, stages=tuple(stages))
    widths = [len(state["conv1.weight"])] + [len(state[f"layer{s}.0.bn2.bias"]) for s in (1, 2, 3)]
    return ResNet(classes, depth=6 * blocks[0] + 2, widths=tuple(widths))


def shortcuts(state: Fields) -> list[int]:
    """Channels that enter each stage, which a strided block joins to its own."""
    entering = [len(state["conv1.weight"])]
    for stage in (1, 2):
        entering.append(entering[-1] + len(state[f"layer{stage}.0.conv3.weight"]))
    return entering


def ours(key: str, state: Fields) -> str:
    """Our name of a recorded parameter of a network."""
    inner = re.match(r"(?:layer|block)(\d)\.(?:layer\.)?(\d+)\.(.*)", key)
    if inner is None:
        stem, *_, last = key.split(".")
        if "linear.weight" in state:
            outer = {"conv1": "stem.0", "bn1": "stem.1", "linear": "fc"}
        elif "block1.layer.0.conv1.weight" in state:
            outer = {"conv1": "stem", "bn1": "bn", "fc": "fc"}
        else:
            outer = {"conv1": "stem.conv", "bn1": "stem.bn", "fc": "fc"}
        return f"{outer[stem]}.{last}"
    stage, block, rest = inner.groups()
    rest = rest.replace("downsample", "shortcut").replace("convShortcut", "shortcut")
    if "linear.weight" in state:
        kind, last = rest.split(".")
        group = ("enter", "filter", "leave")[int(kind[-1]) - 1]
        rest = f"{group}.{int(kind.startswith('bn'))}.{last}"
    return f"stages.{int(stage) - 1}.{block}.{rest}"


def check_step(fields: Fields) -> None:
    """Evaluation, two training steps and evaluation again, by the library as a user would."""
    places = "both" if "centers" in fields else "penultimate"
    classes, init = int(fields["num_classes"]), under(fields, "student.init.")
    student, teacher = (network(s, classes) for s in (init, under(fields, "teacher.")))
    teacher.eval().requires_grad_(False)
    hyper = {"places": places, **sizes(fields)}
    alphas = {"alpha": float(fields["alpha_penult"])}
    alphas["alpha_intermediate"] = float(fields.get("alpha_inter", 1.0))
    LetKD.extend(student, teacher.shapes, **hyper, **alphas)
    method = LetKD(student.shapes, teacher.shapes, **hyper, **alphas).double()
    load_measured(method, fields)
    layers = {
        place: student.module.get_submodule(student.taps[SCORES[place]].removesuffix(".score"))
        for place in method.features
    }
    for place, layer in layers.items():
        recorded = under(fields, f"{RECORDED[place]}.init.")
        alpha = alphas["alpha" if place == "penultimate" else "alpha_intermediate"]
        load(layer, **values_of(recorded, alpha))
    optimizer = torch.optim.SGD(
        student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    for event in ("eval0", "train0", "train1", "eval1"):
        student.train(event.startswith("train"))
        total = check_event(fields, event, student, teacher, method)
        if event.startswith("train"):
            optimizer.zero_grad()
            total.backward()
            if event == "train0":
                check_state(fields, "grad0", student, layers, gradient=True)
            optimizer.step()
        if event == "train1":
            check_state(fields, "final", student, layers, gradient=False)


def check_event(
    fields: Fields, event: str, student: Network, teacher: Network, method: LetKD
) -> Tensor:
    images = tensor(fields[f"images{event[-1]}"]).double()
    labels = tensor(fields[f"labels{event[-1]}"])
    ours_, theirs = student.features(images), teacher.features(images)
    task = F.cross_entropy(ours_["logits"], labels)
    parts: Features = method.losses(ours_, theirs, batch(len(images), labels))
    total = task + method(ours_, theirs, batch(len(images), labels))
    accuracy = 100 * (ours_["logits"].argmax(1) == labels).double().mean()
    found = {"logits": ours_["logits"], "loss_cls": task, "loss_total": total}
    found |= {"loss_quest": parts["penultimate"], "AccuracyTop1": accuracy}
    if "intermediate" in parts:
        found["loss_sub"] = parts["intermediate"]
    for name, value in found.items():
        close(value, fields[f"{event}.{name}"], rtol=1e-9, atol=1e-11)
    return total


def check_state(
    fields: Fields, when: str, student: Network, layers: dict[str, nn.Module], *, gradient: bool
) -> None:
    """Gradients or values of everything that is recorded."""

    def values(module: nn.Module) -> dict[str, Any]:
        if gradient:
            return {name: p.grad for name, p in module.named_parameters()}
        return dict(module.state_dict())

    whole = {name.replace(".body", ""): x for name, x in values(student.module).items()}
    init = under(fields, "student.init.")
    recorded = under(fields, f"student.{when}.")
    if not recorded:
        assert not gradient
        return
    for key, expected in recorded.items():
        close(whole[ours(key, init)], expected, **GRADIENTS)
    for place, layer in layers.items():
        mine = values(layer)
        for key, expected in under(fields, f"{RECORDED[place]}.{when}.").items():
            close(mine[LAYER[key]], expected, **GRADIENTS)


CHECKS: dict[str, Check] = {
    "cosconv": check_cosconv,
    "vq": check_vq,
    "kl": check_kl,
    "pen": check_pen,
    "int": check_int,
    "offline": check_offline,
    "step1": check_step,
    "step2": check_step,
}
