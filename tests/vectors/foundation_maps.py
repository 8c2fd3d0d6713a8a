"""Cases of losses on maps that are added to others: CWD, PKD and MGD."""

from itertools import count, takewhile

from torch import Tensor, nn

from tests.vectors.archive import Check, Fields, close, gradients_close, leaf, tensor
from tests.vectors.build import batch, load, method
from understudy.functional import batch_mean
from understudy.methods.cwd import CWD, cwd
from understudy.methods.mgd import MGD
from understudy.methods.pkd import PKD


def check_cwd(fields: Fields) -> None:
    s, t = leaf(fields["student_map"]), tensor(fields["teacher_map"])
    tau, weight = float(fields["tau"]), float(fields["loss_weight"])
    maps = {"patches": s}, {"patches": t}
    loss = weight * method(CWD, *maps, temperature=tau)(*maps, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    close(weight * batch_mean(cwd(s, t, tau)), fields["loss"])
    gradients_close({"student_map": s}, fields)


def check_pkd(fields: Fields) -> None:
    numbers = list(takewhile(lambda n: f"student_map{n}" in fields, count()))
    leaves = {f"student_map{n}": leaf(fields[f"student_map{n}"]) for n in numbers}
    student = {f"map{n}": leaves[f"student_map{n}"] for n in numbers}
    teacher = {f"map{n}": tensor(fields[f"teacher_map{n}"]) for n in numbers}
    resize = "student" if fields["resize_student"] else "teacher"
    built = method(PKD, student, teacher, stages=tuple(student), resize=resize)
    loss = float(fields["loss_weight"]) * built(student, teacher, batch(len(student["map0"])))
    loss.backward()
    close(loss, fields["loss"])
    gradients_close(leaves, fields)


def check_mgd(fields: Fields) -> None:
    s, t = leaf(fields["student_map"]), tensor(fields["teacher_map"])
    maps = {"patches": s}, {"patches": t}
    masked = "channels" if fields["mask_on_channel"] else "positions"
    built = method(MGD, *maps, masked=masked, share=float(fields["lambda_mgd"]))
    assert built.mask(t).shape == fields["keep_mask"].shape
    align, generate = built.aligners[0], built.generators[0]
    for layer, name in ((generate[0], "gen0"), (generate[2], "gen1"), (align, "align")):
        if f"{name}_weight" in fields:
            load(layer, **{k: fields[f"{name}_{k}"] for k in ("weight", "bias")})
    assert isinstance(align, nn.Conv2d) == ("align_weight" in fields)
    recorded = tensor(fields["keep_mask"]).double()
    # What is drawn is an input of the case.
    object.__setattr__(built, "mask", lambda x: recorded.to(x.dtype))
    loss = float(fields["alpha_mgd"]) * built(*maps, batch(len(s)))
    loss.backward()
    close(loss, fields["loss"])
    close(generate(align(s) * recorded), fields["generated"])
    parameters: dict[str, Tensor] = {"gen0_weight": generate[0].weight}
    if isinstance(align, nn.Conv2d):
        parameters["align_weight"] = align.weight
    gradients_close({"student_map": s} | parameters, fields)


CHECKS: dict[str, Check] = {
    "mmrazor.cwd": check_cwd,
    "mmrazor.pkd": check_pkd,
    "mmrazor.mgd": check_mgd,
}
