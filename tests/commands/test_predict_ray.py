"""`predict --engine ray`, on a real cluster of this machine's two processors."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catordog.cli import main
from conftest import jpeg, write_folder, write_zip

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")

TEXT = {"path", "label", "verdict", "error"}


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
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    with file.open(encoding="utf-8", newline="") as opened:
        return [
            {
                name: value if name in TEXT else float(value) if value else None
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
    """The processes of our workers, among the descendants of a process."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
def test_the_same_rows_in_the_same_order_even_when_a_worker_is_killed(photos):
    words = ["photos", "more.zip", "photos/0/1.jpg", "--threshold", "0.9"]
    command = [sys.executable, "-m", "catordog", "predict", *words]
    one = subprocess.run([*command, "--format", "csv", "--out", "one.csv"], cwd=photos, check=False)
    process = subprocess.Popen(
        [*command, "--engine", "ray", "--out", "many.parquet"], cwd=photos, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    killed = 0
    while process.poll() is None:
        if not killed and (found := workers(process.pid)):
            time.sleep(3)  # it has its model by now, and photos
            os.kill(found[0], signal.SIGKILL)
            killed = found[0]
        time.sleep(0.05)
    err = process.stderr.read()
    assert one.returncode == process.returncode == 1, err  # a photo is broken
    assert killed, err
    assert "Traceback" not in err, err
    there = rows(photos / "one.csv")
    for row in there:
        row["path"] = str(row["path"]).removeprefix("./")
    assert same(there, rows(photos / "many.parquet"))
    assert "523 photos: " in err
    assert "1 unreadable" in err
    assert sorted(path.name for path in photos.iterdir() if path.is_file()) == [
        "many.parquet", "more.zip", "one.csv"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "it needs --out"),
        (["--out", "r.csv"], "has to end in .parquet"),
        (["--out", "r.parquet", "--resume"], "--resume and --engine ray don't go together"),
        (["--out", "r.parquet", "--sort-into", "x"], "--sort-into and --engine ray don't"),
        (["--out", "r.parquet", "--model", "gone.onnx"], "gone.onnx: no such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_a_cluster_starts(photos, capsys, words, says):
    assert main(["predict", str(photos / "more.zip"), "--engine", "ray", *words]) == 2
    assert says in capsys.readouterr().err
