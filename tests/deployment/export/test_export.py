"""Exported students compute what they computed in torch; int8 that loses too much is refused."""

import json
import os
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import understudy
from understudy import files
from understudy.cli.export import printed
from understudy.deployment.export import checking, onnx_export, quantise, verified_files
from understudy.deployment.export.export_student import Exported
from understudy.deployment.export.verified_files import Options, Subject, write_int8
from understudy.deployment.saved_student import SavedStudent, open_student
from understudy.errors import NameNotFound, NetworkError, RecipeError, RunError

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: the extra `export`")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: the extra `export`")


@pytest.fixture(scope="module")
def run(saved_comparison: Path) -> Path:
    return saved_comparison / "kd" / "seed0"


@pytest.fixture(scope="module")
def saved(run: Path) -> SavedStudent:
    return open_student(run)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Every form of one student; one call of the exporter, which takes seconds."""
    return understudy.export(
        run,
        to=("onnx", "torch-export", "safetensors", "hub"),
        out=tmp_path_factory.mktemp("exported"),
        int8=True,
        max_drop=100,
    )


def outputs(saved: SavedStudent, images: Tensor) -> Tensor:
    with torch.no_grad():
        return saved.module(images)


def images(saved: SavedStudent, count: int) -> Tensor:
    side = saved.config.preprocessing.size
    return torch.randn(count, 3, side, side)


@pytest.mark.parametrize("count", [1, 3])
def test_the_onnx_file_computes_the_student_for_any_batch(
    exported: Exported, saved: SavedStudent, count: int
) -> None:
    batch = images(saved, count)
    (computed,) = onnx_export.runner(exported.folder / "student.onnx")(batch)
    assert computed == pytest.approx(outputs(saved, batch), abs=1e-4)


def test_the_program_of_torch_computes_the_student(exported: Exported, saved: SavedStudent) -> None:
    program = torch.export.load(exported.folder / "student.pt2").module()
    batch = images(saved, 3)
    torch.testing.assert_close(program(batch), outputs(saved, batch))


def test_parity_is_that_of_the_test_images_of_the_run(exported: Exported) -> None:
    assert set(exported.parity) == {"onnx", "torch-export"}
    for parity in exported.parity.values():
        assert (parity.on, parity.images, parity.decisions) == ("test images", 9, 9)
        assert parity.difference <= 1e-4
        assert parity.changed == 0
    assert not exported.notes


def test_accuracy_in_fp32_is_that_of_the_evaluation(exported: Exported, run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert exported.int8 is not None
    assert exported.int8.fp32 == pytest.approx(evaluation["metrics"]["top1"])
    assert (exported.int8.metric, exported.int8.calibration) == ("top1", 12)
    assert exported.int8.drop == exported.int8.fp32 - exported.int8.int8


def test_what_the_graph_takes_is_said(exported: Exported) -> None:
    """The shape that is named is that of the file, and the card says the same."""
    import onnxruntime

    (taken,) = onnxruntime.InferenceSession(exported.folder / "student.onnx").get_inputs()
    shape = ", ".join(map(str, taken.shape[1:]))
    assert f"prepared images as float32 (batch, {shape})" in exported.takes
    assert "resizes nothing itself" in exported.takes
    assert exported.takes in (exported.folder / "README.md").read_text()


def test_an_exported_folder_holds_a_student(exported: Exported, saved: SavedStudent) -> None:
    batch = images(saved, 2)
    again = open_student(exported.folder)
    assert again.config == saved.config
    assert torch.equal(outputs(again, batch), outputs(saved, batch))


def test_teacher_control_and_student_are_measured(exported: Exported) -> None:
    assert exported.speeds is not None
    assert [row.names for row in exported.speeds.rows] == [["teacher"], ["control", "student"]]
    teacher, student = exported.speeds.rows
    kinds = {(t.runtime, t.precision) for t in student.times}
    assert kinds == {("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")}
    assert {(t.runtime, t.batch) for t in teacher.times} == {
        (runtime, batch) for runtime in ("torch", "onnxruntime") for batch in (1, 32)
    }
    assert student.bytes["int8"] == (exported.folder / "student_int8.onnx").stat().st_size


def test_export_json_holds_what_was_measured(exported: Exported) -> None:
    content = json.loads((exported.folder / "export.json").read_text())
    assert content["files"] == {
        "onnx": "student.onnx",
        "torch-export": "student.pt2",
        "int8": "student_int8.onnx",
        "safetensors": "student.safetensors",
        "hub": "model.safetensors",
    }
    assert content["parity"]["onnx"]["difference"] == exported.parity["onnx"].difference
    assert content["int8"]["drop"] == exported.int8.drop


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not available")
def test_a_killed_export_leaves_no_file_that_was_not_verified(
    exported: Exported, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(exported.folder, tmp_path / "exported"))
    monkeypatch.setattr(
        verified_files, "_verified", lambda *subject: os.kill(os.getpid(), signal.SIGKILL)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the copy lacks
        child = os.fork()
    if not child:
        understudy.export(run, out=folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for name in exported.files.values():
        assert (folder / name).read_bytes() == (exported.folder / name).read_bytes()
    assert not (folder / "export.json").exists()
    (hidden,) = folder.glob(".*")
    assert (hidden / "student.onnx").is_file()
    files.sweep(folder)
    assert not hidden.exists()


@pytest.fixture(scope="module")
def subject(exported: Exported, saved: SavedStudent, run: Path) -> Subject:
    return Subject(
        saved, Options(), checking.images_of(run, saved, None, count=None), exported.folder
    )


def test_int8_that_loses_too_much_is_refused_and_removed(
    exported: Exported, subject: Subject, run: Path
) -> None:
    file = exported.folder / "student_int8.onnx"
    content, training = file.read_bytes(), checking.calibration(run, subject.saved, None)
    try:
        # It cannot gain a hundred points.
        with pytest.raises(NetworkError, match=r"more than --max-drop -101.*--keep-fp32 \w+"):
            write_int8(subject, training, max_drop=-101)
        assert not file.exists()
    finally:
        file.write_bytes(content)


def test_layers_stay_in_fp32_on_request(
    exported: Exported, subject: Subject, run: Path, tmp_path: Path
) -> None:
    import onnx

    training = checking.calibration(run, subject.saved, None)
    source, target = exported.folder / "student.onnx", tmp_path / "int8.onnx"
    names = set(quantise.layers(onnx.load(str(source))))
    assert "conv_stem" in names
    quantise.quantise(source, target, training.inputs("outside"), keep=["conv_stem"])
    floats = {x.name for x in onnx.load(str(target)).graph.initializer if x.data_type == 1}
    assert any("conv_stem" in name and "scale" not in name for name in floats)
    with pytest.raises(NameNotFound, match="conv_stm"):
        quantise.quantise(source, target, training.inputs("outside"), keep=["conv_stm"])


def test_pictures_of_any_size_are_prepared_inside_of_the_graph(run: Path, tmp_path: Path) -> None:
    (tmp_path / "student.pt2").write_bytes(b"of another student")
    done = understudy.export(run, out=tmp_path, preprocessing="inside", probabilities=True)
    parity, pipeline = done.parity["onnx"], done.pipeline
    assert parity.images == 9  # of three sizes
    assert parity.changed == 0
    assert pipeline is not None
    assert pipeline.difference < 0.05
    run_file = onnx_export.runner(tmp_path / "student.onnx")
    (probabilities,) = run_file(torch.randint(256, (2, 3, 50, 71), dtype=torch.uint8))
    assert probabilities.sum(1) == pytest.approx(torch.ones(2))
    card, lines = (tmp_path / "README.md").read_text(), " ".join(printed(done))
    for text in (card, lines):
        assert "RGB pictures of any size as uint8 (batch, 3, height, width)" in text
        assert "do not prepare them before" in text
        assert f"prepared as in the run: {pipeline.sentence}." in text
    assert "student.pt2: of an earlier export" in lines


def test_a_detector_is_exported_by_the_classic_exporter(
    saved_detector: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="leave torch-export out of --to"):
        understudy.export(saved_detector, to=("onnx", "torch-export"), out=tmp_path)
    done = understudy.export(saved_detector, out=tmp_path)
    assert done.parity["onnx"].decisions > 0
    # Scores of an untrained network are equal up to rounding.
    assert done.parity["onnx"].changed <= done.parity["onnx"].tied


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onyx"}, "did you mean 'onnx'"),
        ({"to": "hub", "int8": True}, "add onnx to --to"),
        ({"preprocessing": "inside", "any_size": True}, "leave --any-size out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Path, options: dict, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        understudy.export(run, **options)


def test_a_comparison_is_no_student(saved_comparison: Path) -> None:
    with pytest.raises(RunError, match="name a run of it"):
        understudy.export(saved_comparison)


def test_without_test_images_random_ones_are_taken_and_named(
    exported: Exported, saved: SavedStudent
) -> None:
    random = checking.images_of(exported.folder, saved, None, count=None)
    assert random.name == "random images"
    assert "is no run directory" in random.reason
    assert next(iter(random.inputs("outside"))).shape[1:] == images(saved, 1).shape[1:]
    with pytest.raises(NetworkError, match="calibrated on training images"):
        checking.calibration(exported.folder, saved, None)
