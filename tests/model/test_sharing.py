"""A Classifier can be pickled, used from threads, and used after a fork."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import catordog
from catordog.model.backends import onnx
from model.small import FORMATS, write_model

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)

IN_A_FORK = """
import os, sys
import numpy as np
import catordog

classifier = catordog.load(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
logits, streamed = classifier.logits_of_pixels(pixels), classifier.logits(pixels)
process = os.fork()
if process == 0:
    again = classifier.logits_of_pixels(pixels), classifier.logits(pixels)
    same = max(np.abs(again[0] - logits).max(), np.abs(again[1] - streamed).max()) < 1e-5
    print(same, classifier.predict(pixels[0]).label, flush=True)
    sys.exit(0)  # and not os._exit: the interpreter shuts down, too
print(os.waitpid(process, 0)[1], classifier.predict(pixels[0]).label)
"""

IN_A_POOL = """
import multiprocessing, sys
import numpy as np
import catordog

def label(pixels):
    return classifier.predict(pixels).label

if __name__ == "__main__":
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    classifier = catordog.load(sys.argv[1])
    here = [label(each) for each in pixels]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(label, list(pixels)) == here)
"""


@pytest.fixture(scope="module", params=FORMATS)
def path(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("small"), request.param)


def test_a_pickled_classifier_gives_the_same_logits_also_where_its_file_is_gone(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    classifier = catordog.load(copy)
    copy.unlink()
    back = pickle.loads(pickle.dumps(classifier))
    assert back.model == classifier.model
    assert np.array_equal(back.logits_of_pixels(PIXELS), classifier.logits_of_pixels(PIXELS))
    logits, features = back.features_of_pixels(PIXELS)
    expected = classifier.features_of_pixels(PIXELS)
    assert np.array_equal(logits, expected[0])
    assert np.array_equal(features, expected[1])


def test_threads_share_a_classifier(path):
    classifier = catordog.load(path)
    expected = [classifier.features_of_pixels(PIXELS[index : index + 1]) for index in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda index: classifier.features_of_pixels(PIXELS[index : index + 1]), range(32)
            )
        )
    for (logits, features), (mine, own) in zip(found, expected, strict=True):
        assert np.allclose(logits, mine, atol=1e-5)
        assert np.allclose(features, own, atol=1e-5)


def test_threads_may_ask_for_different_outputs_from_the_first_photo_on(path):
    features = catordog.load(path).features_of_pixels(PIXELS)[1]
    for _ in range(5):
        classifier = catordog.load(path)

        def check(index, classifier=classifier):
            part = PIXELS[index : index + 1 + index % 3]
            if index % 2:
                return len(classifier.logits_of_pixels(part)) == len(part)
            own = classifier.features_of_pixels(part)[1]
            return np.allclose(own, features[index : index + len(own)], atol=1e-5)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(check, range(29)))


def test_the_threads_of_many_photos_share_one_session_of_one_thread(tmp_path, monkeypatch):
    classifier = catordog.load(write_model(tmp_path, "onnx"))
    started = []

    def slow(data, threads=0, session=onnx._session):
        started.append(threads)
        time.sleep(0.2)  # the other threads ask, too
        return session(data, threads)

    monkeypatch.setattr(onnx, "_session", slow)
    monkeypatch.setenv("CATORDOG_THREADS", "8")
    logits = classifier.logits(PIXELS)
    assert started == [1]
    assert np.allclose(logits, classifier.logits_of_pixels(PIXELS), atol=1e-5)


def run(code: str, path: object, tmp_path) -> str:
    """The output of a program; one that hangs fails the test."""
    program = tmp_path / "program.py"
    program.write_text(code)
    words = [sys.executable, str(program), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}  # with one thread, nothing can hang
    ended = subprocess.run(
        words, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
class TestFork:
    def test_a_forked_child_gives_the_same_logits_and_exits(self, path, tmp_path):
        child, parent = run(IN_A_FORK, path, tmp_path).splitlines()
        assert child.split()[0] == "True"
        assert parent.split()[0] == "0"
        assert child.split()[1] == parent.split()[1]

    @pytest.mark.slow
    def test_a_pool_of_forked_processes_gives_the_same_labels(self, path, tmp_path):
        assert run(IN_A_POOL, path, tmp_path) == "True\n"
