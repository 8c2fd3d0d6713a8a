"""Standardisation of features: what each kind does, undoes, measures and stores."""

import logging
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.vectors.build import Outputs
from understudy.methods._hadamard import hadamard, rotation
from understudy.methods._standardise import Standardiser, TokenMoments, measure

MEASURED = ("frozen", "ema", "phi_s")


def rows(count: int, dim: int, *, rank: int | None = None) -> Tensor:
    """Rows of very different scales, of full rank or less."""
    x = torch.randn(count, rank or dim).double() @ torch.randn(rank or dim, dim).double()
    return x * torch.logspace(-2, 2, dim).double() + 5


def measured(kind: str, x: Tensor) -> Standardiser:
    built = Standardiser(kind, x.shape[1]).double().eval()
    measure({"f": built}, Outputs({"f": x}), lambda features, name: features[name])
    return built


@pytest.mark.parametrize(("kind", "dim"), product(MEASURED, (1, 5, 8, 12, 92)))
def test_measured_features_have_deviation_one_and_come_back(kind: str, dim: int) -> None:
    x = rows(400, dim)
    built = measured(kind, x)
    y = built(x)
    assert y.mean(0).abs().max() < 1e-8
    if kind != "phi_s" or hadamard(dim) is not None:
        torch.testing.assert_close(y.var(0), torch.ones(dim).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(y.var(0).mean(), torch.ones(()).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(built.restore(y), x)


def test_phi_s_keeps_all_angles_and_needs_no_full_rank() -> None:
    x = rows(200, 12, rank=3)
    y = measured("phi_s", x)(x)
    torch.testing.assert_close(y.var(0), torch.ones(12).double())
    distances = torch.cdist(x, x) / torch.cdist(y, y).clamp_min(1e-9)
    scale = distances[~torch.eye(200, dtype=torch.bool)]
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))


@pytest.mark.parametrize("kind", MEASURED)
def test_dimensions_that_never_change_become_zero(kind: str) -> None:
    x = torch.full((30, 4), 7.0).double()
    assert not measured(kind, x)(x).any()
    x[:, 0] = torch.arange(30)
    assert measured(kind, x)(x).isfinite().all()


def test_many_batches_give_what_one_gives() -> None:
    x = rows(300, 6)
    whole, parts = (TokenMoments(6, joint=True) for _ in range(2))
    whole.add(x)
    for part in x.split(7):
        parts.add(part)
    torch.testing.assert_close(parts.covariance, whole.covariance)
    torch.testing.assert_close(whole.covariance, x.T.cov())
    torch.testing.assert_close(parts.mean, x.mean(0))


def test_a_map_is_measured_by_its_positions_of_which_a_part_is_enough() -> None:
    x = torch.randn(60, 3, 20, 20) * torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1)
    built = Standardiser("phi_s", 3)
    measure({"f": built}, Outputs({"f": x}), lambda features, name: features[name])
    expected = x.permute(0, 2, 3, 1).reshape(-1, 3).var(0).mean().sqrt()
    torch.testing.assert_close(built.scale, expected, rtol=0.2, atol=0)


def test_few_rows_are_said_to_be_few(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="understudy"):
        measured("phi_s", rows(20, 8))
    assert "8 dimensions of the teacher's f on 20 rows" in caplog.text


def test_moving_averages_change_in_training_alone_and_not_by_a_single_row() -> None:
    built = measured("ema", rows(50, 4))
    before = built.mean.clone()
    built(rows(10, 4))
    assert torch.equal(built.mean, before)
    built.train()(rows(1, 4))
    assert torch.equal(built.mean, before)
    built(rows(10, 4) + 100)
    assert (built.mean > before).all()
    published = Standardiser("ema", 4, momentum_steps=10)
    assert not published.measures
    x = torch.randn(20, 4)
    assert torch.allclose(published(x), x)
    torch.testing.assert_close(published.mean, x.mean(0))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 7, 12, 24, 28, 36, 52, 96, 384])
def test_a_rotation_is_orthogonal_and_of_equal_entries_where_it_can_be(order: int) -> None:
    matrix = rotation(order)
    identity = torch.eye(order).double()
    torch.testing.assert_close(matrix @ matrix.T, identity, rtol=0, atol=1e-12)
    if order in (3, 7, 52):
        assert hadamard(order) is None
    else:
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, order**-0.5))


@pytest.mark.parametrize("dim", [768, 1024, 1152, 1280, 1408, 1536, 4096])
def test_published_widths_have_a_hadamard_matrix(dim: int) -> None:
    found = hadamard(dim)
    assert found is not None
    probe = found[:3].float() @ found.T.float()
    assert torch.equal(probe, dim * torch.eye(3, dim))
