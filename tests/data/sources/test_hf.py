import json
import logging
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from understudy.batch import UNLABELLED
from understudy.data.sources import _undecoded, hf
from understudy.errors import DataError

datasets.disable_progress_bars()


def encoded(seed: int, size: int) -> dict[str, Any]:
    content = BytesIO()
    Image.new("RGB", (size, size), (seed, 2 * seed, 3 * seed)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": f"{seed}.png"}


def table(labels: list[Any], feature: Any, *, size: int = 80, images: Any = None) -> Any:
    images = images or [encoded(i, size) for i in range(len(labels))]
    features = datasets.Features({"label": feature, "picture": datasets.Image()})
    return datasets.Dataset.from_dict({"picture": images, "label": labels}, features=features)


def test_class_labels_and_splits(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    both = {"train": table([1, 0, None], names), "validation": table([1], names)}
    datasets.DatasetDict(both).save_to_disk(tmp_path)
    train, test = hf.load(str(tmp_path), "train"), hf.load(str(tmp_path), "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [1, 0, UNLABELLED]
    assert len(test) == 1
    assert train.image(2)[:, 0, 0].tolist() == [2, 4, 6]
    assert train.pixels is None
    assert train.size == 80
    assert train.digest == hf.load(str(tmp_path), "train").digest != test.digest


def test_small_images_and_numbers(tmp_path: Path) -> None:
    table([4, 0, 2], datasets.Value("int32"), size=32).save_to_disk(tmp_path)
    source = hf.load(str(tmp_path), "train")
    assert source.pixels is not None
    assert source.pixels.shape == (3, 3, 32, 32)
    assert source.labels.tolist() == [4, 0, 2]
    assert len(source.classes) == 5


def test_without_labels(tmp_path: Path) -> None:
    rows = table(["a", "b"], datasets.Value("string")).rename_column("label", "caption")
    rows.save_to_disk(tmp_path)
    source = hf.load(str(tmp_path), "train")
    assert (source.labels.tolist(), source.classes) == ([UNLABELLED] * 2, ())


def test_names_in_a_column_of_text_are_the_classes_of_all_splits(tmp_path: Path) -> None:
    text = datasets.Value("string")
    both = {"train": table(["dog", "", "cat", None], text), "test": table(["dog", "ant"], text)}
    datasets.DatasetDict(both).save_to_disk(tmp_path)
    train, test = hf.load(str(tmp_path), "train"), hf.load(str(tmp_path), "test")
    assert train.classes == test.classes == ("ant", "cat", "dog")
    assert train.labels.tolist() == [2, UNLABELLED, 1, UNLABELLED]
    assert test.labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "feature"),
    [
        ([0.0, 1.0], datasets.Value("float32")),
        ([True, False], datasets.Value("bool")),
        ([[0], [0, 1]], datasets.Sequence(datasets.Value("int64"))),
    ],
)
def test_labels_of_another_type_are_not_dropped(
    tmp_path: Path, labels: list[Any], feature: Any
) -> None:
    table(labels, feature).save_to_disk(tmp_path)
    with pytest.raises(DataError, match=r"The column 'label' of .* which are no classes"):
        hf.load(str(tmp_path), "train")


def test_files_changed_in_place_are_noticed(tree: Path) -> None:
    image = tree / "train/cat/new.bmp"
    Image.new("RGB", (70, 70), (10, 10, 10)).save(image)
    before, times = hf.load(str(tree), "train"), image.stat()
    Image.new("RGB", (70, 70), (200, 10, 10)).save(image)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = hf.load(str(tree), "train")
    assert len(before) == len(after) == 7
    assert before.images_digest != after.images_digest
    assert after.images_digest == hf.load(str(tree), "train").images_digest


def test_unreadable_rows(tmp_path: Path) -> None:
    images = [encoded(0, 80), {"bytes": b"no image", "path": "bad.png"}, encoded(2, 80)]
    table([0, 1, 2], datasets.Value("int64"), images=images).save_to_disk(tmp_path)
    source = hf.load(str(tmp_path), "train")
    assert source.labels.tolist() == [0, 2]
    assert torch.equal(source.image(1)[:, 0, 0], torch.tensor([2, 4, 6], dtype=torch.uint8))
    (reason,) = source.skipped
    assert reason.startswith("row 1: bad.png")
    with pytest.raises(DataError, match=r"1 of 3 images .* first: row 1"):
        hf.load(str(tmp_path), "train", unreadable="fail")


def test_a_folder_of_images_by_the_hubs_own_reader(tree: Path) -> None:
    source = hf.load(str(tree), "train")
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1, 1])


def test_no_image_column(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path)
    with pytest.raises(DataError, match="has no column of images; it has: text"):
        hf.load(str(tmp_path), "train")


def test_no_test_split(tmp_path: Path) -> None:
    table([0], datasets.Value("int64")).save_to_disk(tmp_path)
    with pytest.raises(DataError, match="has no test split"):
        hf.load(str(tmp_path), "test")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        hf.load(str(tmp_path / "nowhere" / "at" / "all"), "train")


def test_three_splits_share_the_classes_of_their_numbers(tmp_path: Path) -> None:
    number = datasets.Value("int64")
    parts = {"train": [0, 3], "validation": [1, 0], "test": [2, 0]}
    parts = {name: table(labels, number) for name, labels in parts.items()}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    for split, labels in (("train", [0, 3]), ("test", [2, 0]), ("validation", [1, 0])):
        source = hf.load(str(tmp_path), split)  # type: ignore[arg-type]
        assert (source.labels.tolist(), source.classes) == (labels, ("0", "1", "2", "3"))


def test_ids_are_the_classes_that_occur(tmp_path: Path) -> None:
    table([300000, 100000, None, 300000], datasets.Value("int64")).save_to_disk(tmp_path)
    source = hf.load(str(tmp_path), "train")
    assert (source.classes, source.labels.tolist()) == (("100000", "300000"), [1, 0, -1, 1])


@pytest.mark.parametrize("folder", ["", "train"])
def test_a_lone_quote_in_a_table_beside_the_images(folder: str, tmp_path: Path) -> None:
    top = tmp_path / "set" / folder
    top.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (80, 80)).save(top / f"{i}.png")
    (top / "metadata.csv").write_text('file_name,text\n0.png,"a\n1.png,b"\n2.png,c\n')
    with pytest.raises(
        DataError, match=r"metadata\.csv, line 2: a quote opens a value that ends on"
    ):
        hf.load(str(tmp_path / "set"), "train")


def test_files_outside_of_a_saved_folder_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "x.png")
    images = [encoded(1, 80), {"bytes": None, "path": str(tmp_path / "x.png")}]
    # Saved as what a picture is stored in, so that its file is not read into the data set.
    parts = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"picture": parts})
    rows = datasets.Dataset.from_dict({"picture": images}, features=features)
    rows.save_to_disk(tmp_path / "set")
    info = tmp_path / "set/dataset_info.json"
    content = json.loads(info.read_text())
    content["features"]["picture"] = {"_type": "Image"}
    info.write_text(json.dumps(content))
    source = hf.load(str(tmp_path / "set"), "train")
    assert len(source) == 1
    assert "x.png is outside of the data set's folder" in source.skipped[0]
    with pytest.raises(DataError, match=r"1 of 2 images .* is outside of the data set's folder"):
        hf.load(str(tmp_path / "set"), "train", unreadable="fail")


def test_of_several_columns_of_labels_the_one_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coarse, fine = datasets.ClassLabel(names=["animal"]), datasets.ClassLabel(names=["cat", "dog"])
    rows = table([0, 0], coarse).rename_column("label", "coarse_label")
    rows = rows.add_column("fine_label", [1, 0]).cast_column("fine_label", fine)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both")
    with caplog.at_level(logging.WARNING, "understudy"):
        train = hf.load(str(tmp_path / "both"), "train")
        hf.load(str(tmp_path / "both"), "test")
    assert train.classes == ("animal",)
    (record,) = caplog.records
    assert "several columns of labels, coarse_label, fine_label: 'coarse_label' is read" in (
        record.getMessage()
    )
    rows.remove_columns("coarse_label").save_to_disk(tmp_path / "fine")
    assert hf.load(str(tmp_path / "fine"), "train").labels.tolist() == [1, 0]


@pytest.mark.parametrize("column", ["labels", "fine_label", "target", "class"])
@pytest.mark.parametrize(("kind", "values"), [("int64", [2, 0]), ("string", ["dog", "cat"])])
def test_labels_of_other_usual_names_are_read(
    tmp_path: Path, column: str, kind: str, values: list[Any]
) -> None:
    rows = table(values, datasets.Value(kind)).rename_column("label", column)
    rows.save_to_disk(tmp_path)
    labels = hf.load(str(tmp_path), "train").labels.tolist()
    assert labels == ([2, 0] if kind == "int64" else [1, 0])


def test_images_without_a_known_column_of_labels_are_said_to_be_unlabelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table([0, 1], datasets.Value("int64")).rename_column("label", "kind").save_to_disk(tmp_path)
    with caplog.at_level(logging.WARNING, "understudy"):
        assert hf.load(str(tmp_path), "train").labels.tolist() == [UNLABELLED] * 2
    assert "its images are unlabelled; beside the images it has: kind." in caplog.text


def test_very_many_rows_are_not_decoded_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [encoded(i, 80 + i) for i in range(6)]
    images[1] = {"bytes": b"no image", "path": "1.png"}
    names = datasets.ClassLabel(names=["cat", "dog"])
    table([0, 1] * 3, names, images=images).save_to_disk(tmp_path / "rows")
    few = hf.load(str(tmp_path / "rows"), "train")
    assert len(few) == 5
    monkeypatch.setattr(_undecoded, "LISTED", 5)
    monkeypatch.setattr(hf, "_check", None)  # decodes every row
    many = hf.load(str(tmp_path / "rows"), "train")
    assert (many.labels.tolist(), many.classes) == ([0, 1] * 3, few.classes)
    assert many.skipped == ()
    # Row 3 stands in for row 1, of its class.
    assert [int(many.image(i)[0, 0, 0]) for i in range(6)] == [0, 3, 2, 3, 4, 5]
    assert many.sides()[2].tolist() == [82, 82]
    again = hf.load(str(tmp_path / "rows"), "train")
    assert "row 1" in again.skipped[0]
    assert again.digest == many.digest
    stopped = hf.load(str(tmp_path / "rows"), "train", unreadable="fail")
    with pytest.raises(DataError, match="row 1 of"):
        stopped.image(1)


def test_very_many_files_of_rows_are_not_opened_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        file = tmp_path / f"images/train/{'ab'[i % 2]}/{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 70 + i), (i, 0, 0)).save(file)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    few = hf.load(str(tmp_path / "images"), "train")
    monkeypatch.setattr(_undecoded, "LISTED", 5)
    monkeypatch.setattr(hf, "_check_files", None)  # decodes every file
    many = hf.load(str(tmp_path / "images"), "train")
    assert list(many.paths) == list(few.paths)
    assert [many.image(i).shape for i in range(6)] == [few.image(i).shape for i in range(6)]
    (file := many.paths[0]).write_bytes(b"0" * 10)
    assert hf.load(str(tmp_path / "images"), "train").digest != many.digest, file
