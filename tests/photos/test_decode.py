from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from catordog.errors import CatordogError, PhotoError
from catordog.photos import decode as decode_module
from catordog.photos.colour import array_to_image, to_rgb
from catordog.photos.decode import DecodeRules, decode
from conftest import jpeg, picture, save

RED = (200, 40, 30)


def half_red(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    """Red on the left, black on the right, so that rotating and mirroring it can be seen."""
    image = Image.new("RGB", size, "black")
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
def test_every_format_gives_the_same_upright_rgb_picture(form):
    image = decode(save(half_red(), form))
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert np.allclose(image.getpixel((5, 12)), RED, atol=12)
    assert max(image.getpixel((35, 12))) < 20


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("LA", "PNG")]
)
def test_every_colour_mode_becomes_rgb(mode, form):
    image = decode(save(half_red(mode), form))
    assert image.mode == "RGB"
    assert sum(image.getpixel((5, 12))) > sum(image.getpixel((35, 12)))


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = Image.fromarray(np.full((8, 8), 32896, np.uint16))
    assert decode(save(grey, "PNG")).getpixel((4, 4)) == (128, 128, 128)


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decode(save(image, "PNG")).getpixel((1, 1)) == (255, 255, 255)


def on_white(image: Image.Image) -> np.ndarray:
    """What compositing an image on white gives, in exact numbers."""
    values = np.asarray(image.convert("RGBA")).astype(float)
    opacity = values[:, :, 3:] / 255
    return values[:, :, :3] * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_of_every_mode_is_composited_exactly(mode):
    image = picture(1, (1500, 1400)).convert("RGBA")  # of more than one strip
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    if mode == "P":
        image = image.quantize(64)
    else:
        image = image.convert("LA" if mode == "PA" else mode).convert(mode)
    found = [to_rgb(image)]
    if mode != "PA":
        found.append(decode(save(image, "PNG")))
    for each in found:
        assert np.abs(np.asarray(each) - on_white(image)).max() <= 0.51


@pytest.mark.parametrize("colour", [(250, 0, 200), (64250, 9, 51400)])
def test_one_transparent_colour_is_laid_on_white(colour):
    image = picture(1)
    image.paste((250, 0, 200), (0, 0, 20, 48))
    before = np.asarray(image)
    found = np.asarray(decode(save(image, "PNG", transparency=colour)))
    if max(colour) > 255:  # Pillow writes no PNG with 16 bits
        image.info["transparency"] = colour
        found = np.asarray(to_rgb(image))
    assert (found[:, :20] == 255).all()
    assert (found[:, 20:] == before[:, 20:]).all()


MEASURE = """
import resource, sys, threading
from catordog.photos.decode import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
threads = [threading.Thread(target=decode, args=(data,)) for _ in range(int(sys.argv[1]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in KiB on Linux only")
@pytest.mark.parametrize(
    ("mode", "count", "most"), [("LA", 1, 260), ("P", 1, 170), ("RGBA", 6, 560)]
)
def test_large_photos_with_transparency_take_little_memory(mode, count, most):
    """A photo of 25 megapixels takes 100 MB in each of RGBA and RGB."""
    image = Image.new("RGBA", (5000, 5000), (200, 40, 30, 128))
    data = save(image.quantize(2) if mode == "P" else image.convert(mode), "PNG", compress_level=1)
    words = [sys.executable, "-c", MEASURE, str(count)]
    taken = subprocess.run(words, input=data, capture_output=True, check=True).stdout
    assert int(taken) < most


class TestPixelsAtOnce:
    def test_photos_wait_for_one_another_and_a_larger_one_is_alone(self):
        at_once = decode_module._PixelsAtOnce(10)
        now, most, lock = [0], [0], threading.Lock()

        def work(pixels: int) -> None:
            with at_once.taken(pixels):
                with lock:
                    now[0] += pixels
                    most[0] = max(most[0], now[0])
                time.sleep(0.002)
                with lock:
                    now[0] -= pixels

        sizes = [1, 4, 6, 10, 40, 3] * 5
        threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert now[0] == 0
        assert most[0] == 40

    def test_a_damaged_photo_gives_back_what_it_took(self):
        data = save(half_red(size=(400, 400)), "PNG")[:-300]
        for _ in range(3):
            with pytest.raises(PhotoError):
                decode(data)
        assert decode_module._pixels_at_once(decode_module.os.getpid())._free == 64_000_000


def test_progressive_jpeg_is_read():
    assert decode(save(half_red(), "JPEG", progressive=True)).size == (40, 24)


def test_the_exif_rotation_of_a_phone_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image = decode(save(half_red(), "JPEG", exif=exif, quality=95))
    assert image.size == (24, 40)
    assert np.allclose(image.getpixel((12, 5)), RED, atol=12)  # the left side is on top


def test_an_embedded_profile_is_converted_to_srgb():
    """A profile whose red and blue are swapped turns red pixels into blue ones."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = srgb.index(b"rXYZ"), srgb.index(b"bXYZ")
    srgb[red : red + 4], srgb[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = Image.new("RGB", (8, 8), (200, 40, 30))
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
        found = decode(save(image, form, icc_profile=bytes(srgb))).getpixel((4, 4))
        assert found == pytest.approx((30, 40, 200), abs=12), form


def test_an_srgb_profile_changes_nothing_and_a_broken_one_is_ignored():
    image = Image.new("RGB", (8, 8), (100, 100, 200))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile", srgb[:200]):
        found = decode(save(image, "PNG", icc_profile=profile)).getpixel((1, 1))
        assert found == pytest.approx((100, 100, 200), abs=1)


def test_heic_is_read_if_its_library_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(half_red(size=(64, 48))).save(file, quality=95)
    image = decode(file.getvalue())
    assert image.size == (64, 48)
    assert np.allclose(image.getpixel((8, 24)), RED, atol=20)
    with pytest.raises(PhotoError, match="a HEIC whose header is damaged"):
        decode(file.getvalue()[:300])


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((1, 1)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_near_the_size_that_is_needed():
    data = save(Image.new("RGB", (2000, 1200), RED), "JPEG")
    small = decode(data, near=64)
    assert 128 <= min(small.size) < 300
    assert decode(data).size == (2000, 1200)


def test_the_format_is_decided_by_content_and_not_by_name():
    assert decode(save(half_red(), "PNG"), "cat.jpg").size == (40, 24)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        (b"just some words\n" * 9, "it is text"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (bytes(600), "only zeros"),
        (b"\xff\xd8\xff" + b"\x00junk" * 20, "a JPEG whose header is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "a PNG whose header is damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_an_error_says_what_a_file_is_that_is_no_photo(data, reason):
    with pytest.raises(PhotoError, match=reason) as caught:
        decode(data, "thing.jpg")
    assert "thing.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("installed", "reason"),
    [(True, "a HEIC whose header is damaged"), (False, r"pip install 'catordog\[heic\]'")],
)
def test_an_undecodable_heic_says_whether_its_reader_is_missing(installed, reason, monkeypatch):
    monkeypatch.setattr(decode_module, "_heif", lambda: installed)
    monkeypatch.setattr(decode_module, "_formats", lambda _: decode_module.FORMATS)
    with pytest.raises(PhotoError, match=reason):
        decode(b"\x00\x00\x00\x18ftypheic" + bytes(range(200)))


def test_a_truncated_photo_is_refused_unless_allowed():
    data = save(half_red(size=(400, 400)), "JPEG")
    half = data[: int(len(data) * 0.6)]
    with pytest.raises(PhotoError, match="truncated"):
        decode(half)
    assert decode(half, rules=DecodeRules(allow_truncated=True)).size == (400, 400)


def test_a_decompression_bomb_is_refused_before_its_pixels_are_allocated():
    bomb = save(Image.new("1", (20_000, 20_000)), "PNG")  # 50 kB for 400 megapixels
    with pytest.raises(PhotoError, match="more than the limit of 200 mega"):
        decode(bomb)
    with pytest.raises(PhotoError, match="40 × 24 pixels is more than the limit"):
        decode(save(half_red(), "PNG"), rules=DecodeRules(max_megapixels=1e-4))


def chunk(name: bytes, data: bytes, *, intact: bool = True) -> bytes:
    """A chunk of a PNG, with its checksum or with a wrong one."""
    crc = zlib.crc32(name + data) ^ (not intact)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def with_chunk(data: bytes, added: bytes, *, last: bool) -> bytes:
    """A PNG with another chunk before its pixels, or after them."""
    at = len(data) - 12 if last else 33
    return data[:at] + added + data[at:]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("name", "data", "intact"),
    [
        (b"tEXt", b"a\0b", False), (b"eXIf", b"junk", False), (b"eXIf", b"junkjunk", True),
        (b"zTXt", b"a\0\5junk", True), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)), True),
        (b"iTXt", b"a\0\0\0\0\0\xff", False), (b"iCCP", b"a\0\0junk", False), (b"pHYs", b"1", True),
        (b"gAMA", b"", True), (b"sRGB", b"", True), (b"cHRM", b"12", True), (b"prIv", b"1", False),
    ],
)  # fmt: skip
def test_a_png_with_broken_metadata_has_the_same_pixels(name, data, intact, last):
    png = save(half_red(), "PNG")
    found = decode(with_chunk(png, chunk(name, data, intact=intact), last=last))
    assert np.array_equal(np.asarray(found), np.asarray(half_red()))


def test_broken_metadata_of_a_png_cost_neither_its_rotation_nor_its_profile():
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    png = save(half_red(), "PNG", exif=exif, icc_profile=profile)
    broken = with_chunk(png, chunk(b"tEXt", b"a\0b", intact=False), last=False)
    assert decode(broken).size == (24, 40)
    assert np.array_equal(np.asarray(decode(broken)), np.asarray(decode(png)))
    assert b"iCCP" in decode_module._without_metadata(broken)


@pytest.mark.parametrize("name", [b"IDAT", b"PLTE", b"tRNS", b"IHDR"])
def test_a_png_whose_pixels_are_damaged_is_refused_whatever_its_metadata(name):
    palette = half_red("P")
    png = save(palette, "PNG", transparency=bytes(range(256)))
    png = with_chunk(png, chunk(b"tEXt", b"a\0b", intact=False), last=False)
    at = png.index(name)
    for data in (png[: at + 6], png[: at + 4] + bytes([png[at + 4] ^ 255]) + png[at + 5 :]):
        with pytest.raises(PhotoError):
            decode(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "HEIF"])
@pytest.mark.parametrize(
    "exif", [b"junkjunk" * 4, b"Exif\0\0junkjunk", b"Exif\0\0II*\0\x08\0\0\0\xff"]
)
def test_exif_data_that_cannot_be_parsed_are_ignored(form, exif):
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = half_red(size=(64, 48))
    broken, plain = save(image, form, exif=exif), save(image, form)
    assert np.array_equal(np.asarray(decode(broken)), np.asarray(decode(plain)))
    assert to_rgb(Image.open(io.BytesIO(broken))).size == (64, 48)


def test_exif_data_in_the_text_of_a_png_are_ignored_if_they_are_no_numbers():
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n  8\nzzzz")
    assert decode(save(half_red(), "PNG", pnginfo=text)).size == (40, 24)


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
def test_a_photo_is_turned_upright_once_and_no_more(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    once = decode(save(half_red(), "PNG", exif=exif))
    assert once.size == ((24, 40) if 5 <= orientation <= 8 else (40, 24))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(save(half_red(), "PNG", exif=exif))))
    assert np.array_equal(np.asarray(once), np.asarray(upright))
    assert to_rgb(once).size == once.size


@pytest.mark.parametrize("step", range(40))
def test_any_bytes_give_an_image_or_a_photo_error(step):
    generator = np.random.default_rng(step)
    data = bytearray(jpeg(step) if step % 2 else save(half_red(), "PNG"))
    for index in generator.integers(0, len(data), 12):
        data[index] = generator.integers(0, 256)
    with contextlib.suppress(PhotoError):
        assert decode(bytes(data)).mode == "RGB"


def test_the_path_only_names_a_photo_and_is_never_opened():
    assert decode(io.BytesIO(jpeg(0)).getvalue(), "/nowhere/at/all.jpg").size == (48, 48)


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded():
    plain = save(Image.new("L", (8000, 8000), 128), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    bomb = plain[:last] + plain[last:-2] * 5000 + plain[-2:]  # about ten seconds per megabyte
    decode(plain)
    with pytest.raises(PhotoError, match="scans: a decompression bomb"):
        decode(bomb)


GREY = np.array(half_red("L", (64, 48)))
GREY[20:30, 40:50] = 255


def scaled_up(kind: str) -> Image.Image:
    """The same grey photo in one of the ways in which programs store more than 8 bits."""
    if kind == "float 0…255":
        return Image.fromarray(GREY.astype(np.float32))
    if kind == "float 0…1":
        return Image.fromarray(GREY.astype(np.float32) / 255)
    if kind == "float 0…1, one pixel at 1.5":
        values = GREY.astype(np.float32) / 255
        values[0, 0] = 1.5
        return Image.fromarray(values)
    if kind == "float 0…255, a pixel that is NaN, one infinite, one at 300":
        values = GREY.astype(np.float32)
        values[0, :3] = np.nan, np.inf, 300
        return Image.fromarray(values)
    if kind == "float −1…1":
        return Image.fromarray(GREY.astype(np.float32) / 127.5 - 1)
    if kind == "float 0…65535":
        return Image.fromarray(GREY.astype(np.float32) * 257)
    if kind == "int32 0…255":
        return Image.fromarray(GREY.astype(np.int32))
    if kind == "int32 0…65535":
        return Image.fromarray(GREY.astype(np.int32) * 257)
    bits = {"16 bit": 257, "12 in 16 bit": 4095 / 255, "10 in 16 bit": 1023 / 255, "8 in 16 bit": 1}
    return Image.fromarray(np.rint(GREY.astype(float) * bits[kind]).astype(np.uint16))


@pytest.mark.parametrize(
    "kind",
    [
        "float 0…255", "float 0…1", "float 0…1, one pixel at 1.5", "float −1…1", "float 0…65535",
        "float 0…255, a pixel that is NaN, one infinite, one at 300",
        "int32 0…255", "int32 0…65535", "16 bit", "12 in 16 bit", "10 in 16 bit", "8 in 16 bit",
    ],
)  # fmt: skip
def test_images_of_more_than_8_bits_keep_their_brightness(kind):
    image = scaled_up(kind)
    forms = ["TIFF"] if image.mode in {"F", "I"} else ["TIFF", "PNG"]
    for found in [to_rgb(image), *(decode(save(image, form)) for form in forms)]:
        assert found.mode == "RGB"
        difference = np.abs(np.asarray(found)[1:].astype(int) - GREY[1:, :, None])
        assert difference.max() <= 1, kind
    for values in (np.asarray(image), np.repeat(np.asarray(image)[:, :, None], 3, 2)):
        found = np.asarray(array_to_image(values))
        assert np.abs(found[1:].astype(int) - GREY[1:, :, None]).max() <= 1


def test_a_tiff_of_12_bits_is_white_at_4095():
    dark = np.full((40, 40), 2000, np.uint16)
    image = Image.open(io.BytesIO(save(Image.fromarray(dark), "TIFF")))
    image.load()
    image.tag_v2[258] = (12,)  # Pillow reads such files, but doesn't write them
    assert to_rgb(image).getpixel((3, 3)) == (125, 125, 125)


def test_a_tiff_that_declares_0_as_white_is_inverted():
    deep = Image.fromarray(np.full((40, 40), 60000, np.uint16))
    image = Image.open(io.BytesIO(save(deep, "TIFF")))
    image.load()
    image.tag_v2[262] = 0
    assert to_rgb(image).getpixel((3, 3)) == (255 - 60000 // 257,) * 3


@pytest.mark.parametrize("declared", [3.4e38, 1.0, 255.0])
def test_a_largest_value_in_a_tiff_is_believed_only_if_it_can_be(declared):
    image = Image.open(io.BytesIO(save(scaled_up("float 0…255"), "TIFF")))
    image.load()
    image.tag_v2[341] = declared
    assert np.array_equal(np.asarray(to_rgb(image))[:, :, 0], GREY)


def tiff(
    values: np.ndarray,
    *,
    planes: bool = False,
    order: str = "<",
    deflate: bool = False,
    **tags: int,
) -> bytes:
    """A TIFF `[H, W, C]` of any kind of number; planes: each channel is stored by itself."""
    height, width, channels = values.shape
    bits = 8 * values.dtype.itemsize
    stored = (values.transpose(2, 0, 1) if planes else values).astype(
        values.dtype.newbyteorder(order)
    )
    strips = [part.tobytes() for part in (stored if planes else [stored])]
    strips = [zlib.compress(strip) if deflate else strip for strip in strips]
    pixels, sizes = b"".join(strips), list(map(len, strips))
    starts = [8 + sum(sizes[:index]) for index in range(len(sizes))]
    entries = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [8 if deflate else 1],
        262: [tags.get("photometric", 1 if channels == 1 else 2)], 273: starts,
        277: [channels], 278: [height], 279: sizes, 284: [2 if planes else 1],
        339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
    }  # fmt: skip
    if fill := tags.get("fill"):
        entries[266] = [fill]
    at = 8 + len(pixels)
    after, rows = at + 2 + 12 * len(entries) + 4, b""
    extra = b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, extra = struct.pack(f"{order}I", after + len(extra)), extra + packed
        rows += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    return head + pixels + struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + extra


COLOURS = np.asarray(picture(3, (41, 30)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_of_16_bits_per_channel_is_read_right_in_planes_too(
    order, planes, deflate, white, channels
):
    colours = COLOURS.copy()
    colours[:6, :6] = 255
    values = np.rint(colours * (white / 255)).astype(np.uint16)
    if channels == 4:
        values = np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])
    data = tiff(values, planes=planes, order=order, deflate=deflate)
    if planes and deflate and white < 65535:  # Pillow gives the high bytes only
        with pytest.raises(PhotoError, match="a TIFF of a kind that can't be read"):
            decode(data)
        return
    assert np.abs(np.asarray(decode(data)).astype(int) - colours).max() <= 1


@pytest.mark.parametrize("kind", ["uint32", "int8", "int16", "uint16", "uint8", "float32"])
@pytest.mark.parametrize("planes", [False, True])
def test_a_grey_tiff_is_read_right_whatever_its_numbers(kind, planes):
    grey = COLOURS[:, :, :1]
    scale = {"uint32": 2**32 // 255, "int16": 128, "uint16": 257, "float32": 1 / 255}.get(kind, 1)
    values = (grey.astype(np.float64) * scale - (128 if kind == "int8" else 0)).astype(kind)
    found = np.asarray(decode(tiff(values, planes=planes))).astype(int)
    if kind == "int16":  # no usual white: stretched
        assert np.corrcoef(found[:, :, 0].ravel(), grey.ravel())[0, 1] > 0.999
    else:
        assert np.abs(found - grey).max() <= 1


def test_grey_of_8_bits_whose_0_is_white_is_inverted_in_planes_too():
    for planes in (False, True):
        found = decode(tiff(255 - COLOURS[:, :, :1], planes=planes, photometric=0))
        assert np.array_equal(np.asarray(found)[:, :, :1], COLOURS[:, :, :1])


@pytest.mark.parametrize(
    "data",
    [
        tiff(COLOURS.astype(np.float32)), tiff(COLOURS.astype(np.float16)),
        tiff(COLOURS[:, :, :1].astype(np.float64)), tiff(COLOURS.astype(np.int8)),
        tiff(COLOURS.astype(np.uint32)), tiff(np.dstack([COLOURS, COLOURS[:, :, :2]])),
        tiff(COLOURS[:, :, :1].astype(np.uint32), order=">"),
        tiff(np.dstack([COLOURS, COLOURS[:, :, :1]]).astype(np.uint16), planes=True, photometric=5),
        tiff(COLOURS, planes=True, fill=2),
    ],
    ids=["float32 RGB", "float16 RGB", "float64", "int8 RGB", "uint32 RGB", "5 samples",
         "uint32, big-endian", "CMYK of 16 bits in planes", "reversed bits in planes"],
)  # fmt: skip
def test_a_tiff_that_would_be_read_wrong_is_refused_and_called_a_tiff(data):
    with pytest.raises(PhotoError, match="a TIFF of a kind that can't be read: save it as PNG"):
        decode(data)


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, `[H, W, 3 or 4]`, which Pillow doesn't write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("white", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_pngs_of_16_bits_keep_their_brightness_whatever_bits_they_use(white, alpha):
    colours = np.asarray(half_red(size=(64, 48))).astype(float)
    colours[20:30, 40:50] = 255
    values = np.rint(colours * white / 255).astype(np.uint16)
    if alpha:
        values = np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])
    found = np.asarray(decode(png16(values)))
    assert np.abs(found - colours).max() <= 1


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "LA", "PA", "RGBX",
     "RGBa", "La", "LAB"],
)  # fmt: skip
def test_every_mode_of_pillow_becomes_rgb(mode):
    image = half_red()
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        for step in {"RGBa": ["RGBA", "RGBa"], "La": ["LA", "La"], "I;16": ["L", "I;16"]}.get(
            mode, [mode]
        ):
            image = image.convert(step)
    found = to_rgb(image)
    assert (found.mode, found.size) == ("RGB", (40, 24))
    assert max(found.getpixel((5, 12))) > 60
    assert max(found.getpixel((35, 12))) < 8


def test_an_image_in_memory_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(save(half_red(), "JPEG", exif=exif)))
    assert to_rgb(image).size == (24, 40)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 0, 3), np.uint8), np.zeros(7), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 5)),
        np.zeros((8, 8), complex), np.array([["a", "b"]]), np.array(3),
    ],
)  # fmt: skip
def test_an_array_that_is_no_image_is_refused_with_what_to_give(array):
    with pytest.raises(CatordogError, match="is no photo: give numbers") as caught:
        array_to_image(array)
    assert "\n" not in str(caught.value)


def test_arrays_may_have_their_channels_first_and_be_of_any_number_type():
    rgb = np.asarray(half_red())
    for values in (rgb, rgb.transpose(2, 0, 1), rgb.astype(np.int64), rgb.astype(np.float16),
                   rgb / 255, rgb.astype(">u2")):  # fmt: skip
        assert np.array_equal(np.asarray(array_to_image(values)), rgb)
    assert np.asarray(array_to_image(GREY > 128)).max() == 255
    assert array_to_image(np.zeros((8, 8, 4))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), 2e6])
def test_a_limit_that_is_no_number_of_megapixels_is_refused_in_words(limit):
    with pytest.raises(CatordogError, match=r"^max megapixels .*: give a number above 0 and"):
        DecodeRules(max_megapixels=limit)
