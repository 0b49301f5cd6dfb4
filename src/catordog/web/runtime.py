"""ONNX Runtime Web, which runs a model in the one-file page: fetched once, pinned and verified."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess  # asks npm for its settings  # nosec B404
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from catordog.errors import CatordogError
from catordog.photos.data_folder import data_folder
from catordog.photos.downloads import Remote, fetch_file

VERSION = "1.30.0"

_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
_PACKAGE_BYTES = 40 * 2**20

# The smallest build: on one thread of the CPU, without WebGPU, and with its loader inside.
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_SHA256 = {
    _SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    _WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_FILE_BYTES = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Runtime:
    """The files of ONNX Runtime Web that a page needs.

    Attributes:
        script: JavaScript, an ES module.
        wasm: WebAssembly.
    """

    script: str
    wasm: bytes


def open_runtime(given: Path | None = None) -> Runtime:
    """Read ONNX Runtime Web, from the data folder or after a download of 33 MB.

    Args:
        given: the package instead, as a folder or as `npm pack` writes it.

    Raises:
        CatordogError: it can't be downloaded, or it is another version.
    """
    source = given or _downloaded()
    try:
        files = _of_folder(source) if source.is_dir() else _of_archive(source)
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CatordogError(f"--runtime {source}: can't be read ({reason})") from None
    for name, digest in _SHA256.items():
        if name not in files:
            raise CatordogError(
                f"--runtime {source}: has no {name}; give onnxruntime-web {VERSION}"
            )
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise CatordogError(
                f"--runtime {source}: its {name} is not that of onnxruntime-web {VERSION}"
            )
    return Runtime(files[_SCRIPT].decode("utf-8"), files[_WASM])


def _downloaded() -> Path:
    target = data_folder() / f"onnxruntime-web-{VERSION}.tgz"
    if not target.exists():
        url = f"{registry()}/onnxruntime-web/-/{target.name}"
        remote = Remote(url, "sha512", _SHA512, _PACKAGE_BYTES)
        fetch_file(
            remote, target, f"name it with --runtime, as 'npm pack onnxruntime-web@{VERSION}' does"
        )
    return target


def registry(environment: Mapping[str, str] = os.environ) -> str:
    """The address of the npm registry that this user has configured, without a slash at its end.

    Args:
        environment: variables, such as `NPM_CONFIG_REGISTRY`.

    Raises:
        CatordogError: no variable and no `.npmrc` names one, and npm is not installed.
    """
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if environment.get(name):
            return environment[name].rstrip("/")
    own = environment.get("NPM_CONFIG_USERCONFIG")
    try:
        lines = (Path(own) if own else Path.home() / ".npmrc").read_text("utf-8").splitlines()
    except (OSError, ValueError, RuntimeError):
        lines = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "registry" and value.strip():
            return value.strip().strip("\"'").rstrip("/")
    npm = shutil.which("npm", path=environment.get("PATH"))
    if npm is not None:  # it knows its own default
        command = [npm, "config", "get", "registry"]
        answer = subprocess.run(  # a fixed command, no shell  # nosec B603
            command, capture_output=True, text=True, timeout=60, check=False
        )
        if answer.stdout.startswith("http"):
            return answer.stdout.strip().rstrip("/")
    raise CatordogError(
        "no npm registry is known here: set NPM_CONFIG_REGISTRY to its address, or run "
        f"'npm pack onnxruntime-web@{VERSION}' elsewhere and name its file with --runtime"
    )


def _of_folder(folder: Path) -> dict[str, bytes]:
    places = (folder, folder / "dist", folder / "package" / "dist")
    place = next((each for each in places if (each / _SCRIPT).is_file()), folder)
    return {
        name: (place / name).read_bytes()
        for name in _SHA256
        if (place / name).is_file() and (place / name).stat().st_size <= _FILE_BYTES
    }


def _of_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as archive:
        return dict(_members(archive))


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    left = set(_SHA256)
    for member in archive:
        name = member.name.rpartition("/")[2]
        if member.name == f"package/dist/{name}" and name in left and member.size <= _FILE_BYTES:
            content = archive.extractfile(member)
            if content is not None:
                left.remove(name)
                yield name, content.read()
        if not left:
            return
