import io
import zlib

import numpy as np
import pytest
from images import damaged, encode, huge_png, smooth
from PIL import Image, ImageFile

from simfle_jax.data import decode as module
from simfle_jax.data.decode import BadImage, decode, read_header


def resize_then_cut(image: Image.Image, canvas: int) -> np.ndarray:
    """torchvision's Resize(canvas) and CenterCrop(canvas) on a PIL image, written out."""
    width, height = image.size
    short = min(width, height)
    size = (int(canvas * width / short), int(canvas * height / short))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - canvas) / 2), round((size[1] - canvas) / 2)
    return np.asarray(image.crop((left, top, left + canvas, top + canvas)))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (50, 81), (81, 50), (20, 33), (37, 200), (31, 31)])
def test_equals_resize_and_centre_crop(height, width):
    pixels = noise(height, width)
    expected = resize_then_cut(Image.fromarray(pixels), 32)
    np.testing.assert_array_equal(decode(encode(pixels, "PNG"), 32), expected)


@pytest.mark.parametrize("size", [(32, 32), (32, 45), (60, 32)])
def test_an_image_of_the_right_size_is_only_cut(size):
    pixels = noise(*size)
    top, left = round((size[0] - 32) / 2), round((size[1] - 32) / 2)
    np.testing.assert_array_equal(decode(encode(pixels, "PNG"), 32), pixels[top : top + 32, left : left + 32])


def test_jpeg_of_canvas_size_agrees_with_pillow():
    data = encode(smooth(64, 64))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data, 64) - expected).max() <= 2  # two builds of libjpeg-turbo


def test_fills_the_array_it_is_given():
    batch = np.zeros((3, 24, 24, 3), np.uint8)
    for data in (encode(smooth(24, 24)), encode(smooth(40, 40)), encode(smooth(24, 24), "PNG")):
        batch[:] = 7
        assert decode(data, 24, batch[1]) is not None
        np.testing.assert_array_equal(batch[1], decode(data, 24))
        assert (batch[0] == 7).all() and (batch[2] == 7).all()


def test_scaled_decoding_stays_close_to_a_full_decode_and_never_enlarges(monkeypatch):
    data, sizes = encode(smooth(600, 900)), []
    original = module._fit
    monkeypatch.setattr(module, "_fit", lambda image, *rest: sizes.append(image.size) or original(image, *rest))
    got = decode(data, 112).astype(int)
    assert 112 <= sizes[0][1] <= 300  # read smaller than stored, not smaller than wanted
    full = resize_then_cut(Image.open(io.BytesIO(data)).convert("RGB"), 112)
    assert np.abs(got - full).mean() < 1.5


@pytest.mark.parametrize("size", [(120, 90), (150, 223), (300, 113)])
def test_files_less_than_twice_the_canvas_are_decoded_in_full(size, monkeypatch):
    sizes = []
    original = module._fit
    monkeypatch.setattr(module, "_fit", lambda image, *rest: sizes.append(image.size) or original(image, *rest))
    decode(encode(smooth(*size)), 90 if size == (120, 90) else 112)
    assert sizes == [] or sizes[0] == size[::-1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    turn = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]  # fmt: skip
    pixels, exif = smooth(32, 32), Image.Exif()
    exif[0x0112] = orientation
    got = decode(encode(pixels, kind, exif=exif), 32).astype(int)
    assert np.abs(got - turn(pixels)).max() <= 12


def test_broken_exif_is_no_reason_to_refuse():
    data = encode(smooth(32, 32))
    segment = b"\xff\xe1\x00\x0eExif\0\0garbage!"[:16]
    assert decode(data[:2] + segment + data[2:], 32).shape == (32, 32, 3)


def test_cmyk_jpeg_becomes_rgb():
    pixels = smooth(40, 40)
    got = decode(encode(Image.fromarray(pixels).convert("CMYK")), 40).astype(int)
    assert np.abs(got - pixels).max() <= 12


def test_grey_has_three_equal_channels():
    grey = Image.fromarray(smooth(32, 32)).convert("L")
    for kind in ("JPEG", "PNG"):
        got = decode(encode(grey, kind), 32)
        assert (got == got[..., :1]).all()
        assert np.abs(got[..., 0].astype(int) - np.asarray(grey)).max() <= 4


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    got = decode(encode(ramp, "PNG"), 32)
    np.testing.assert_array_equal(got[..., 1], ramp >> 8)


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palettes_and_bits(mode):
    image = Image.fromarray(smooth(32, 32)).convert(mode)
    np.testing.assert_array_equal(decode(encode(image, "PNG"), 32), np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_laid_on_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:] = (200, 10, 30, 255)
    expected = np.where(np.arange(32)[None, :, None] < 16, 255, [200, 10, 30]) * np.ones((32, 1, 1), int)
    np.testing.assert_array_equal(decode(encode(pixels, "PNG"), 32), expected)
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([9, 9, 9, 200, 10, 30])
    palette.paste(1, (16, 0, 32, 32))
    np.testing.assert_array_equal(decode(encode(palette, "PNG", transparency=0), 32), expected)
    np.testing.assert_array_equal(decode(encode(palette, "PNG", transparency=b"\0\xff"), 32), expected)


def test_first_frame_of_an_animation():
    first, second = smooth(32, 32, 1), smooth(32, 32, 2)
    data = encode(first, "WEBP", save_all=True, append_images=[Image.fromarray(second)], lossless=True)
    np.testing.assert_array_equal(decode(data, 32), first)


def test_a_very_long_image_costs_no_more_than_another(monkeypatch):
    data, sizes = encode(np.zeros((5000, 1, 3), np.uint8), "PNG"), []
    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *rest: sizes.append(to) or original(self, to, *rest))
    assert decode(data, 224).shape == (224, 224, 3)
    assert sizes == [(224, 224)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zero.jpg", "empty file"),
        ("text.jpg", "not a JPEG, PNG or WebP image"),
        ("html.png", "not a JPEG, PNG or WebP image"),
        ("truncated.jpg", "damaged: .*truncated"),
        ("header.jpg", "damaged|not an image"),
        ("truncated.png", "damaged: .*truncated"),
        ("truncated.webp", "damaged|not an image"),
        ("magic.jpg", "damaged|not an image"),
        ("checksum.png", "damaged|not an image"),
        ("noise.webp", "damaged|not an image"),
        ("bomb.png", "pixels"),
        ("bomb.jpg", "30000 x 30000 pixels, more than 89,478,485"),
    ],
)
def test_damaged_files_are_refused_with_a_reason(name, reason):
    with pytest.raises(BadImage, match=reason) as caught:
        decode(damaged()[name], 32)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as in a run: our own limit must refuse
@pytest.mark.parametrize("side", [9_500, 30_000])
def test_an_enormous_image_is_refused_from_its_header(side, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were decoded"))
    with pytest.raises(BadImage, match="pixels"):
        decode(huge_png(side), 32)


def test_a_jpeg_with_rubbish_after_its_end_is_used():
    data = encode(smooth(32, 32))
    np.testing.assert_array_equal(decode(data + b"rubbish" * 100, 32), decode(data, 32))


@pytest.mark.parametrize("canvas", [40, 64, 112, 128, 160])
def test_reduced_decoding_keeps_oblong_photographs_in_place(canvas):
    """Sizes at which libjpeg's rounding changes the proportions: the result stays beside that of a full decode."""
    sizes = [(700, 1000), (1000, 700), (401, 1193), (1187, 613), (333, 998), (641, 970), (997, 355)]
    errors = {}
    for height, width in sizes:
        if min(height, width) >= 2 * canvas:
            coarse = np.random.default_rng(height).integers(0, 256, (8, 8, 3), np.uint8)
            detailed = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            data = encode(detailed)
            full = resize_then_cut(Image.open(io.BytesIO(data)).convert("RGB"), canvas).astype(int)
            errors[height, width] = np.abs(decode(data, canvas) - full).mean()
    assert len(errors) >= 6 and max(errors.values()) < 0.75, f"grey levels beside a full decode: {errors}"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def xmp(orientation: int) -> bytes:
    return b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="%d"/>' % orientation


@pytest.mark.parametrize(
    "before",
    [
        [segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))] * 5,
        [segment(0xED, b"Photoshop 3.0\0" + b"\xff" * 65_000)] * 2,
        [segment(0xFE, b"Exif\0\0" + bytes(7000))],
        [b"\xff\xff\xff"],
    ],
    ids=["profile", "photoshop", "comment", "fill bytes"],
)
def test_exif_orientation_is_found_behind_anything(before):
    pixels = smooth(32, 32)
    data = encode(pixels)
    turned = data[:2] + b"".join(before) + segment(0xE1, exif(6)) + data[2:]
    assert np.abs(decode(turned, 32).astype(int) - np.rot90(pixels, -1)).max() <= 12


def test_orientation_of_xmp_counts_where_exif_has_none():
    pixels = smooth(32, 32)
    data = encode(pixels)
    alone = data[:2] + segment(0xE1, xmp(3)) + data[2:]
    assert np.abs(decode(alone, 32).astype(int) - pixels[::-1, ::-1]).max() <= 12
    beside = data[:2] + segment(0xE1, exif(1)) + segment(0xE1, xmp(3)) + data[2:]
    assert np.abs(decode(beside, 32).astype(int) - pixels).max() <= 12


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "EPS"])
def test_formats_that_no_photograph_of_a_data_set_has_are_refused_unopened(kind, monkeypatch):
    data = encode(smooth(16, 16), kind)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was opened"))
    with pytest.raises(BadImage, match="not a JPEG, PNG or WebP image"):
        decode(data, 16)


def png_with(name: bytes, content: bytes, checksum: bytes | None = None) -> bytes:
    """A PNG with one chunk more before its pixels."""
    data = encode(smooth(32, 32), "PNG")
    checksum = checksum or zlib.crc32(name + content).to_bytes(4)
    return data[:33] + len(content).to_bytes(4) + name + content + checksum + data[33:]


LONG = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize(
    "data",
    [
        png_with(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
        png_with(b"zTXt", b"Raw\0\0" + LONG),
        png_with(b"iCCP", b"icc\0\0" + LONG),
        png_with(b"gAMA", (45455).to_bytes(4), bytes(4)),
        png_with(b"tEXt", b"Comment\0wrong", bytes(4)),
    ],
    ids=["iTXt", "zTXt", "iCCP", "gAMA", "tEXt"],
)
def test_a_png_is_judged_by_its_pixels_alone(data):
    np.testing.assert_array_equal(decode(data, 32), smooth(32, 32))
    assert read_header(data).size == (32, 32)


def test_orientation_survives_where_a_text_of_the_png_does_not():
    plain = encode(smooth(32, 32), "PNG", exif=exif(6))
    text = b"Raw\0\0" + LONG
    chunk = len(text).to_bytes(4) + b"zTXt" + text + zlib.crc32(b"zTXt" + text).to_bytes(4)
    np.testing.assert_array_equal(decode(plain[:33] + chunk + plain[33:], 32), np.rot90(smooth(32, 32), -1))


def test_a_jpeg_of_12_bits_is_called_that():
    data = bytearray(encode(smooth(32, 32)))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    with pytest.raises(BadImage, match="a JPEG of 12 bits a colour"):
        decode(bytes(data), 32)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_used(mode):
    data = encode(Image.fromarray(smooth(48, 48)).convert(mode))
    assert data.endswith(b"\xff\xd9")
    assert np.abs(decode(data[:-2], 32).astype(int) - decode(data, 32)).max() <= 2
    for missing in (40, len(data) // 3):
        with pytest.raises(BadImage, match="truncated"):
            decode(data[:-missing], 32)


def test_a_progressive_jpeg_without_its_end_is_refused_for_scans_may_be_missing():
    data = encode(smooth(256, 256), progressive=True)
    assert decode(data, 32).shape == (32, 32, 3)
    with pytest.raises(BadImage, match="truncated"):
        decode(data[:-2], 32)
