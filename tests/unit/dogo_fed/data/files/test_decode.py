"""Pixels of a file as a person sees them: range, orientation, ground; and one sentence if not."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from dogo_fed.data.colours import Colours
from dogo_fed.data.files import decode as decode_module
from dogo_fed.data.files.decode import Decoding, decode, size_of, without_pillows_limit
from dogo_fed.errors import DataError

HOW = Decoding(side=4)


def decoded(image, path, how=HOW, **save):
    image.save(path, **save)
    return decode(path, how).pixels


def ramp(top, dtype):
    """Returns 16 values from 0 to `top` in a square, and what they are of 255."""
    values = np.linspace(0, top, 16).reshape(4, 4)
    return values.astype(dtype), np.rint(values / top * 255)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, ending):
    values, expected = ramp(65535, np.uint16)
    pixels = decoded(Image.fromarray(values), tmp_path / f"a.{ending}")
    assert pixels.shape == (3, 4, 4) and pixels.dtype == np.uint8
    for channel in pixels:
        assert np.abs(channel - expected).max() <= 1


def tif_of_twelve_bits(values_HW):
    """A TIFF file as microscopes write it: two numbers in three bytes."""
    flat = values_HW.astype(int).ravel()
    packed = bytes(
        byte
        for one, two in zip(flat[::2], flat[1::2], strict=True)
        for byte in (one >> 4, (one & 15) << 4 | two >> 8, two & 255)
    )
    height, width = values_HW.shape
    short, long = 3, 4
    tags = (
        (256, long, width), (257, long, height), (258, short, 12), (259, short, 1), (262, short, 1),
        (273, long, 8), (277, short, 1), (278, long, height), (279, long, len(packed)),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    return head + packed + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def test_twelve_bits_are_scaled_by_their_own_range(tmp_path):
    """By that of 16 bits they would be nearly black."""
    values, expected = ramp(4095, np.uint16)
    path = tmp_path / "a.tif"
    path.write_bytes(tif_of_twelve_bits(values))
    for channel in decode(path, HOW).pixels:
        assert np.abs(channel - expected).max() <= 1


@pytest.mark.parametrize("top", [4095, 65535])
def test_a_pgm_file_says_itself_what_is_white(tmp_path, top):
    values, expected = ramp(top, np.dtype(">u2"))
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5\n4 4\n{top}\n".encode() + values.tobytes())
    for channel in decode(path, HOW).pixels:
        assert np.abs(channel - expected).max() <= 1


def test_a_stated_range_is_used_and_what_lies_outside_is_cut(tmp_path):
    values, expected = ramp(4095, np.uint16)
    how = Decoding(side=4, colours=Colours(channels=1, value_range=(0.0, 4095.0)))
    (grey,) = decoded(Image.fromarray(values), tmp_path / "a.png", how)
    assert np.abs(grey - expected).max() <= 1
    narrow = Decoding(side=4, colours=Colours(channels=1, value_range=(1000.0, 2000.0)))
    (grey,) = decode(tmp_path / "a.png", narrow).pixels
    assert grey.min() == 0 and grey.max() == 255


def test_floating_point_is_black_at_0_and_white_at_1(tmp_path):
    values, expected = ramp(1.0, np.float32)
    pixels = decoded(Image.fromarray(values), tmp_path / "a.tif")
    assert np.abs(pixels[0] - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((4, 4), 7.5, np.float32), "floating-point numbers from 7.5 to 7.5"),
        (np.arange(16, dtype=np.int32).reshape(4, 4), "32-bit integers from 0 to 15"),
    ],
)
def test_numbers_without_a_range_ask_for_one(tmp_path, values, says):
    with pytest.raises(DataError, match=says) as caught:
        decoded(Image.fromarray(values), tmp_path / "a.tif")
    assert "data.options.value_range=[" in str(caught.value)


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    stored = np.zeros((4, 4, 3), np.uint8)
    stored[:, :2] = 250  # left as stored, the top as seen
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decoded(Image.fromarray(stored), tmp_path / "a.png", exif=exif)
    assert (pixels[:, :2] == 250).all() and (pixels[:, 2:] == 0).all()


def test_the_size_is_that_of_the_image_as_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert size_of(tmp_path / "a.jpg") == (4, 9)
    (tmp_path / "b.jpg").write_bytes(b"no")
    assert size_of(tmp_path / "b.jpg") is None


def transparent(mode):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (0, 0, 2, 4))  # blue that nobody sees
    if mode == "P":
        return image.quantize(8)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
@pytest.mark.parametrize(("ground", "value"), [("white", 255), ("#808080", 128), ("black", 0)])
def test_transparent_pixels_show_the_ground(tmp_path, mode, ground, value):
    pixels = decoded(
        transparent(mode), tmp_path / "a.png", Decoding(side=4, colours=Colours(ground=ground))
    )
    assert (pixels[:, :, :2] == value).all()
    if mode != "LA":
        assert (pixels[0, :, 2:] == 255).all() and (pixels[1:, :, 2:] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_mode_gives_what_is_seen(tmp_path, mode):
    seen = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    pixels = decoded(seen, tmp_path / f"a.{ending}")
    assert pixels.shape == (3, 4, 4) and pixels.min() >= 250


def test_grey_stays_one_channel_if_asked(tmp_path):
    image = Image.new("RGB", (4, 4), (0, 255, 0))
    pixels = decoded(image, tmp_path / "a.png", Decoding(side=4, colours=Colours(channels=1)))
    assert pixels.shape == (1, 4, 4) and (pixels == 150).all()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_what_can_not_be_decoded_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode(path, HOW)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 200


def test_a_truncated_file_is_no_image(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError):
        decode(path, HOW)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_looks_the_same(
    tmp_path, monkeypatch, mode
):
    y, x = np.mgrid[0:600, 0:900] / 900
    photo = np.stack([np.sin(7 * x), np.cos(9 * y), np.sin(5 * x * y)], axis=-1) * 100 + 128
    image = Image.fromarray(photo.astype(np.uint8)).convert(mode)
    exif = image.getexif()
    exif[0x0112] = 6  # turned
    image.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    sizes = []
    original = decode_module.in_colours

    def seen(image, colours):
        sizes.append(image.size)
        return original(image, colours)

    monkeypatch.setattr(decode_module, "in_colours", seen)
    small = decode(tmp_path / "photo.jpg", Decoding(side=64)).pixels
    monkeypatch.setattr(decode_module, "_MORE_THAN_STORED", 100)
    whole = decode(tmp_path / "photo.jpg", Decoding(side=64)).pixels
    assert sizes == [(225, 150), (900, 600)], "a quarter is still twice as large as 64"
    assert np.abs(small.astype(int) - whole.astype(int)).max() <= 4
    assert decode(tmp_path / "photo.jpg", Decoding(side=200)).pixels.shape == (3, 200, 200)
    assert sizes[-1] == (900, 600), "600 is no twice 2 x 200"


@pytest.mark.parametrize("ending", ["gif", "tif", "webp", "png"])
def test_of_several_frames_the_first_is_taken_and_the_others_are_known_of(tmp_path, ending):
    first, second = (Image.new("RGB", (4, 4), (value, 0, 0)) for value in (255, 0))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    shown = decode(path, HOW)
    assert shown.has_more_frames and (shown.pixels[0] >= 250).all()
    first.save(path)
    assert not decode(path, HOW).has_more_frames


def test_a_preview_in_a_photo_is_no_further_frame(tmp_path):
    photo, preview = Image.new("RGB", (8, 8), (9, 9, 9)), Image.new("RGB", (4, 4), (9, 9, 9))
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "MPO"
    assert not decode(tmp_path / "a.jpg", HOW).has_more_frames


def test_what_is_broken_after_the_first_frame_does_not_matter(tmp_path, monkeypatch):
    def broken(opened):
        raise SyntaxError("no frame")

    monkeypatch.setattr(GifImageFile, "is_animated", property(broken))
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.gif")
    assert not decode(tmp_path / "a.gif", HOW).has_more_frames


def test_a_huge_image_is_refused_with_the_setting_that_takes_it(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("1", (20000, 10000)).save(path)
    with without_pillows_limit(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"200 megapixels, .*max_megapixels=179; set it to 201"):
            decode(path, HOW)
        assert decode(path, Decoding(side=4, max_megapixels=201)).pixels.shape == (3, 4, 4)


def test_pillows_own_limit_is_put_back():
    before = Image.MAX_IMAGE_PIXELS
    with without_pillows_limit():
        assert Image.MAX_IMAGE_PIXELS is None
    assert before == Image.MAX_IMAGE_PIXELS


def png_of_sixteen_bits(values_HWC, hidden=b""):
    """Returns a PNG file of 16-bit numbers with 1 to 4 channels, which Pillow can't write."""
    height, width, channels = values_HWC.shape
    rows = (b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)}
    parts |= {b"tRNS": hidden} if hidden else {}
    parts |= {b"IDAT": zlib.compress(b"".join(rows)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts.items()
    )


def tif_of_sixteen_bits(values_HWC, order, planar):
    """Returns a TIFF file of RGB in 16 bits, which Pillow can't write."""
    height, width, _ = values_HWC.shape
    stored = values_HWC.transpose(2, 0, 1) if planar == 2 else values_HWC
    data = stored.astype(f"{order}u2").tobytes()
    num = 3 if planar == 2 else 1
    bits, offsets, sizes, start = 200, 210, 230, 250
    places = [start + index * len(data) // 3 for index in range(3)]
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, num, offsets if num > 1 else start), (277, 3, 1, 3), (278, 3, 1, height),
        (279, 4, num, sizes if num > 1 else len(data)), (284, 3, 1, planar),
    ]  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, number, value in tags:
        one = struct.pack(f"{order}HH", value, 0) if kind == 3 and number == 1 else None
        head += struct.pack(f"{order}HHI", tag, kind, number) + (
            one or struct.pack(f"{order}I", value)
        )
    head = head.ljust(bits, b"\0") + struct.pack(f"{order}3H", 16, 16, 16)
    head = head.ljust(offsets, b"\0") + struct.pack(f"{order}3I", *places)
    head = head.ljust(sizes, b"\0") + struct.pack(f"{order}3I", *[len(data) // 3] * 3)
    return head.ljust(start, b"\0") + data


SIXTEEN_BITS = {
    "png": png_of_sixteen_bits,
    "ii.tif": lambda values: tif_of_sixteen_bits(values, "<", 1),
    "mm.tif": lambda values: tif_of_sixteen_bits(values, ">", 1),
    "planes.tif": lambda values: tif_of_sixteen_bits(values, "<", 2),
    "planes_mm.tif": lambda values: tif_of_sixteen_bits(values, ">", 2),
}
TWELVE_BITS = Decoding(side=4, colours=Colours(value_range=(0.0, 4095.0)))


def colours_up_to(top, channels=3):
    values = np.random.default_rng(0).integers(0, top + 1, (4, 4, channels))
    return values, values.transpose(2, 0, 1)


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
@pytest.mark.parametrize("from_memory", [True, False])
def test_a_stated_range_is_that_of_colours_too(tmp_path, kind, from_memory):
    """12 bits of a microscope in a file of 16: all of them count."""
    values, seen = colours_up_to(4095)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(SIXTEEN_BITS[kind](values))
    pixels = decode(io.BytesIO(path.read_bytes()) if from_memory else path, TWELVE_BITS).pixels
    assert np.array_equal(pixels, np.rint(seen / 4095 * 255))


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_colours_of_sixteen_bits_without_a_range_are_their_upper_bytes(tmp_path, kind):
    values, seen = colours_up_to(65535)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(SIXTEEN_BITS[kind](values))
    assert np.array_equal(decode(path, HOW).pixels, seen >> 8)


@pytest.mark.parametrize("planar", [1, 2])
def test_libtiff_gives_numbers_in_the_order_of_the_machine(tmp_path, monkeypatch, planar):
    """Compressed files are read by it; here, all are."""
    monkeypatch.setattr("PIL.TiffImagePlugin.READ_LIBTIFF", True)
    values, seen = colours_up_to(4095)
    path = tmp_path / "a.tif"
    path.write_bytes(tif_of_sixteen_bits(values, ">", planar))
    assert np.array_equal(decode(path, HOW).pixels, seen >> 8)
    if planar == 2:
        with pytest.raises(DataError, match="value_range can't be kept"):
            decode(path, TWELVE_BITS)
    else:
        assert np.array_equal(decode(path, TWELVE_BITS).pixels, np.rint(seen / 4095 * 255))


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_keeps_a_range_of_its_own(tmp_path, channels):
    values, seen = colours_up_to(4095, channels)
    values[..., -1] = 65535
    values[0, :, -1] = 0
    (tmp_path / "a.png").write_bytes(png_of_sixteen_bits(values))
    pixels = decode(tmp_path / "a.png", TWELVE_BITS).pixels
    assert (pixels[:, 0] == 255).all()  # the ground
    assert np.array_equal(pixels[0, 1:], np.rint(seen[0, 1:] / 4095 * 255))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_one_colour_of_sixteen_bits_that_is_transparent_shows_the_ground(tmp_path, channels):
    """1000 and 1001 are one grey in 8 bits, and only one of them is transparent."""
    values = np.full((4, 4, channels), 1001)
    values[0] = 1000
    hidden = np.full(channels, 1000, ">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png_of_sixteen_bits(values, hidden))
    for how in (TWELVE_BITS, HOW) if channels == 1 else (TWELVE_BITS,):
        pixels = decode(tmp_path / "a.png", how).pixels
        assert (pixels[:, 0] == 255).all() and (pixels[:, 1:] < 100).all()


def test_a_range_that_can_not_be_kept_is_refused_and_not_passed_over(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6\n4 4\n65535\n" + bytes(96))
    assert decode(tmp_path / "a.ppm", HOW).pixels.max() == 0
    with pytest.raises(
        DataError, match=r"PPM file, so data\.options\.value_range can't.*save it as"
    ):
        decode(tmp_path / "a.ppm", TWELVE_BITS)


@pytest.mark.parametrize("ending", ["png", "jp2", "ppm", "jpg", "tif"])
def test_a_range_does_not_touch_colours_of_eight_bits(tmp_path, ending):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8))
    path = tmp_path / f"a.{ending}"
    assert np.array_equal(decoded(image, path, TWELVE_BITS), decode(path, HOW).pixels)


def test_the_bits_of_jpeg_2000_are_read_from_its_head(tmp_path):
    path = tmp_path / "a.jp2"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    content[content.find(b"\xff\x4f\xff\x51") + 42] = 11  # of 12 bits
    with pytest.raises(DataError, match=r"JPEG2000 file, so data\.options\.value_range can't"):
        decode(io.BytesIO(bytes(content)), TWELVE_BITS)


def test_pixels_that_are_no_numbers_are_named_and_black_in_a_stated_range(tmp_path):
    values, _ = ramp(1.0, np.float32)
    values[0, :2] = np.nan, np.inf
    with pytest.raises(DataError, match="2 of them are NaN or infinite") as caught:
        decoded(Image.fromarray(values), tmp_path / "a.tif")
    proposed = re.search(r"value_range=\[(.*),(.*)\]", str(caught.value))
    limits = float(proposed[1]), float(proposed[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode(tmp_path / "a.tif", Decoding(side=4, colours=Colours(value_range=limits)))
    assert pixels.pixels[0, 0, 0] == 0 and pixels.pixels[0, 0, 1] == 255
    assert pixels.pixels[0, 3, 3] == 255


def test_no_number_at_all_is_said(tmp_path):
    with pytest.raises(DataError, match="none of its pixels is a number"):
        decoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), tmp_path / "a.tif")


def test_the_range_that_is_proposed_for_even_pixels_may_be_given(tmp_path):
    with pytest.raises(DataError, match=r"value_range=\[7.5,8.5\]"):
        decoded(Image.fromarray(np.full((4, 4), 7.5, np.float32)), tmp_path / "a.tif")
