"""Checkpoints, configs and weights from anywhere: none of them runs code."""

from __future__ import annotations

import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from catordog.cli import main
from catordog.errors import CatordogError
from catordog.model.networks import build_network
from catordog.training.config_check import check_config

POPEN = "{class_path: subprocess.Popen, init_args: {args: [touch, pwned]}}"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Malicious:
    """Pickled, it is a command that unpickling runs."""

    def __reduce__(self):
        return subprocess.check_call, (["touch", "pwned"],)


def refused(capsys, *words: str) -> str:
    """Run a command that has to be refused in one line, without having run anything."""
    assert main([*words]) == 2
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("catordog: error:")]
    assert len(errors) == 1, err
    assert "Traceback" not in err
    assert not Path("pwned").exists()
    return errors[0]


class TestCheckpoints:
    @pytest.fixture(params=["as torch saves it", "a bare pickle"])
    def file(self, request) -> str:
        content = {"state_dict": {}, "catordog": Malicious()}
        if request.param == "a bare pickle":
            Path("bad.ckpt").write_bytes(pickle.dumps(content))
        else:
            torch.save(content, "bad.ckpt")
        return "bad.ckpt"

    def test_a_malicious_pickle_runs_nothing_in_any_command(self, file, capsys):
        Path("a.jpg").touch()
        for words in (
            ("predict", "a.jpg", "--model", file),
            ("evaluate", file, "--data", "drawn:n=20"),
            ("compare", file, "bundled", "--data", "drawn:n=20"),
            ("explain", "a.jpg", "--model", file),
            ("audit", "--data", "drawn:n=20", "--model", file),
            ("export", file, "--out", "x.onnx"),
            ("serve", "--model", file),
            ("train", "--data", "drawn:n=60", "--ckpt_path", file),
            ("train", "--data", "drawn:n=60", "--model.weights", file),
        ):
            assert file in refused(capsys, *words), words

    def test_compressed_parts_are_refused(self, capsys):
        with zipfile.ZipFile("bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("archive/data.pkl", bytes(50_000_000))
        message = refused(capsys, "evaluate", "bomb.ckpt", "--data", "drawn:n=20")
        assert "compressed, refused" in message

    def test_encrypted_parts_are_refused(self, capsys):
        torch.save({"state_dict": {}, "catordog": {}}, "locked.ckpt")
        content = bytearray(Path("locked.ckpt").read_bytes())
        for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(header) + flags] |= 0x1
        Path("locked.ckpt").write_bytes(content)
        message = refused(capsys, "evaluate", "locked.ckpt", "--data", "drawn:n=20")
        assert "encrypted, refused" in message

    @pytest.mark.parametrize("name", ["subprocess.Popen", "os.system", "antigravity.geohash"])
    def test_a_network_is_never_a_program(self, name):
        with pytest.raises(CatordogError, match="not a class of network"):
            build_network(name, 2)


WHERE = [
    "trainer: {logger: %s}",
    "trainer: {logger: [%s]}",
    "trainer: {plugins: [%s]}",
    "trainer: {strategy: %s}",
    "trainer: {profiler: %s}",
    "trainer: {callbacks: [%s]}",
    "trainer.callbacks: [%s]",
    "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, "
    "init_args: {on_fit_start: %s}}]}",
    "model: {network: %s}",
    "model: {network_args: {widths: %s}}",
    "model: {transfer: %s}",
    "data: {source: %s}",
    "data: {augment: %s}",
    "name: %s",
]


@pytest.mark.parametrize("where", WHERE)
def test_a_config_that_names_a_program_anywhere_is_refused(capsys, where):
    Path("c.yaml").write_text(where % POPEN)
    refused(capsys, "train", "--config", "c.yaml", "--data", "drawn:n=60")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {logger: WandbLogger}", "on the command line"),
        ("trainer: {logger: {class_path: lightning.pytorch.loggers.CSVLogger}}", "command line"),
        ("trainer: {strategy: DDPStrategy}", "on the command line"),
        ("trainer: {callbacks: [{class_path: os.abort}]}", "no network or callback"),
        ("trainer: {callbacks: [{class_path: a.B, init_args: {f: os.abort}}]}", "names os.abort"),
        ("model: {network: os.path}", "no network or callback"),
        ("trainer: other.yaml", "is a file's name"),
        ("data: {source: !!python/object/apply:os.system ['touch pwned']}", "not YAML of plain"),
    ],
)
def test_a_config_may_not_name_other_code(capsys, text, message):
    Path("c.yaml").write_text(text)
    assert message in refused(capsys, "train", "--config", "c.yaml", "--data", "drawn:n=60")


@pytest.mark.parametrize("option", ["--trainer", "--trainer="])
def test_a_config_for_a_group_of_options_is_checked_as_well(capsys, option):
    Path("t.yaml").write_text("callbacks: [{class_path: os.abort}]")
    words = [option, "t.yaml"] if option == "--trainer" else ["--trainer=t.yaml"]
    assert "t.yaml" in refused(capsys, "train", *words, "--data", "drawn:n=60")


def test_a_config_for_a_single_option_is_checked_as_well(capsys):
    Path("c.yaml").write_text("[{class_path: os.abort}]")
    message = refused(capsys, "train", "--trainer.callbacks", "c.yaml", "--data", "drawn:n=60")
    assert "trainer.callbacks.class_path names os.abort" in message


def test_every_config_of_the_package_is_allowed():
    for config in (Path(__file__).parents[2] / "configs").glob("*.yaml"):
        check_config(config)


UNREADABLE = {
    "empty": (b"", "empty; write settings"),
    "only a comment": (b"# later\n", "empty; write settings"),
    "a list": (b"- model\n", "a list, and not settings by name"),
    "a word": (b"model\n", "a single value, and not settings by name"),
    "not text": (b"\x80\x81\xff", "not text in UTF-8: save it as UTF-8"),
    "a key twice": (b"model:\n  lr: 1\n  lr: 2\n", "'lr' is set in line 2 and again in line 3"),
    "a tab": (b"model:\n\tlr: 1\n", "line 2 is indented with a tab: use spaces"),
    "within itself": (b"model: &a [*a]\n", "nested too deeply, or within itself"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unusable_config_is_one_line_that_names_the_cause(capsys, content, message):
    Path("c.yaml").write_bytes(content)
    line = refused(capsys, "train", "--config", "c.yaml")
    assert line.startswith("catordog: error: --config c.yaml: ")
    assert message in line


def test_a_folder_is_no_config(capsys):
    Path("c.yaml").mkdir()
    assert "--config c.yaml: a folder" in refused(capsys, "train", "--config", "c.yaml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_config_with_a_byte_order_mark_is_read(capsys, encoding):
    Path("c.yaml").write_text("model: {lr: 0.0123}", encoding)
    assert main(["train", "--config", "c.yaml", "--print_config"]) == 0
    assert "lr: 0.0123" in capsys.readouterr().out


def test_a_merged_key_may_be_overridden():
    Path("c.yaml").write_text("model: &m {lr: 0.1}\ndata: {augment: {<<: *m, lr: 0.2}}")
    assert check_config(Path("c.yaml"))["data"]["augment"] == {"lr": 0.2}


@pytest.mark.parametrize(
    "text",
    [
        "model: {optimizer: {class_path: torch.optim.SGD}}",
        "optimizer: {class_path: torch.optim.AdamW}",
        "optimizer: torch.optim.AdamW",
    ],
)
def test_an_optimiser_by_class_path_is_told_the_names_that_there_are(capsys, text):
    Path("c.yaml").write_text(text)
    line = refused(capsys, "train", "--config", "c.yaml")
    assert line.endswith("optimisers are chosen by name: model.optimizer takes sgd, muon or adamw")
    assert "command line" not in line


def test_a_class_where_none_is_taken_is_not_sent_to_the_command_line(capsys):
    Path("c.yaml").write_text("data: {augment: {class_path: mine.Augment}}")
    line = refused(capsys, "train", "--config", "c.yaml")
    assert "only trainer.callbacks takes class_path" in line
    assert "command line" not in line
