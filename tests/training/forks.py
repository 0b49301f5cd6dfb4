"""A process with everything imported, which forks commands as processes of their own.

Starting `catordog train` takes seconds, nearly all of them for imports: too long for tests that
kill many runs. A fork is a real process, which gets real signals.

It reads requests from stdin and writes answers to stdout, each a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Forks:
    """The client, in the test's process."""

    def __init__(self, *, own_mounts: bool = False) -> None:
        words = [sys.executable, __file__]
        if own_mounts:
            words = ["unshare", "--map-root-user", "--mount", *words]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, *words: object, cwd: Path, name: str = "log", **env: str) -> Run:
        """Start `catordog WORDS` in a folder; its output goes to `name.out` and `name.err`."""
        pid = self.ask(do="start", words=[*map(str, words)], cwd=str(cwd), name=name, env=env)
        return Run(self, pid, cwd / name)  # `name` may be an absolute path

    def run(self, *words: object, cwd: Path, **env: str) -> Run:
        """Run a command to its end."""
        run = self.start(*words, cwd=cwd, **env)
        run.wait()
        return run

    def shell(self, command: str) -> int:
        """Run a shell command, in the same mount namespace."""
        return int(self.ask(do="shell", command=command))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


class Run:
    """A command that is running, or has ended."""

    def __init__(self, forks: Forks, pid: int, log: Path) -> None:
        self.forks, self.pid, self.log = forks, pid, log
        self.code: int | None = None

    @property
    def out(self) -> str:
        return self._output(".out")

    @property
    def err(self) -> str:
        return self._output(".err")

    def _output(self, suffix: str) -> str:
        file = self.log.with_suffix(suffix)
        return file.read_text("utf-8") if file.exists() else ""

    def poll(self) -> int | None:
        """The exit code, if it has ended; −9 after SIGKILL."""
        if self.code is None:
            self.code = self.forks.ask(do="poll", pid=self.pid)
        return self.code

    def wait(self, seconds: float = 120) -> int:
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.err
            time.sleep(0.01)
        return code

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until it has printed something on stderr."""
        self._wait_until(lambda: text in self.err, seconds)

    def wait_for_file(self, path: Path, seconds: float = 60) -> None:
        """Wait until it has written a file."""
        self._wait_until(path.exists, seconds)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, self.err
            assert time.monotonic() < end, self.err
            time.sleep(0.005)

    def send(self, number: int) -> None:
        if self.poll() is None:
            self.forks.ask(do="send", pid=self.pid, number=number)

    def kill(self) -> int:
        self.send(signal.SIGKILL)
        return self.wait()


def _answer(question: dict[str, Any]) -> Any:
    match question["do"]:
        case "start":
            pid = os.fork()
            if pid == 0:
                _become(question)
            return pid
        case "poll":
            pid, status = os.waitpid(question["pid"], os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if pid else None
        case "send":
            os.kill(question["pid"], question["number"])
            return None
        case "shell":
            return subprocess.run(question["command"], shell=True, check=False).returncode
        case _:
            raise ValueError(question)


def _become(question: dict[str, Any]) -> None:
    from catordog.cli import main

    os.chdir(question["cwd"])
    os.environ.update(question["env"])
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts")]
    for number, suffix in ((1, "out"), (2, "err")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(f"{question['name']}.{suffix}", flags), number)
    sys.stdin.close()
    code = 1
    try:
        code = main(question["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"  # tqdm reads it when it is imported

    import catordog.evaluation.evaluate
    import catordog.model.calibrate
    import catordog.training.lightning_cli
    import catordog.training.transfer  # noqa: F401

    for asked in sys.stdin:
        print(json.dumps(_answer(json.loads(asked))), flush=True)
