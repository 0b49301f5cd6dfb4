"""The one-file page of `catordog export --out F.html`, in a real browser and from a file."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageCms

import catordog
from catordog.cli import main
from catordog.confidence.detectors import detector_from_dict
from catordog.confidence.ood import fit_ood
from catordog.confidence.ood_general import fit_general_ood
from catordog.confidence.ood_output import fit_output
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError
from catordog.photos.decode import decode
from catordog.photos.preprocess import Preprocess
from catordog.photos.synthetic import draw
from catordog.web.one_file import as_characters
from catordog.web.runtime import VERSION, open_runtime, registry
from conftest import jpeg, named, picture, save, write_folder
from model.small import write_model
from model.tiny_backbone import coloured, colours, specialty_of, write_backbone
from web.browser_page import CHROMIUM, OneFilePage, opened

NODE = shutil.which("node")
STATIC = Path(catordog.__file__).parent / "web" / "static"
in_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


@pytest.fixture(scope="session")
def runtime() -> Path:
    """Npm's package, downloaded once for all sessions on this machine."""
    folder = Path(tempfile.gettempdir()) / "catordog-tests"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATORDOG_DATA", str(folder))
        try:
            open_runtime()
        except CatordogError as error:
            pytest.skip(f"onnxruntime-web is not here: {error}")
    return folder / f"onnxruntime-web-{VERSION}.tgz"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream"],
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def bundled(runtime, tmp_path_factory) -> Path:
    """The page of the included model."""
    file = tmp_path_factory.mktemp("page") / "pets.html"
    assert main(["export", "--out", str(file), "--runtime", str(runtime)]) == 0
    return file


@pytest.fixture(scope="module")
def taught(runtime, tmp_path_factory) -> tuple[Path, Path]:
    """A taught model of three classes, and its page."""
    folder = tmp_path_factory.mktemp("taught")
    data = colours(folder / "colours", red=12, green=12, blue=12)
    model, page = folder / "colours.onnx", folder / "colours.html"
    words = ["--backbone", str(write_backbone(folder)), "--out", str(model)]
    assert main(["teach", str(data), *words]) == 0
    assert main(["export", str(model), "--out", str(page), "--runtime", str(runtime)]) == 0
    return model, page


def check_parity(rows: list[dict[str, str]], model: object, photos: list[Path], within: float):
    """Compare the rows of a page with the predictions of Python."""
    expected = catordog.load(model).predict(photos)
    assert len(rows) == len(photos)
    for row, path, prediction in zip(rows, photos, expected, strict=True):
        assert (row["path"], row["error"]) == (path.name, "")
        logits = {name: float(row[f"logit_{name}"]) for name in prediction.logits}
        assert logits == pytest.approx(prediction.logits, abs=within), path.name
        assert row["verdict"] == prediction.verdict
        assert row["label"] == prediction.label
        assert float(row["confidence"]) == pytest.approx(prediction.confidence, abs=within)
        assert row.get("also", "") == "; ".join(prediction.also or ())


@pytest.mark.slow
class TestTheIncludedModel:
    @pytest.fixture(scope="class")
    def page(self, browser, bundled) -> Iterator[OneFilePage]:
        with opened(browser, bundled, viewport={"width": 390, "height": 844}) as driver:
            yield driver

    def test_it_agrees_with_predict_on_drawn_pictures_and_asks_for_nothing(self, page, tmp_path):
        """Among them large ones, transparent ones and ones that the large network answers for."""
        sizes = [(300, 200), (90, 700), (1300, 900), (64, 64)]
        files = {
            **{f"{i}.png": save(draw(i, 3, size=40 + 60 * i).image, "PNG") for i in range(5)},
            **{f"{i}.jpg": save(picture(i, size), "JPEG") for i, size in enumerate(sizes)},
            "large.jpg": jpeg(1, size=1200),
            "clear.png": save(draw(8, 3, size=200).image.convert("RGBA").rotate(30), "PNG"),
            "grey.png": save(draw(9, 3, size=200).image.convert("L"), "PNG"),
        }
        write_folder(tmp_path, files)
        photos = sorted(tmp_path.iterdir())
        check_parity(page.predict(photos), None, photos, within=0.05)

    def test_it_fits_a_phone_and_says_how_many_have_which_verdict(self, page):
        assert page.page.locator("body").bounding_box()["width"] <= 390
        assert re.match(r"\d+ photos: .*\d+ neither", page.status())

    def test_the_file_is_small_and_holds_no_photo_or_score_of_the_training(self, bundled):
        assert bundled.stat().st_size < 18e6
        text = bundled.read_bytes().decode("utf-16")
        assert "nonconformity" not in text


class TestATaughtModel:
    @pytest.fixture(scope="class")
    def page(self, browser, taught) -> Iterator[OneFilePage]:
        with opened(browser, taught[1], color_scheme="dark") as driver:
            yield driver

    def test_it_agrees_with_predict(self, page, taught, tmp_path):
        kinds = ("red", "green", "blue")
        files = {f"{name} {i}.png": coloured(name, 50 + i) for name in kinds for i in range(3)}
        files |= {f"{i}.png": save(picture(i), "PNG") for i in range(3)}
        write_folder(tmp_path, files)
        photos = sorted(tmp_path.iterdir())
        check_parity(page.predict(photos)[-len(photos) :], taught[0], photos, within=1e-3)

    def test_a_bad_file_affects_no_other_and_names_are_text(self, page, tmp_path):
        reasons = {
            "<img src=x onerror=alert(1)>.jpg": (b"no", "not a photo"),
            "paper.pdf": (b"%PDF-1.7", "it is a PDF"),
            "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(9), "HEIC"),
            "cut.png": (coloured("red", 1)[:60], "damaged file"),
            "none.jpg": (b"", "empty file"),
        }
        good = '=1+1, "x".png'
        write_folder(
            tmp_path, {good: coloured("red", 1), **{x: y for x, (y, _) in reasons.items()}}
        )
        rows = page.predict([tmp_path / name for name in (good, *reasons)])[-1 - len(reasons) :]
        assert [row["path"] for row in rows] == [f"./{good}", *reasons]
        assert rows[0]["verdict"] == "red"
        for row, (_, reason) in zip(rows[1:], reasons.values(), strict=True):
            assert row["verdict"] == row["confidence"] == ""
            assert reason in row["error"]
        assert page.page.locator(".name img").count() == 0

    def test_the_slider_changes_confidences_but_no_logit(self, page, tmp_path):
        (tmp_path / "a.png").write_bytes(coloured("red", 3))
        page.predict([tmp_path / "a.png"])
        bars = page.page.locator("article").first.locator(".bar")
        before = bars.locator(".logit").all_inner_texts()
        slider = page.page.locator("#temperature")
        slider.fill("2")
        shown = page.page.inner_text("#temperature-shown")
        assert slider.get_attribute("aria-valuetext") == shown  # its value is a logarithm
        values = bars.locator(".value").all_inner_texts()
        assert bars.locator(".logit").all_inner_texts() == before
        assert max(float(value.split()[0]) for value in values) < 60

    def test_the_policy_keeps_scripts_of_the_page_from_connecting(self, page):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            server.settimeout(0.2)
            host = f"127.0.0.1:{server.getsockname()[1]}"
            failed = page.page.evaluate(
                """async (host) => {
                  new Image().src = `http://${host}/a.png`;
                  return await fetch(`http://${host}/`).catch(String);
                }""",
                host,
            )
            assert "TypeError" in failed
            with pytest.raises(TimeoutError):
                server.accept()
        assert page.refused == [f"http://{host}/a.png"]  # a fetch doesn't even become a request

    @pytest.mark.slow
    def test_a_picture_of_the_camera_is_predicted_and_a_drop_and_a_paste_too(self, browser, taught):
        with opened(browser, taught[1], viewport={"width": 1200, "height": 800}) as driver:
            page = driver.page
            page.get_by_text("take a photo").click()
            page.get_by_role("button", name="take", exact=True).click()
            driver.settle()
            assert page.locator("article").count() == 1
            for kind, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
                page.evaluate(
                    """([kind, holder, bytes]) => {
                      const data = new DataTransfer();
                      const content = Uint8Array.from(atob(bytes), (x) => x.charCodeAt(0));
                      data.items.add(new File([content], `${kind}.png`, { type: "image/png" }));
                      const event = new Event(kind, { bubbles: true });
                      Object.defineProperty(event, holder, { value: data });
                      document.dispatchEvent(event);
                    }""",
                    [kind, holder, base64.b64encode(coloured("green", 2)).decode()],
                )
            driver.settle()
            assert page.locator("article").count() == 3
            assert page.locator("article h2").first.inner_text().startswith("green ")

    @pytest.mark.slow
    def test_it_is_used_with_the_keyboard_alone(self, browser, taught):
        with opened(browser, taught[1]) as driver:
            focused = []
            for _ in range(4):
                driver.page.keyboard.press("Tab")
                focused.append(driver.page.evaluate("document.activeElement.id"))
            assert focused == ["files", "camera", "temperature", "reset"]
            for name in ("choose photos", "take a photo"):
                assert driver.page.get_by_label(name).count() == 1

    @pytest.mark.slow
    def test_a_server_that_states_another_encoding_changes_nothing(self, browser, taught, tmp_path):
        (tmp_path / "a.png").write_bytes(coloured("blue", 3))
        context = browser.new_context()
        page = context.new_page()
        page.route(
            "http://pets.test/",
            lambda route: route.fulfill(
                body=taught[1].read_bytes(), content_type="text/html; charset=utf-8"
            ),
        )
        page.goto("http://pets.test/")
        rows = OneFilePage(page).predict([tmp_path / "a.png"])
        assert rows[0]["verdict"] == "blue"
        context.close()


@pytest.mark.slow
def test_a_model_of_one_class_works_and_has_no_slider(browser, runtime, tmp_path):
    data = colours(tmp_path / "colours", red=12)
    model, page = tmp_path / "red.onnx", tmp_path / "red.html"
    words = ["--backbone", str(write_backbone(tmp_path)), "--out", str(model)]
    assert main(["teach", str(data / "red"), *words]) == 0
    assert main(["export", str(model), "--out", str(page), "--runtime", str(runtime)]) == 0
    photos = [tmp_path / f"{name}.png" for name in ("red", "blue")]
    for path in photos:
        path.write_bytes(coloured(path.stem, 99))
    with opened(browser, page) as driver:
        check_parity(driver.predict(photos), model, photos, within=1e-3)
        assert not driver.page.get_by_role("slider").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ckpt", "onnx"])
def test_a_model_from_scratch_and_one_with_a_general_detector_work(
    form, browser, runtime, tmp_path
):
    model, page = write_model(tmp_path, form), tmp_path / "m.html"
    if form == "onnx":
        data = write_folder(tmp_path / "pets", named(60))
        words = ["--data", str(data), "--split", "all", "--general"]
        assert main(["calibrate", str(model), *words]) == 0
    assert main(["export", str(model), "--out", str(page), "--runtime", str(runtime)]) == 0
    photos = [tmp_path / f"{i}.png" for i in range(4)]
    for index, path in enumerate(photos):
        path.write_bytes(save(draw(index, 5, size=50 + 40 * index).image, "PNG"))
    with opened(browser, page) as driver:
        check_parity(driver.predict(photos), model, photos, within=2e-3)


@pytest.mark.slow
def test_500_real_photos_have_the_verdicts_of_predict(browser, bundled, shared_photos):
    """Only pixels of photos with a colour profile differ, which browsers round otherwise."""
    folders = {
        "dogs-vs-cats-original-600/cat": 190, "dogs-vs-cats-original-600/dog": 190,
        "neither-cat-nor-dog": 60, "oxford-iiit-pet-60/images": 60,
    }  # fmt: skip
    photos = [
        path
        for folder, n in folders.items()
        for path in sorted((shared_photos / folder).glob("*.jpg"))[:n]
    ]
    assert len(photos) >= 450
    expected = list(catordog.load().predictions(photos))
    with opened(browser, bundled) as driver:
        rows = driver.predict(photos)
    same = [row["verdict"] == each.verdict for row, each in zip(rows, expected, strict=True)]
    assert np.mean(same) >= 0.995
    differences = np.array(
        [
            max(abs(float(row[f"logit_{name}"]) - logit) for name, logit in each.logits.items())
            for row, each in zip(rows, expected, strict=True)
        ]
    )
    assert np.mean(differences < 0.05) >= 0.995
    assert np.quantile(differences, 0.97) < 1e-3


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--out", "a.onnx", "--runtime", "x"], "--runtime is for a page: let --out end in"),
            (["--out", "a.html", "--half"], "--half: bundled is an ONNX file"),
            (["--out", "a.html", "--data", "drawn"], "--data: bundled is an ONNX file"),
            (["--out", "a.html", "--runtime", "nothing"], "--runtime nothing: can't be read"),
            (["--out", "a.html", "--runtime", "."], "--runtime .: has no ort.wasm"),
        ],
    )
    def test_wrong_usage_is_an_error_in_one_line(
        self, words, message, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        assert main(["export", *words]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []

    def test_another_version_of_the_runtime_is_refused(self, tmp_path, capsys):
        names = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
        write_folder(tmp_path / "dist", dict.fromkeys(names, b"of another version"))
        words = ["--out", str(tmp_path / "a.html"), "--runtime", str(tmp_path)]
        assert main(["export", *words]) == 2
        assert f"is not that of onnxruntime-web {VERSION}" in capsys.readouterr().err

    def test_without_a_network_the_error_says_what_to_do(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("CATORDOG_DATA", str(tmp_path))
        with socket.socket() as taken:  # a port on which nobody listens
            taken.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{taken.getsockname()[1]}"
            monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
            assert main(["export", "--out", str(tmp_path / "a.html")]) == 2
        err = capsys.readouterr().err
        assert "no network: " in err
        assert "--runtime" in err
        assert len(err.splitlines()) == 1

    def test_the_registry_is_the_one_that_the_user_has_configured(self, tmp_path):
        file = tmp_path / "npmrc"
        file.write_text("fund=false\nregistry=https://npm.example/own/\n")
        assert registry({"NPM_CONFIG_USERCONFIG": str(file)}) == "https://npm.example/own"
        assert registry({"NPM_CONFIG_REGISTRY": "https://a.example/"}) == "https://a.example"

    def test_npm_knows_its_own_registry_and_without_npm_the_error_says_what_to_do(self, tmp_path):
        own = {"NPM_CONFIG_USERCONFIG": str(tmp_path / "none"), "PATH": str(tmp_path)}
        with pytest.raises(CatordogError, match="NPM_CONFIG_REGISTRY"):
            registry(own)
        npm = tmp_path / "npm"
        npm.write_text("#!/bin/sh\necho https://npm.example/\n")
        npm.chmod(0o755)
        assert registry(own) == "https://npm.example"


def run_node(module: str, program: str, given: object) -> list:
    """The JSON that a program prints, which has a module of the page as `page` and `given`."""
    code = f"""
    import {{ readFileSync, writeFileSync, mkdtempSync }} from "node:fs";
    import {{ pathToFileURL }} from "node:url";
    const page = await import(pathToFileURL(process.argv[1]));
    const given = JSON.parse(readFileSync(0, "utf8"));
    {program}
    """
    assert NODE is not None
    with tempfile.TemporaryDirectory() as made:
        for file in STATIC.glob(
            "*.js"
        ):  # a server and the page resolve "/softmax.js"; node doesn't
            text = re.sub(r'from "/(\w+\.js)"', r'from "./\1"', file.read_text("utf-8"))
            (Path(made) / file.name).write_text(text, "utf-8")
        (Path(made) / "package.json").write_text('{"type": "module"}')
        ended = subprocess.run(
            [NODE, "--input-type=module", "-e", code, str(Path(made) / module)],
            input=json.dumps(given), capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@in_node
class TestTheTwinsInJavaScript:
    def test_resized_pixels_are_those_of_pillow_bit_by_bit(self):
        random = np.random.default_rng(0)
        cases = []
        for index in range(36):
            width, height = (int(x) for x in random.integers(3, 500, 2))
            if index % 2:
                width, height = width // 6 + 3, height + 200
            preprocess = Preprocess(
                int(random.choice([32, 64, 96, 224])), ["squash", "crop", "pad"][index % 3],
                resample=["bicubic", "area"][index // 3 % 2],
            )  # fmt: skip
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            cases.append((preprocess, pixels))
        given = [
            {"width": pixels.shape[1], "height": pixels.shape[0], "how": preprocess.to_dict(),
             "data": base64.b64encode(pixels.tobytes()).decode()}
            for preprocess, pixels in cases
        ]  # fmt: skip
        program = """
        const text = ({ buffer, byteOffset, byteLength }) =>
          Buffer.from(buffer, byteOffset, byteLength).toString("base64");
        console.log(JSON.stringify(given.map(({ width, height, how, data }) => {
          const image = { width, height, data: Buffer.from(data, "base64") };
          const pixels = page.inputPixels(image, how);
          return [text(pixels), text(page.normalise(pixels, how))];
        })));
        """
        for (how, pixels), (found, input_) in zip(
            cases, run_node("resize.js", program, given), strict=True
        ):
            expected = how.pixels(Image.fromarray(pixels))
            assert base64.b64decode(found) == expected.tobytes(), (how, pixels.shape)
            assert base64.b64decode(input_) == how.normalise(expected[None]).tobytes()

    def test_large_jpegs_are_those_of_pillows_draft_bit_by_bit(self):
        """Of all subsamplings, progressive ones, with restarts, grey ones, and turned ones."""
        random, files, given, expected = np.random.default_rng(0), [], [], []
        for index in range(18):
            width, height = (int(x) for x in random.integers(140, 200, 2))
            image = draw(index, 3, size=200).image.convert("RGB").resize((width, height))
            noise = random.integers(-30, 30, (height, width, 3))
            image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
            exif, file = Image.Exif(), io.BytesIO()
            exif[0x112] = index % 8 + 1
            (image.convert("L") if index % 6 == 5 else image).save(
                file, "JPEG", exif=exif, quality=[60, 95, 30][index % 3],
                progressive=index % 2 == 1, subsampling=["4:2:0", "4:4:4", "4:2:2"][index // 2 % 3],
                restart_marker_blocks=5 if index % 4 == 2 else 0,
            )  # fmt: skip
            files.append(file.getvalue())
        sideways = save(picture(1, (192, 96)), "JPEG", subsampling="4:2:2")
        frame = b"\0\x60\0\xc0\x03\x01\x21"  # height, width, components, and the sampling of luma
        assert sideways.count(frame) == 1
        files.append(
            sideways.replace(frame, b"\0\xc0\0\x60\x03\x01\x12")
        )  # halved in height instead
        for data in files:
            width, height = Image.open(io.BytesIO(data)).size
            for near in (65, 32, 16, 8, 5):
                given.append([base64.b64encode(data).decode(), width, height, near])
                expected.append(decode(data, near=near))
        program = """
        console.log(JSON.stringify(given.map(([data, width, height, near]) => {
          const factor = page.draftFactor(width, height, near);
          if (factor === 1) return null;
          const read = page.openJpeg(Uint8Array.from(Buffer.from(data, "base64")))(factor);
          return [factor, read.width, read.height, Buffer.from(read.data).toString("base64")];
        })));
        """
        found = run_node("jpeg.js", program, given)
        assert {each and each[0] for each in found} == {None, 2, 4, 8}
        for row, (_, width, height, _), image in zip(found, given, expected, strict=True):
            if row is None:
                assert sorted(image.size) == sorted((width, height))
            else:
                assert tuple(row[1:3]) == image.size
                assert base64.b64decode(row[3]) == image.tobytes()

    def test_a_jpeg_that_only_browsers_decode_is_left_to_them(self):
        image, other = Image.new("RGB", (64, 64)), ImageCms.createProfile("LAB")
        files = {
            "has a colour profile": save(
                image, "JPEG", icc_profile=ImageCms.ImageCmsProfile(other).tobytes()
            ),
            "is not YCbCr": save(image.convert("CMYK"), "JPEG"),
            "truncated file": save(image, "JPEG")[:-20],
            "damaged file": save(image, "JPEG")[:2] + bytes(9),
        }
        program = """
        console.log(JSON.stringify(given.map((data) => {
          try {
            return page.openJpeg(Uint8Array.from(Buffer.from(data, "base64")))(2);
          } catch (error) {
            return error.message;
          }
        })));
        """
        given = [base64.b64encode(data).decode() for data in files.values()]
        assert run_node("jpeg.js", program, given) == list(files)

    def test_ood_scores_are_those_of_python(self):
        random = np.random.default_rng(1)
        features = np.maximum(random.normal(0.3, 1, (200, 24)), 0).astype(np.float32)
        concepts = random.normal(0, 2, (200, 30)).astype(np.float32)
        raw = random.normal(0, 1, 300).astype(np.float32)
        known = specialty_of(24, units=3)
        known = replace(known, ranks=fit_output(known.raw(features)))
        detectors = {
            "output": fit_output(raw),
            "neighbours": fit_ood(features),
            "general": fit_general_ood(features, concepts),
            "without neighbours": fit_general_ood(features, concepts, bank=False),
            "with a specialty": fit_general_ood(features, concepts, specialty=known),
        }
        far = np.concatenate([features[:40] * 0.9, random.normal(1, 3, (40, 24))]).astype(
            np.float32
        )
        shown = np.concatenate([concepts[:40], random.normal(0, 5, (40, 30))]).astype(np.float32)
        scores = np.concatenate([raw[:40], random.normal(0, 3, 40)]).astype(np.float32)
        outputs = {"ood": scores, "features": far, "concepts": shown}
        given = {
            "detectors": [each.to_dict() for each in detectors.values()],
            "rows": [
                {
                    "ood": [float(scores[i])],
                    "features": far[i].tolist(),
                    "concepts": shown[i].tolist(),
                }
                for i in range(80)
            ],
        }
        program = """
        console.log(JSON.stringify(given.detectors.map((stored) => {
          const score = page.detectorOf(stored);
          return given.rows.map((row) => score(row));
        })));
        """
        found = run_node("ood.js", program, given)
        for name, detector, column in zip(detectors, detectors.values(), found, strict=True):
            read = detector_from_dict(detector.to_dict())
            expected = read.scores(*(outputs[each] for each in read.needs))
            assert column == pytest.approx(expected.tolist(), abs=2e-3), name
            assert 0.02 < np.mean(expected > 0.99) < 0.98

    def test_verdicts_are_those_of_python(self):
        random = np.random.default_rng(2)
        cases = []
        for index in range(300):
            n = int(random.integers(1, 5))
            classes = tuple(["cat", "not sure", "neither", "10", "2"][:n])
            cases.append(
                {
                    "logits": random.normal(0, 2, n).tolist(),
                    "oodScore": float(random.random()) ** 0.2 if index % 3 or n == 1 else None,
                    "regions": random.normal(0, 1, n).tolist() if index % 2 else None,
                    "model": {"classes": classes, "temperature": 0.5 + index / 100,
                              "threshold": 0.6, "accept": 0.9},
                }
            )  # fmt: skip
        program = """
        console.log(JSON.stringify(given.map(({ model, ...output }) => {
          const row = page.judge(output, model);
          return { ...row, words: page.words(row) };
        })));
        """
        for case, row in zip(cases, run_node("verdict.js", program, cases), strict=True):
            how = case["model"]
            expected = judge(
                case["logits"], how["classes"], temperature=how["temperature"], threshold=0.6,
                ood_score=case["oodScore"], accept=0.9, regions=case["regions"],
            )  # fmt: skip
            assert (row["label"], row["verdict"]) == (expected.label, expected.verdict)
            assert row["words"] == expected.in_words()
            assert row["also"] == list(expected.also or ())
            assert dict(row["logits"]) == expected.logits
            assert dict(row["confidences"]) == pytest.approx(expected.confidences, rel=1e-9)


def test_any_bytes_become_characters_that_html_leaves_as_they_are():
    content = np.arange(65536, dtype="<u2").tobytes() + b"\xd8"
    text = as_characters(content).decode("utf-16-le")  # strict: no lone surrogates
    assert not set(text) & set("\0\r<\ufeff\ufffe\uffff")
    assert len(text) < 1.04 * len(content) / 2
