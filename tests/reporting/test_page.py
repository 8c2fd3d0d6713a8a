"""The page: well-formed, self-contained, true to the numbers, whole when something is missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from tests.support.report_directories import write_comparison, write_json, write_run
from understudy.errors import RunError
from understudy.reporting import report

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Checks nesting, and collects the text and the attributes."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.ids, self.addresses = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open += [tag] if tag not in VOID else []
        self.ids += [value for key, value in attrs if key == "id"]
        self.addresses += [v for key, v in attrs if key in ("src", "href", "xlink:href", "action")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    return html, page, " ".join(" ".join(page.text).replace("\N{NO-BREAK SPACE}", " ").split())


def test_page_is_self_contained(comparison):
    path = report(comparison)
    html, page, _ = read(path)
    assert path == comparison.resolve() / "report.html"
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    assert "@import" not in html
    assert all(address.startswith("#") for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))


def test_drawings_use_the_colours_of_the_page(comparison):
    html, _, _ = read(report(comparison))
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 4
    for svg in drawings:
        assert not re.findall(r"#[0-9a-f]{6}\b", svg)
        assert not re.findall(r"font", svg)
        assert "var(--c0)" in svg
        assert {f"#{name}" for name in re.findall(r' id="([^"]+)"', svg)} >= set(
            re.findall(r'(?:href="|url\()(#[^")]+)', svg)
        )


def test_page_shows_the_numbers(comparison):
    content = json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))
    _, _, text = read(report(comparison))
    assert "90.03" in text
    assert "0123456789ab" in text
    for arm in content["arms"]:
        tops = arm["metrics"]["top1"]
        assert f"{sum(tops) / 3:.2f} ±" in text
        assert f"{sum(arm['fidelity']['cosine']) / 3:.3f}" in text
        if arm["verdict"]:
            assert arm["verdict"]["sentence"] in text
            assert f"{100 * arm['verdict']['gap_closed']:.1f} %".replace("-", "−") in text


def test_headline_is_the_best_method(comparison):
    html, _, _ = read(report(comparison))
    (headline,) = re.findall(r'<p class="headline">(.*?)</p>', html)
    assert headline.startswith("lshfm is 9.")
    assert "3 of 5 methods are significantly better than the control." in html


def test_same_input_same_page(comparison):
    first = report(comparison).read_bytes()
    assert report(comparison).read_bytes() == first


def test_honest_headline_without_a_gain(tmp_path):
    write_comparison(tmp_path, arms=("control", "nd", "letkd"), epochs=2)
    _, _, text = read(report(tmp_path))
    assert (
        "No method is significantly better than the control. No gain could be shown: nd is" in text
    )


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("classification", "trained as long on the same data, without the teacher"),
        ("none", "as it was before it learned from the teacher"),
    ],
)
def test_the_control_is_what_the_task_makes_it(tmp_path, task, words):
    write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    content = json.loads((tmp_path / "comparison.json").read_text())
    write_json(tmp_path / "comparison.json", content | {"task": task})
    _, _, text = read(report(tmp_path))
    assert f"(vertical line) is the same student, {words}. Dot" in text


def test_one_seed_one_epoch_no_fidelity(tmp_path):
    write_comparison(tmp_path, arms=("control", "kd"), seeds=1, epochs=1, fidelity=False)
    html, _, text = read(report(tmp_path))
    assert "No verdict: fewer than three seeds cannot tell an effect from chance." in text
    assert html.count("<svg") == 2
    assert "cosine" not in text
    assert re.findall(r"\bnan\b", html) == []


def test_features_of_different_width(tmp_path):
    write_comparison(tmp_path, arms=("control", "kd"), epochs=2, angles=False)
    html, _, text = read(report(tmp_path))
    assert "agreement" in text
    assert "norm ratio" not in text
    assert html.count("<svg") == 2


def test_many_classes_are_cut(tmp_path):
    names = [f"class {i}" for i in range(100)]
    write_comparison(tmp_path, arms=("control", "kd"), epochs=2, classes=names)
    html, _, text = read(report(tmp_path))
    assert "… 70 more classes between these …" in text
    assert html.count('<i class="bar"') == 30


def test_names_are_escaped(tmp_path):
    write_comparison(tmp_path, arms=("control", "kd"), epochs=1, classes=["<b>bold", "a & b"])
    html, _, text = read(report(tmp_path))
    assert "<b>bold" in text
    assert "<b>bold" not in html


def test_runs_side_by_side(tmp_path):
    write_run(tmp_path / "runs/first", final=80)
    write_run(tmp_path / "runs/second", final=70, finished=False)
    path = report([tmp_path / "runs/first", tmp_path / "runs/second"])
    html, _, text = read(path)
    assert path == (tmp_path / "runs/report.html").resolve()
    assert "2 runs side by side. Without a control there is no verdict" in text
    assert html.count("<svg") == 4
    assert "Change per class" not in text


def test_one_run(tmp_path):
    evaluation = write_run(tmp_path / "run")
    out = tmp_path / "elsewhere" / "page.html"
    assert report(str(tmp_path / "run"), out=out) == out
    _, _, text = read(out)
    assert f"run reaches {evaluation['metrics']['top1']:.2f} top-1 after 30 epochs." in text
    assert "812 MB" in text
    assert "name: demo" in text
    assert out.with_suffix(".md").is_file()


def test_one_run_shows_its_teacher_and_warns_of_a_bad_one(tmp_path):
    evaluation = write_run(tmp_path / "run")
    for top1, warned in ((90.0, False), (6.7, True)):
        own = {"name": "resnet32", "metrics": {"top1": top1}, "per_class": [], "parameters": 500}
        write_json(tmp_path / "run" / "evaluation.json", evaluation | {"teacher": own})
        _, _, text = read(report(tmp_path / "run"))
        assert f"{top1:.2f}" in text
        chance = "no better than chance (10.0 by guessing): check the order of its classes"
        assert (chance in text) is warned
        markdown = (tmp_path / "run" / "report.md").read_text()
        assert ("no better than chance" in markdown) is warned


def test_a_run_without_labels_has_been_evaluated(tmp_path):
    evaluation = write_run(tmp_path / "run")
    write_json(tmp_path / "run" / "evaluation.json", evaluation | {"metrics": {}})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) | {"metrics": {}} for line in lines]
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    _, _, text = read(report(tmp_path / "run"))
    assert "not been evaluated" not in text
    assert f"run reaches {evaluation['fidelity']['cka']:.2f} CKA after 30 epochs." in text


def test_one_run_shows_its_classes_and_what_was_skipped(tmp_path):
    table = [[8, 2, 0], [0, 5, 5], [0, 0, 0]]
    write_run(tmp_path / "run", classes=3, diagnostics={"confusion": table})
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    lines = ["a.jpg: cannot be read", "b.jpg: cannot be read"]
    write_json(tmp_path / "run" / "environment.json", environment | {"skipped": lines})
    html, _, text = read(report(tmp_path / "run"))
    assert text.index("50.0") < text.index("80.0")  # the worst class first; one has no images
    assert "2 images skipped or repaired" in text
    assert "a.jpg: cannot be read" in text
    assert 'x="2" y="1" width="1" height="1" fill-opacity="0.500"' in html
    assert "Most frequent confusions" in text
    markdown = (tmp_path / "run" / "report.md").read_text()
    assert markdown.endswith(
        "2 images skipped or repaired:\n\n- a.jpg: cannot be read\n- b.jpg: cannot be read\n"
    )


def test_of_many_skipped_images_both_reports_list_as_many(tmp_path):
    write_run(tmp_path / "run", classes=3)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    lines = [f"{i}.jpg: cannot be read" for i in range(203)]
    write_json(tmp_path / "run" / "environment.json", environment | {"skipped": lines})
    _, _, text = read(report(tmp_path / "run"))
    for written in (text, (tmp_path / "run" / "report.md").read_text()):
        assert "199.jpg" in written
        assert "200.jpg" not in written
        assert "… and 3 more in environment.json" in written


def test_run_without_any_epoch(tmp_path):
    write_run(tmp_path, epochs=0, finished=False)
    html, _, text = read(report(tmp_path))
    assert "has not been evaluated yet (0 epochs)" in text
    assert "<svg" not in html


def test_mixed_directories_are_refused(comparison):
    with pytest.raises(RunError, match="one comparison or several runs"):
        report([comparison, comparison / "kd/seed0"])
