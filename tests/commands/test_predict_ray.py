"""`predict --backend ray`, on a cluster of this machine's processors."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from catordog.cli import main
from catordog.commands import predict_ray
from catordog.model.predict import VerdictRules
from catordog.photos.inputs import Inputs
from conftest import CATORDOG, jpeg, wait_until, write_folder, write_zip

# Importing Ray takes seconds, and only its processes need it.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

TEXT = {"path", "label", "verdict", "also", "error"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    pictures = [jpeg(i) for i in range(20)]
    files = {f"{i // 100}/{i}.jpg": pictures[i % 20] for i in range(500)}
    files |= {"3/broken.jpg": b"no photo", "3/=odd.jpg": pictures[0]}
    write_folder(folder / "photos", files)
    write_zip(folder / "more.zip", {f"{i}.jpg": pictures[i] for i in range(20)})
    return folder


def rows(file: Path) -> list[dict[str, object]]:
    """The rows of a Parquet or CSV file, with the values of the Parquet file."""
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    with file.open(encoding="utf-8", newline="") as opened:
        return [
            {
                name: value.removeprefix("./") if name in TEXT else float(value) if value else None
                for name, value in row.items()
            }
            for row in csv.DictReader(opened)
        ]


def same(one: list[dict[str, object]], other: list[dict[str, object]]) -> bool:
    return len(one) == len(other) and all(
        left.keys() == right.keys()
        and all(
            left[name] == right[name]
            if name in TEXT or left[name] is None
            else left[name] == pytest.approx(right[name], abs=1e-4)
            for name in left
        )
        for left, right in zip(one, other, strict=True)
    )


def workers(of: int) -> list[int]:
    """The processes of catordog's Ray workers among the descendants of a process."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
            names[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        parents[int(entry.name)] = int(fields["PPid"])

    def descends(pid: int) -> bool:
        while pid > 1:
            if pid == of:
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid, name in names.items() if b"MapWorker" in name and descends(pid)]


def loads_a_model(pid: int) -> bool:
    """Whether a process has loaded ONNX Runtime."""
    try:
        return "onnxruntime" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_a_worker_makes_the_rows_of_the_csv_file(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_THREADS", "1")  # the worker sets it
    paths = [str(photos / name) for name in ("more.zip", "photos/3", "photos/0/1.jpg")]
    assert main(["predict", *paths, "--format", "csv", "--out", str(tmp_path / "r.csv")]) == 1
    worker = predict_ray.Worker(None, VerdictRules())
    (table,) = predict_ray._location_tables(Inputs(paths))
    batch = {name: np.array(column, object) for name, column in table.to_pydict().items()}
    assert same(worker(batch).to_pylist(), rows(tmp_path / "r.csv"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_worker_reads_photos_whose_names_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_THREADS", "1")  # the worker sets it
    write_folder(tmp_path, {os.fsdecode(b"caf\xe9.jpg"): jpeg(0)})
    (table,) = predict_ray._location_tables(Inputs([str(tmp_path)]))
    batch = {name: np.array(column, object) for name, column in table.to_pydict().items()}
    (row,) = predict_ray.Worker(None, VerdictRules())(batch).to_pylist()
    assert (row["path"], row["error"]) == (f"{tmp_path}/caf\\xe9.jpg", "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
def test_rows_are_the_same_and_in_order_even_if_a_worker_is_killed(photos):
    words = ["photos", "more.zip", "photos/0/1.jpg", "--threshold", "0.9"]
    command = [*CATORDOG, "predict", *words]
    here = subprocess.run(
        [*command, "--format", "csv", "--out", "one.csv"], cwd=photos, check=False
    )
    with (photos / "err").open("w") as err_file:
        process = subprocess.Popen(
            [*command, "--backend", "ray", "--out", "many.parquet"], cwd=photos, stderr=err_file
        )
    killed = []

    def a_worker_is_killed_or_all_is_over() -> bool:
        for pid in workers(process.pid):
            if loads_a_model(pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return True
        return process.poll() is not None

    try:
        wait_until(a_worker_is_killed_or_all_is_over, "a worker loads its model", seconds=300)
        process.wait(600)
    finally:
        process.kill()
    err = (photos / "err").read_text()
    (photos / "err").unlink()
    assert here.returncode == process.returncode == 1, err  # one photo is unreadable
    assert killed, err
    assert "Traceback" not in err, err
    assert same(rows(photos / "one.csv"), rows(photos / "many.parquet"))
    assert "523 photos: " in err
    assert "1 unreadable" in err
    assert sorted(path.name for path in photos.iterdir() if path.is_file()) == [
        "many.parquet", "more.zip", "one.csv"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "it needs --out"),
        (["--out", "r.csv"], "has to end in .parquet"),
        (["--out", "r.parquet", "--resume"], "--resume and --backend ray exclude each other"),
        (["--out", "r.parquet", "--sort-into", "x"], "--sort-into and --backend ray exclude each"),
        (["--out", "r.parquet", "--model", "gone.onnx"], "gone.onnx: no such file"),
    ],
)
def test_wrong_options_are_refused_before_a_cluster_starts(
    photos, monkeypatch, capsys, words, message
):
    monkeypatch.setattr(predict_ray, "_cluster", lambda: pytest.fail("a cluster has started"))
    assert main(["predict", str(photos / "more.zip"), "--backend", "ray", *words]) == 2
    assert message in capsys.readouterr().err
