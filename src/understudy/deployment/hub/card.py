"""The card of an exported student: `README.md` in the form of the model cards of Hugging Face.

The header, in YAML, is what the hub reads: licence, library, task, tags, metrics, base model. The
text below says what the student is, how good it is beside its control and its teacher, what it
takes, how it is loaded and where it comes from. Nothing is guessed: what the run did not record is
not in the card.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from understudy import files
from understudy.config.image_size import Size, in_words, sides
from understudy.deployment.exported_folder import WEIGHTS, earlier_files
from understudy.deployment.hub.card_tables import sections_of
from understudy.deployment.hub.licences import licence_keys
from understudy.errors import RunError
from understudy.experiment.plain_table import escaped, markdown
from understudy.experiment.student_file.config import Preprocessing, StudentConfig
from understudy.experiment.student_file.licences import licence_of_student
from understudy.experiment.student_file.loading_lines import loading_lines

CARD = "README.md"

_PIPELINES = {"detection": "object-detection", "none": "image-feature-extraction"}
"""Task → name of it on the hub, if it is not the classification of images."""

_LIBRARIES = {"timm": "timm", "huggingface": "transformers", "torchvision": "torchvision"}
"""Who builds the student → library on the hub; others need torch alone, or Understudy."""

_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion": "zalando-datasets/fashion_mnist",
}
"""Data source → the data set on the hub."""

_METRICS = {"top1": "accuracy", "mAP": "mean_average_precision", "AP": "mean_average_precision"}
"""Metric → name of it on the hub."""

_MEANINGS = {
    "top1": "`top1` and `top5` are percent of the pictures.",
    "mAP": "`mAP` is the mean average precision over the classes, in percent.",
    "AP": "`AP` and its like are COCO's average precisions, in percent.",
    "calibration_error": "`calibration_error`, from 0 to 1, is how far its probabilities are from "
    "the shares in which they are right.",
    "agreement": "`agreement` is the share of decisions that the student has in common with its "
    "teacher.",
    "kl": "`kl` and `cka` compare its outputs and features with those of the teacher.",
    "cosine": "`cosine` is that between its penultimate feature and the teacher's, `norm_ratio` "
    "the length of its feature over that of the teacher's.",
    "loss": "`loss` is that of the task on these pictures.",
}
"""Metric → what it and those beside it are."""

_LONGEST = 80
"""Letters of the options that the summary names."""
_MOST_CLASSES = 200
"""Classes that the card lists; more stand in config.json alone."""


def write_card(folder: Path, config: StudentConfig, *, name: str = "", licence: str = "") -> Path:
    """Write the card of a student into its folder, and return its path.

    Sizes, latencies and differences come from `export.json`, if it is there.

    Args:
        folder: Exported folder.
        config: The student's configuration.
        name: Name of the student; that of its network if empty.
        licence: Licence of the student; that of its teacher if empty, or none if that is unknown.

    Raises:
        RunError: The disk is full, the folder cannot be written, or `export.json` is damaged.
    """
    config = config.without_folders()
    title = name or config.network.name.rpartition(":")[2] or "student"
    header = card_data(config, name=title, licence=licence)
    parts = [
        f"# {escaped(title)}",
        _summary(config),
        *_section("Results", _results(config)),
        *(
            part
            for heading, text in sections_of(folder).items()
            for part in _section(heading, text)
        ),
        *_section("Input", _input(config)),
        *_section("How to load it", _loading(config, folder)),
        *_section("Classes", _classes(config)),
        *_section("Licence", _licence(config)),
        *_section("Origin", _origin(config)),
    ]
    text = f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"
    ModelCard(text)  # refuses a header that it cannot read
    files.write(folder / CARD, text, again="export again")
    return folder / CARD


def card_data(config: StudentConfig, *, name: str, licence: str = "") -> ModelCardData:
    """Return the header of a card."""
    data_set = _data_set(config)
    keys: dict[str, Any] = {**licence_keys(licence or licence_of_student(config) or "")}
    return ModelCardData(
        **keys,
        library_name=_LIBRARIES.get(config.library, "pytorch"),
        pipeline_tag=_PIPELINES.get(config.task, "image-classification"),
        tags=[
            "understudy",
            *(["knowledge-distillation"] if config.each_teacher else []),
            *_task_tags(config),
        ],
        datasets=[data_set] if data_set else None,
        metrics=sorted({_METRICS[key] for key in config.metrics if key in _METRICS}) or None,
        base_model=_base_models(config) or None,
        **_evaluated(config, name),
    )


def read_card(folder: Path) -> ModelCard:
    """Return the card of an exported folder.

    Raises:
        RunError: There is none, or its header is no YAML.
    """
    try:
        return ModelCard((folder / CARD).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{folder / CARD} cannot be read ({error.strerror}).") from error
    except Exception as error:  # of YAML, and of the form of the header
        words = " ".join(str(error).split()).rstrip(".")
        raise RunError(
            f"The header of {folder / CARD} cannot be read ({words}): correct it, or export again."
        ) from error


def licensed(card: ModelCard, licence: str) -> ModelCard:
    """Return a card with another licence; the same if it is empty."""
    if licence:
        for key in ("license", "license_name", "license_link"):
            card.data.pop(key)
        for key, value in licence_keys(licence).items():
            card.data[key] = value
    return card


def _task_tags(config: StudentConfig) -> list[str]:
    return ["multi-label-classification"] if config.task == "multilabel" else []


def _data_set(config: StudentConfig) -> str:
    """Return the name of the data set on the hub; empty if it is not there."""
    source, name = str(config.data.get("source", "")), str(config.data.get("name", ""))
    return name if source == "hf" else _DATASETS.get(source, "")


def _base_models(config: StudentConfig) -> list[str]:
    """Return the names on the hub of the networks that this one comes from."""
    names = [(each.get("name") or "", each.get("weights") or "") for each in config.each_teacher]
    names += [(config.network.name, config.initial.get("weights") or "")]
    known = [_on_hub(name) for name, weights in names if weights == "pretrained"]
    return list(dict.fromkeys(filter(None, known)))


def _on_hub(name: str) -> str:
    """Return the name on the hub of published weights; empty if their variant is not known."""
    library, _, rest = name.partition(":")
    if library == "timm" and rest.startswith("hf-hub:"):
        library, rest = "hf-hub", rest.removeprefix("hf-hub:")
    if library == "hf-hub":
        return rest.partition("@")[0]
    return f"timm/{rest}" if library == "timm" and "." in rest else ""


def _evaluated(config: StudentConfig, name: str) -> dict[str, Any]:
    """Return the keys by which the hub shows results."""
    results = [
        EvalResult(
            task_type=_PIPELINES.get(config.task, "image-classification"),
            dataset_type=_data_set(config) or "images",
            dataset_name=_data_set(config) or f"own images ({config.data.get('source')})",
            dataset_split=str(config.measured.get("split") or "test"),
            metric_type=_METRICS[key],
            metric_name=key,
            metric_value=round(value, 6),
        )
        for key, value in config.metrics.items()
        if key in _METRICS and value is not None
    ]
    return {"model_name": name, "eval_results": results} if results else {}


def _section(heading: str, text: str) -> list[str]:
    return [f"## {heading}", text] if text else []


def _summary(config: StudentConfig) -> str:
    kinds = {
        "classification": "tells {classes} of pictures apart, one for each picture",
        "multilabel": "says which of {classes} are in a picture",
        "detection": "finds objects of {classes} in pictures",
        "none": "computes a feature of pictures",
    }
    count = config.num_classes
    doing = kinds[config.task].format(classes=f"{count} classes" if count else "classes")
    made = "trained alone"
    if config.each_teacher:
        names = " and ".join(_code(teacher["name"]) for teacher in config.each_teacher)
        made = f"trained to imitate {names}"
    backbone = config.network.options.get("backbone") if config.is_detector else None
    over = f" over {_code(backbone)}" if backbone else ""
    lines = [
        f"A network {_code(config.network.name)}{over}{_options(config)} that {doing}, {made} by "
        f"Understudy {config.version}.".replace(" .", ".")
    ]
    if config.verdict:
        lines += [escaped(config.verdict), "The control is the same network, trained alone."]
    return " ".join(lines)


def _options(config: StudentConfig) -> str:
    """Return the options of the network, without which its name may mean another; empty if none."""
    options = {key: x for key, x in config.network.options.items() if key != "backbone"}
    if not options:
        return ""
    text = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f" ({_code(text)})" if len(text) <= _LONGEST else " (with options, in `config.json`)"


def _results(config: StudentConfig) -> str:
    rows = [["metric", "value"]]
    rows += [[key, f"{x:.4g}"] for key, x in config.metrics.items() if x is not None]
    if len(rows) == 1:
        return ""
    return "\n\n".join(filter(None, [markdown(rows), _measured_on(config), _beside(config)]))


def _beside(config: StudentConfig) -> str:
    """Return how the students of this arm compare with the control, in a sentence."""
    control = config.control or {}
    values = [control.get("control"), control.get("student")]
    if None in values:
        alone = "No control (the same student without its teacher) was trained beside this one: "
        return f"{alone}what the teacher gave is not known." if config.each_teacher else ""
    without, with_teacher = (f"{value:.2f}" for value in values if value is not None)
    return (
        f"Over all seeds, students that were trained like this one have a {control['metric']} of "
        f"{with_teacher} on average, and the control (the same without its teacher) {without}."
    )


def _measured_on(config: StudentConfig) -> str:
    measured = config.measured
    if not measured.get("split"):
        return ""
    images = f"{measured['images']:,} images of the " if measured.get("images") else "the "
    text = f"Measured on {images}split {_code(str(measured['split']))}"
    meanings = [words for key, words in _MEANINGS.items() if config.metrics.get(key) is not None]
    return " ".join([f"{text}. Numbers of other pictures than these are not known.", *meanings])


def _loading(config: StudentConfig, folder: Path) -> str:
    """Return the lines that load the student, started in the folder of the card."""
    own = [name for name in WEIGHTS if (folder / name).is_file()]
    weights = next((name for name in own if name not in earlier_files(folder)), "")
    if not weights:
        return (
            "This folder holds no weights for torch: `understudy export RUN --to hub` adds them, "
            "and the lines that load them."
        )
    lines = loading_lines(config, Path(), weights=weights)
    blocks = ["In this folder:", _python(lines.code)]
    if lines.before:
        blocks = ["In this folder, once, with Understudy:", _python(lines.before), *blocks]
    return "\n\n".join(filter(None, [*blocks, escaped(lines.note)]))


def _python(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _input(config: StudentConfig) -> str:
    """Return the steps before the network, one a line."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(_steps(config), 1))


def _steps(config: StudentConfig) -> Iterator[str]:
    p = config.preprocessing
    yield "A picture in RGB, turned as its EXIF data say."
    if p.reduced:
        yield f"If its shorter side has more than {p.reduced} pixels, it is reduced to these."
    if p.resize:
        yield f"{_resizing(p.resize, p)} ({p.interpolation}{', antialiased' * p.antialias})."
    if p.crop:
        area = "square" if isinstance(p.crop, int) else "part"
        height, width = sides(p.crop)
        yield f"The {area} of {height} × {width} pixels in the centre is cut out."
    if config.task == "detection":
        yield "Values become 0 to 1; the network resizes and normalises for itself."
        return
    yield "Values become 0 to 1."
    if p.network_size:
        shape = "square" if isinstance(p.crop, int) else "part"
        size = in_words(p.network_size)
        yield f"The {shape} is resized to {size} pixels ({p.network_interpolation})."
    if p.mean:
        mean, std = (", ".join(f"{x:.6g}" for x in values) for values in (p.mean, p.std))
        yield f"The mean ({mean}) is subtracted, and the difference divided by ({std})."


def _resizing(resize: Size, steps: Preprocessing) -> str:
    """Return what happens to the sides of a picture."""
    if isinstance(resize, int):
        side = "Both sides become" if steps.squash else "The shorter side becomes"
        return f"{side} {resize} pixels"
    size = f"{in_words(resize)} pixels, height and width"
    covers = "The picture is resized, its proportions kept, so that it covers"
    return f"{'The picture becomes' if steps.squash else covers} {size}"


def _classes(config: StudentConfig) -> str:
    if not config.classes:
        return ""
    if len(config.classes) > _MOST_CLASSES:
        return f"{len(config.classes):,} classes; `config.json` lists them in order."
    return ", ".join(_code(name) for name in config.classes)


def _licence(config: StudentConfig) -> str:
    of_teachers = [_of_teacher(teacher) for teacher in config.each_teacher]
    return " ".join(filter(None, [*of_teachers, _of_initial(config)]))


def _of_teacher(teacher: Mapping[str, Any]) -> str:
    name, licence = _code(teacher["name"]), teacher.get("license")
    if licence:
        return f"The teacher {name} is under the licence {_code(licence)}."
    if teacher.get("weights") != "pretrained":
        return (
            f"No licence of the teacher {name} was recorded: its weights are a file or a run of "
            "whoever trained this student, who knows which licence holds."
        )
    return f"Under which licence the teacher {name} is was not recorded: look it up."


def _of_initial(config: StudentConfig) -> str:
    weights, licence = config.initial.get("weights"), config.initial.get("license")
    if not weights:
        return ""
    known = f"are under the licence {_code(licence)}" if licence else "have a licence not recorded"
    return f"The weights that training began with ({_code(weights)}) {known}."


def _origin(config: StudentConfig) -> str:
    source = str(config.data.get("source") or "")
    facts = {
        "data": f"{source} {config.data.get('name', '')}".strip(),
        "training images": _training_images(config),
        **_digests_of_teachers(config),
        "digest of the recipe": config.recipe,
        "Understudy": config.version,
    }
    return "\n".join(f"- {key}: {_code(value)}" for key, value in facts.items() if value)


def _digests_of_teachers(config: StudentConfig) -> dict[str, str]:
    named = {"teacher": config.teacher} if config.teacher else {}
    named |= {f"teacher {name}": teacher for name, teacher in config.teachers.items()}
    digests = {f"digest of the {key}": str(each.get("digest") or "") for key, each in named.items()}
    return {key: str(each.get("name") or "") for key, each in named.items()} | digests


def _training_images(config: StudentConfig) -> str:
    """Return how many images the student was trained on; empty if that is unknown."""
    train = (config.data.get("splits") or {}).get("train") or {}
    labels = config.data.get("labels")
    of_these = f", of which {labels:,} with their label" if isinstance(labels, int) else ""
    return f"{train['images']:,}{of_these}" if train.get("images") else ""


def _code(text: str) -> str:
    """Return text in Markdown as code, whatever it holds."""
    one_line = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", one_line)), default=0)
    fence, space = "`" * (longest + 1), " " if one_line[:1] == "`" or one_line[-1:] == "`" else ""
    return f"{fence}{space}{one_line}{space}{fence}"
