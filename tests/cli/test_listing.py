"""Lists and pages of methods: what they do and need first, sources last."""

import pytest

from understudy import methods, models
from understudy.cli import method_needs
from understudy.cli.commands import main
from understudy.errors import UnderstudyError


def test_a_list_of_methods_says_what_they_do_and_need(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # the rows of a narrower table break their cells
    main(["list", "methods"])
    said = " ".join(capsys.readouterr().out.split())
    assert "kd scores Knowledge distillation: the student's class probabilities follow" in said
    assert "crd vector multilabel, mixup, detection Contrastive: " in said
    assert "lshfm vector Feature mimicking: " in said  # scores are for the selective form alone
    assert "arXiv" not in said
    main(["list", "papers"])
    assert "Hinton, Vinyals, Dean" in capsys.readouterr().out


@pytest.mark.parametrize("name", methods.names())
def test_what_a_method_needs_is_known_for_all(name: str) -> None:
    student, teacher = (models.find(x, num_classes=100).shapes for x in method_needs.PAIR)
    if name in method_needs.OTHERS:
        with pytest.raises(UnderstudyError):
            assert methods.find(name)(student, teacher).reads
    assert method_needs.reads(methods.find(name))


def test_a_page_of_a_method_ends_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", "crd"])
    said = capsys.readouterr().out
    assert said.startswith("Contrastive: ")
    needs = "Reads of the teacher: the vector before its classifier. Not for multilabel"
    assert said.index(needs) < said.index("arXiv")
    assert said.index("negatives") < said.index("Tian, Krishnan, Isola")
