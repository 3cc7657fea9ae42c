"""Pixels of a file as a person sees them: range, orientation, ground; and one sentence if not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from dogo_fed.data.colours import Colours
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
