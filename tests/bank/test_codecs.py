"""What is stored comes back: every form, on every kind of row."""

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from understudy.bank import Contract
from understudy.bank.codecs import TopLogitsCodec, make_codec

ROWS = {
    "normal": torch.randn(5, 21, generator=torch.Generator().manual_seed(0)),
    "zeros": torch.zeros(3, 21),
    "tiny": torch.full((2, 21), 1e-39),
    "large": torch.full((2, 21), -3e4),
    "none": torch.empty(0, 21),
}


def returned(x: Tensor, dtype: str, top: int | None = None) -> Tensor:
    codec = make_codec((x.shape[1],), dtype, top)  # type: ignore[arg-type]
    rows = codec.encode(x)
    assert rows.dtype == torch.uint8
    assert rows.shape == (len(x), codec.bytes)
    assert codec.bytes % 4 == 0
    # As in a record, where other features stand before and behind.
    inside = torch.cat([torch.full((len(x), 8), 77, dtype=torch.uint8), rows, rows], dim=1)
    return codec.decode(inside[:, 8 : 8 + codec.bytes])


@pytest.mark.parametrize("name", ROWS)
def test_fp32_is_exact(name: str) -> None:
    assert torch.equal(returned(ROWS[name], "fp32"), ROWS[name])


@pytest.mark.parametrize("name", ROWS)
def test_fp16_rounds_as_torch_does(name: str) -> None:
    assert torch.equal(returned(ROWS[name], "fp16"), ROWS[name].half().float())


@pytest.mark.parametrize("name", ROWS)
def test_int8_is_within_half_a_level(name: str) -> None:
    x = ROWS[name]
    level = x.abs().amax(1, keepdim=True) / 127
    gap = (returned(x, "int8") - x).abs()
    assert (gap <= 0.501 * level + 1e-38).all()


def test_int8_has_a_scale_for_each_row() -> None:
    x = torch.tensor([[1e-3, -4e-4], [1e3, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[1e-3, -51 / 127 * 1e-3], [1e3, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(returned(x, "int8"), expected)


@pytest.mark.parametrize(
    ("shape", "dim"), [((6, 8, 8), (2, 3)), ((64, 6), 1)], ids=["map", "tokens"]
)
def test_int8_has_a_scale_for_each_channel(shape: tuple[int, ...], dim: Any) -> None:
    size = torch.tensor([1e-3, 1.0, 0.0, 50.0, 1e-30, 3.0])
    x = torch.randn(4, *shape) * (size.view(6, 1, 1) if len(shape) == 3 else size)
    codec = make_codec(shape, "int8", scales="channel")
    rows = codec.encode(x.flatten(1))
    assert rows.shape == (4, codec.bytes) == (4, 4 * 6 + 6 * 64)
    error = (codec.decode(rows).view_as(x) - x).abs().amax(dim, keepdim=True)
    assert bool((error <= x.abs().amax(dim, keepdim=True) * (0.5 / 127 + 1e-6)).all())
    assert (
        not codec.decode(codec.encode(x.flatten(1).index_fill(1, torch.tensor(3), torch.nan)))
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("shape", [(64,), (16, 2, 2), (8, 40)])
def test_what_has_few_numbers_for_each_channel_has_one_scale(shape: tuple[int, ...]) -> None:
    assert make_codec(shape, "int8", scales="channel").bytes == 4 + prod(shape)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_softmax_of_top_logits_is_right_on_them_and_even_over_the_rest(dtype: str) -> None:
    x = 4 * torch.randn(6, 100, generator=torch.Generator().manual_seed(1))
    got, exact = returned(x, dtype, 7).softmax(1), x.softmax(1)
    top = x.topk(7).indices
    tolerance = {"fp32": 1e-5, "fp16": 1e-2}[dtype]
    torch.testing.assert_close(got.gather(1, top), exact.gather(1, top), rtol=tolerance, atol=1e-6)
    rest = got.scatter(1, top, torch.nan)
    for row, mass in zip(rest, 1 - exact.gather(1, top).sum(1), strict=True):
        others = row[~row.isnan()]
        assert others.max() - others.min() <= 1e-8
        assert float(others.sum()) == pytest.approx(float(mass), rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("top", [21, 22, 1000])
def test_as_many_logits_as_there_are_classes_are_all_of_them(top: int) -> None:
    assert torch.equal(returned(ROWS["normal"], "fp32", top), ROWS["normal"])


def test_many_classes_have_wide_indices() -> None:
    assert TopLogitsCodec(32767, torch.float16, 4).bytes == 4 + 8 + 8
    assert TopLogitsCodec(32768, torch.float16, 4).bytes == 4 + 8 + 16
    x = torch.zeros(1, 70_000)
    x[0, 69_999] = 9.0
    assert returned(x, "fp16", 1)[0, 69_999] == 9.0


def test_codes_come_back_as_the_bytes_they_are() -> None:
    codes = torch.randint(256, (4, 7), dtype=torch.uint8)
    assert torch.equal(returned(codes, "bits"), codes)


@pytest.mark.parametrize(("dtype", "top"), [("fp32", None), ("fp16", None), ("int8", None),
                                            ("fp32", 3)])  # fmt: skip
def test_what_is_not_finite_does_not_become_finite(dtype: str, top: int | None) -> None:
    for bad in (torch.nan, torch.inf):
        x = ROWS["normal"].clone()
        x[2, 4] = bad
        assert not returned(x, dtype, top)[2].isfinite().all()


def test_a_record_of_cifar_takes_712_bytes_in_fp16() -> None:
    features = {"penultimate": (256,), "logits": (100,)}
    sizes = {
        (dtype, top): Contract(
            "", "", "", "", "", 50_000, 162, features, dtype, top
        ).record_bytes
        for dtype, top in (("fp32", None), ("fp16", None), ("int8", None), ("fp16", 10))
    }  # fmt: skip
    assert list(sizes.values()) == [1424, 712, 364, 556]
