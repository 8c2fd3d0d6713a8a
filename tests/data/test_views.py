import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from understudy.data import CLEAN, FileViews, MemorySource, MemoryViews
from understudy.data._random import counter_hash
from understudy.data.views import Augment, make_views
from understudy.errors import DataError

SIZE = 32
AUGMENTS: list[Augment] = ["none", "flip", "crop_flip", "resized_crop"]


def source(images: int = 7, size: int = SIZE) -> MemorySource:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    return MemorySource(pixels, torch.arange(images) % 2, ("a", "b"))


def ints(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def reference(pixels: Tensor, number: int) -> Tensor:
    """View `number` of 162, by torchvision."""
    mirrored, place = divmod(number, 81)
    top, left = divmod(place, 9)
    shown = tv.crop(tv.pad(pixels, [4]), top, left, SIZE, SIZE)
    return (tv.horizontal_flip(shown) if mirrored else shown) / 255


@given(st.integers(0, 6), st.integers(0, 161))
def test_a_numbered_view_is_torchvisions_to_the_bit(i: int, number: int) -> None:
    data = source()
    views = MemoryViews(data.pixels, augment="crop_flip", size=SIZE, seed=0)
    assert views.count == 162
    shown = views.show(ints(i), ints(number))
    assert torch.equal(shown[0], reference(data.pixels[i], number))


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_the_layout_changes_no_value(augment: Augment) -> None:
    data, index = source(), torch.arange(7)
    shown = [
        make_views(data, augment=augment, size=SIZE, seed=0, channels_last=last)(index, index)
        for last in (False, True)
    ]
    assert torch.equal(*shown)
    assert shown[0].is_contiguous()
    assert shown[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_view_of_images_that_are_no_squares(channels_last: bool) -> None:
    pixels = source().pixels[:, :, :20]
    views = MemoryViews(pixels, augment="crop_flip", size=24, seed=0, channels_last=channels_last)
    for number in range(162):
        mirrored, place = divmod(number, 81)
        shown = tv.crop(tv.pad(pixels[5], [4]), *divmod(place, 9), 20, SIZE)
        plain = (tv.horizontal_flip(shown) if mirrored else shown)[None] / 255
        expected = F.interpolate(plain, (24, 24), mode="bilinear", antialias=True).clamp(0, 1)
        torch.testing.assert_close(views.show(ints(5), ints(number)), expected)


@pytest.mark.parametrize(("augment", "count"), [("none", 1), ("flip", 2)])
def test_fewer_augmentations_have_fewer_views(augment: Augment, count: int) -> None:
    data = source()
    views = MemoryViews(data.pixels, augment=augment, size=SIZE, seed=0)  # type: ignore[arg-type]
    plain = data.pixels[:1].float() / 255
    assert views.count == count
    assert torch.equal(views.show(ints(0), ints(0)), plain)
    if count == 2:
        assert torch.equal(views.show(ints(0), ints(1)), plain.flip(-1))


def test_the_hash_reaches_all_views_of_an_image() -> None:
    views = MemoryViews(source().pixels, augment="crop_flip", size=SIZE, seed=0)
    many = torch.arange(3000)
    assert len(views.number(torch.zeros_like(many), many).unique()) == 162


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("in_memory", [True, False])
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 9)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_a_view_depends_on_nothing_but_its_numbers(
    augment: Augment, jitter: float, in_memory: bool, rows: list[tuple[int, int]], seed: int
) -> None:
    make = make_views if in_memory else FileViews
    views = make(source(), augment=augment, size=SIZE, seed=seed, jitter=jitter)
    together = views(*torch.tensor(rows).T)
    alone = [views(ints(i), ints(v))[0] for i, v in reversed(rows)]
    assert torch.equal(together, torch.stack(alone[::-1]))
    assert together.dtype == torch.float32
    assert together.shape == (len(rows), 3, SIZE, SIZE)
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize("make", [make_views, FileViews])
def test_seed_image_and_view_all_matter(make: type[FileViews]) -> None:
    data = source(64)
    same = MemorySource(data.pixels[:1].expand(64, -1, -1, -1).clone(), data.labels, ())
    rows, zeros = torch.arange(64), torch.zeros(64, dtype=torch.int64)
    views = make(same, augment="crop_flip", size=SIZE, seed=0)
    other_seed = make(same, augment="crop_flip", size=SIZE, seed=1)
    base = views(zeros, zeros)
    for changed in (views(rows, zeros), views(zeros, rows), other_seed(rows, zeros)):
        different = (changed != base).flatten(1).any(1)
        assert different.float().mean() > 0.8
    assert not torch.equal(views(rows, zeros), views(zeros, rows))
    assert not torch.equal(views(rows, zeros), other_seed(rows, zeros))


@pytest.mark.parametrize("make", [make_views, FileViews])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_the_clean_view_of_an_image_of_the_right_size_is_the_image(
    make: type[FileViews], augment: Augment
) -> None:
    data = source()
    index = torch.arange(7)
    shown = make(data, augment=augment, size=SIZE, seed=0)(index, torch.full_like(index, CLEAN))
    assert torch.equal(shown, data.pixels.float() / 255)


def test_random_generators_are_left_as_they_were() -> None:
    views = FileViews(source(), augment="resized_crop", size=SIZE, seed=0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    views(ints(0, 1), ints(0, 5))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_clean_view_of_a_photo_is_resize_and_centre_crop() -> None:
    data = source(2, size=100)
    clean = v2.Compose([v2.ToPILImage(), v2.Resize(73), v2.CenterCrop(64), v2.PILToTensor()])
    views = FileViews(data, augment="resized_crop", size=64, seed=0)
    assert torch.equal(views(ints(1), ints(CLEAN))[0], clean(data.pixels[1]).float() / 255)


@given(st.integers(0, 2**31), st.integers(0, 9))
def test_a_resized_crop_is_torchvisions_to_the_bit(seed: int, view: int) -> None:
    data = source(2, size=80)
    views = FileViews(data, augment="resized_crop", size=48, seed=seed)
    theirs = v2.Compose([v2.RandomResizedCrop(48, antialias=True), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(counter_hash(seed, ints(1), ints(view))))
        expected = theirs(data.pixels[1])
    assert torch.equal(views(ints(1), ints(view))[0], expected / 255)
    assert views.description == f"{theirs}, seed {seed}; evaluation: {views.clean}"


@pytest.mark.parametrize("augment", AUGMENTS)
def test_jitter_changes_colours_after_the_crop(augment: Augment) -> None:
    data, index = source(), torch.arange(7)
    plain = FileViews(data, augment=augment, size=SIZE, seed=0)
    views = make_views(data, augment=augment, size=SIZE, seed=0, jitter=0.4)
    assert isinstance(views, FileViews)
    assert views.description != plain.description
    assert not torch.equal(views(index, index), plain(index, index))
    jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(counter_hash(0, ints(3), ints(2))))
        expected = jitter(plain.transform(data.pixels[3]))
    assert torch.equal(views(ints(3), ints(2))[0], expected / 255)
    clean = torch.full_like(index, CLEAN)
    assert torch.equal(views(index, clean), plain(index, clean))


def test_no_jitter_is_no_change() -> None:
    for augment in AUGMENTS:
        shown = [
            make_views(source(), augment=augment, size=SIZE, seed=0, **options)
            for options in ({}, {"jitter": 0.0})
        ]
        assert type(shown[0]) is type(shown[1])
        assert shown[0].description == shown[1].description


def test_a_negative_jitter_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.jitter is -0\.1; a strength must be 0 or above"):
        make_views(source(), augment="flip", size=SIZE, seed=0, jitter=-0.1)


def test_a_transform_of_another_size_is_refused() -> None:
    views = FileViews(source(), augment="none", size=16, seed=0, transform=v2.RandomCrop(20))
    with pytest.raises(DataError, match=r"shape \(3, 20, 20\) where \(3, 16, 16\) is expected"):
        views(ints(0), ints(0))


def test_a_transform_of_the_callers_own() -> None:
    transform = v2.Compose(
        [v2.RandomRotation(30), v2.ColorJitter(0.4), v2.ToDtype(torch.float32, scale=True)]
    )
    views = FileViews(source(), augment="none", size=SIZE, seed=0, transform=transform)
    shown = views(ints(0, 0, 0), ints(1, 2, 1))
    assert torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[1])


def test_memory_images_are_resized_to_another_size() -> None:
    views = MemoryViews(source().pixels, augment="crop_flip", size=48, seed=0)
    shown = views(ints(0, 1), ints(0, 0))
    assert shown.shape == (2, 3, 48, 48)
    assert 0 <= shown.min() < shown.max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_shows_the_same_pixels() -> None:
    data = source()
    index, view = torch.arange(7), torch.arange(7) + CLEAN
    shown = [
        MemoryViews(data.pixels.to(device), augment="crop_flip", size=SIZE, seed=0)(index, view)
        for device in ("cpu", "cuda")
    ]
    assert torch.equal(shown[0], shown[1].cpu())


def test_pixels_in_memory_are_shown_in_batches() -> None:
    assert isinstance(make_views(source(), augment="crop_flip", size=SIZE, seed=0), MemoryViews)
    assert isinstance(make_views(source(), augment="resized_crop", size=SIZE, seed=0), FileViews)


OBLONG = (48, 20)


def photographs() -> MemorySource:
    """Images of one size that is neither that of the views nor of their proportions."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 40, 60), dtype=torch.uint8, generator=generator)
    return MemorySource(pixels, torch.zeros(3, dtype=torch.int64), ("a",))


@pytest.mark.parametrize("augment", [*AUGMENTS, "squash_flip"])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_views_may_be_oblong(augment: Augment, jitter: float) -> None:
    views = make_views(photographs(), augment=augment, size=OBLONG, seed=0, jitter=jitter)
    index = torch.arange(3)
    assert views(index, index).shape == (3, 3, *OBLONG)
    clean = views(index, torch.full((3,), CLEAN))
    assert torch.equal(clean[0], views.evaluation(photographs().image(0)))


def test_an_oblong_view_of_evaluation_keeps_the_proportions() -> None:
    """The lines of a picture's grid stay as far apart in height as in width."""
    grid = torch.zeros(3, 80, 160, dtype=torch.uint8)
    grid[:, ::16] = grid[:, :, ::16] = 255
    source = MemorySource(grid[None], torch.zeros(1, dtype=torch.int64), ("a",))
    views = make_views(source, augment="resized_crop", size=(70, 35), seed=0)
    clean = views(ints(0), ints(CLEAN))[0, 0]
    assert views.evaluation.resize == (80, 40)
    # Height 80 covers 80, so that nothing is resized: the centre of 70 × 35 is cut out.
    assert torch.equal(clean, grid[0, 5:75, 62:97] / 255)


def test_the_proportions_of_random_crops_vary_about_those_of_the_view() -> None:
    views = make_views(photographs(), augment="resized_crop", size=(20, 40), seed=0)
    assert isinstance(views, FileViews)
    low, high = views.transform.transforms[0].ratio
    assert (low, high) == pytest.approx((1.5, 8 / 3))


def test_images_of_the_size_of_oblong_views_are_not_cropped() -> None:
    data = photographs()
    views = make_views(data, augment="resized_crop", size=(40, 60), seed=0)
    assert torch.equal(views(ints(1), ints(CLEAN))[0], data.pixels[1] / 255)
