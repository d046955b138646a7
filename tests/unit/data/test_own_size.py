"""Images decoded at their own size, and the canvas that fits a data set."""

import io
import struct

import numpy as np
import pytest
from images import damaged, encode, smooth
from PIL import Image

from simfle_jax.data import decode as module
from simfle_jax.data import fitting
from simfle_jax.data.array_record import ArrayRecordSource
from simfle_jax.data.cache import cached
from simfle_jax.data.decode import BadImage, decode, decode_at_own_size, reduction
from simfle_jax.data.fitting import fitting_canvas
from simfle_jax.data.packing import pack
from simfle_jax.data.pipeline import TrainBatches, eval_batches
from simfle_jax.data.sources import FolderSource


def decoded(data, canvas: int, least: int) -> tuple[int, np.ndarray]:
    """The side and the canvas, in which nothing was before that could be taken for 0."""
    out = np.full((canvas, canvas, 3), 7, np.uint8)
    return decode_at_own_size(data, canvas, least, out), out


def promising(height: int, width: int) -> bytes:
    """A JPEG whose header promises this size."""
    data = encode(smooth(16, 16))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.fixture
def never_resized(monkeypatch):
    def refuse(*_):
        raise AssertionError("resized on the host")

    monkeypatch.setattr(Image.Image, "resize", refuse)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("height", "width", "side"), [(32, 32, 32), (9, 9, 9), (20, 31, 20), (300, 18, 18), (1, 40, 1)]
)
def test_the_central_square_keeps_its_pixels(kind, height, width, side, never_resized):
    options = {} if kind == "JPEG" else {"lossless": True}
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    data = encode(pixels, kind, **options)
    found, canvas = decoded(data, 32, 32)
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    top, left = round((height - side) / 2), round((width - side) / 2)
    assert found == side
    assert np.abs(canvas[:side, :side] - stored[top : top + side, left : left + side]).max() <= (
        2 if kind == "JPEG" else 0
    )
    assert not canvas[side:].any() and not canvas[:, side:].any(), "the rest of the canvas is 0"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 32), (63, 90, 32), (100, 100, 25), (250, 400, 32)])
def test_a_large_image_is_divided_until_it_fits(kind, height, width, side, never_resized):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found, canvas = decoded(encode(pixels, kind), 32, 16)
    assert found == side and canvas[:side, :side].all(axis=-1).mean() > 0.9
    assert not canvas[side:].any() and not canvas[:, side:].any()


def test_dividing_keeps_the_picture():
    for kind in ("JPEG", "PNG"):
        side, canvas = decoded(encode(smooth(96, 96), kind), 60, 30)
        whole = np.asarray(Image.fromarray(smooth(96, 96)).resize((side, side), Image.Resampling.BOX)).astype(int)
        assert side == 48 and np.abs(canvas[:side, :side] - whole).mean() < 2, kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_dividing_would_make_too_small_is_resized_to_the_canvas(kind):
    data = encode(smooth(50, 50), kind)
    side, canvas = decoded(data, 48, 48)
    assert side == 48
    np.testing.assert_array_equal(canvas, decode(data, 48))


def test_pixels_of_a_tensor_are_treated_as_a_files():
    for shape in ((20, 31), (64, 70), (50, 50)):
        pixels = smooth(*shape)
        from_file, from_pixels = decoded(encode(pixels, "PNG"), 32, 16), decoded(pixels, 32, 16)
        assert from_file[0] == from_pixels[0]
        np.testing.assert_array_equal(from_file[1], from_pixels[1])


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = smooth(24, 24)
    turned = {3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}[orientation]
    side, canvas = decoded(encode(pixels, exif=exif.tobytes()), 32, 16)
    assert side == 24 and np.abs(canvas[:24, :24].astype(int) - turned).mean() < 6


@pytest.mark.parametrize("name", damaged())
def test_what_decode_refuses_is_refused(name):
    with pytest.raises(BadImage):
        decoded(damaged()[name], 32, 16)


def test_the_division_of_every_size():
    assert [reduction(side, 448, 224) for side in (1, 448, 449, 896, 897, 1024, 3584, 3585)] == [1, 1, 2, 2, 4, 4, 8, 0]
    assert all(224 <= -(-side // reduction(side, 448, 224)) <= 448 for side in range(449, 3585)), (
        "every image has as many pixels as a view afterwards"
    )
    assert reduction(50, 48, 48) == 0 and reduction(96, 48, 48) == 2


# ---------------------------------------------------------------- data sets


def folder(root, *images: bytes) -> FolderSource:
    root.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(images):
        (root / f"{number:04d}.jpg").write_bytes(data)
    return FolderSource(root)


def faces(*sides: int) -> list[bytes]:
    return [encode(smooth(side, side, number)) for number, side in enumerate(sides)]


@pytest.mark.parametrize(
    ("sides", "canvas"),
    [
        ([48] * 5, 48),
        ([100] * 3, 100),
        ([448], 448),
        ([449], 225),
        ([512, 512], 256),
        ([4], 8),
        ([48] * 15 + [90] * 5, 90),
    ],
)
def test_the_canvas_is_what_the_images_need(sides, canvas, tmp_path):
    assert fitting_canvas(folder(tmp_path / "a", *faces(*sides)), 448, 224) == canvas


def test_one_huge_image_does_not_enlarge_the_canvas_of_all(tmp_path):
    source = folder(tmp_path / "a", *faces(*[48] * 39), promising(20_000, 4_000))
    assert fitting_canvas(source, 448, 224) == 48
    many = folder(tmp_path / "b", *faces(*[48] * 6), *[promising(20_000, 4_000)] * 6)
    assert fitting_canvas(many, 448, 224) == 448, "never above the largest"


def test_a_large_image_that_the_sample_missed_is_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAMPLE", 3)
    source = folder(tmp_path / "a", *faces(*[24] * 11), encode(smooth(900, 1300)))
    canvas = fitting_canvas(source, 448, 224)
    assert canvas == 24
    (batch,) = eval_batches(source, batch_size=12, canvas=canvas, least=224)
    assert batch["valid"].all() and batch["side"].tolist() == [24] * 12


def test_unreadable_images_have_no_say(tmp_path):
    assert fitting_canvas(folder(tmp_path / "a", b"none", *faces(30, 30)), 448, 224) == 30
    assert fitting_canvas(folder(tmp_path / "b", b"none", b""), 448, 224) == 448


def test_a_pack_has_the_folders_canvas_and_batches_and_so_has_a_cache(tmp_path):
    source = folder(tmp_path / "faces", *faces(*[12, 20, 33, 31, 64, 70, 200, 5] * 3))
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"))
    packed = ArrayRecordSource(tmp_path / "pack")
    canvas = fitting_canvas(source, 32, 16)
    assert canvas == fitting_canvas(packed, 32, 16) == 32
    kept = cached(source, canvas, str(tmp_path / "cache"), least=16)
    assert kept[0].data.shape == (12, 12, 3)
    streams = [
        TrainBatches(each, seed=1, batch_size=8, canvas=canvas, least=16, threads=2) for each in (source, packed, kept)
    ]
    for _ in range(5):
        one, *others = (next(stream) for stream in streams)
        assert one["side"].dtype == np.int32 and len(set(one["side"].tolist())) > 2
        for other in others:
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    for stream in streams:
        stream.close()


def test_a_cache_of_filled_canvases_is_not_taken_for_one_of_own_sizes(tmp_path):
    source, path = folder(tmp_path / "faces", *faces(12, 20, 16)), str(tmp_path / "cache")
    assert cached(source, 16, path)[0].data.shape == (16, 16, 3)
    assert cached(source, 16, path, least=16)[0].data.shape == (12, 12, 3)


def test_the_headers_alone_are_decoded_for_the_canvas(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_rgb", None)
    monkeypatch.setattr(module.simplejpeg, "decode_jpeg", None)
    assert fitting_canvas(folder(tmp_path / "a", *faces(40, 40), encode(smooth(40, 40), "PNG")), 448, 224) == 40
