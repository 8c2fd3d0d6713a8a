"""Licences of published weights, as their publishers state them; none is guessed."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download
from torch import nn
from torchvision import models

from understudy.config.recipe import Network
from understudy.experiment.student_file.config import FILE, StudentConfig


def licence_of(network: Network, module: nn.Module) -> str | None:
    """Return the licence of the weights that a recipe names; None where nothing states it.

    That of the weights of a run is `licence_of_student`.

    Args:
        network: The network's part of the recipe.
        module: The network, built.
    """
    library, _, name = network.name.partition(":")
    if library == "hf":
        return _of_card(Path(name) / "README.md")
    if network.weights == "pretrained" and "hf-hub:" in network.name:
        return _of_timm(module) or _of_repository(network.name.partition("hf-hub:")[2])
    if network.weights == "pretrained":
        return _of_timm(module) if library == "timm" else _of_torchvision(name)
    if network.options.get("backbone_weights") and not network.weights:
        return _of_backbone(network, module)
    folder = Path(network.weights)
    folder = folder if folder.is_dir() else folder.parent
    if network.weights and (folder / FILE).is_file():
        return licence_of_student(StudentConfig.read(folder))
    return None


def licence_of_student(config: StudentConfig) -> str | None:
    """Return the licence of the weights that a student comes from; None if one is not known.

    It is that of its teacher, or without a teacher that of the weights that training began with.
    Where there are several, and their licences differ, none holds for the student.
    """
    every = (*config.each_teacher, config.initial)
    licences = {_text(each.get("license")) for each in every if each and each.get("weights")}
    return licences.pop() if len(licences) == 1 else None


def _of_timm(module: nn.Module) -> str | None:
    return _text(getattr(module, "pretrained_cfg", {}).get("license"))


def _of_torchvision(name: str) -> str | None:
    try:
        weights = models.get_model_weights(name).DEFAULT
    except ValueError:  # no model of torchvision
        return None
    return _text(weights.meta.get("license"))


def _of_backbone(network: Network, module: nn.Module) -> str | None:
    """Return the licence of a detector's backbone, if its weights are the published ones."""
    name = str(network.options.get("backbone", ""))
    if network.options["backbone_weights"] != "pretrained":
        return None
    if name.startswith("timm:"):
        parts = [x for x in module.modules() if hasattr(x, "pretrained_cfg")]
        return _of_timm(parts[0]) if parts else None
    return _of_torchvision(name.rpartition(":")[2])


def _of_repository(name: str) -> str | None:
    """Return the licence in the card of a model on the hub; None if there is no card."""
    repository, _, revision = name.partition("@")
    try:
        card = hf_hub_download(repository, "README.md", revision=revision or None)
    except (OSError, ValueError):  # of the hub as well: without a connection, or without a card
        return None
    return _of_card(Path(card))


def _of_card(card: Path) -> str | None:
    """Return the licence in the header of a model card; None without a card or a header."""
    if not card.is_file():
        return None
    _, opened, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    header, closed, _ = rest.partition("\n---")
    if not (opened and closed):
        return None
    try:
        content = yaml.safe_load(header)
    except yaml.YAMLError:
        return None
    return _text(content.get("license")) if isinstance(content, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
