"""Download datasets by name: resumed after a break, verified, and moved into place atomically."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catordog.errors import CatordogError
from catordog.photos.data_folder import data_folder
from catordog.terminal import info, progress

if TYPE_CHECKING:
    from urllib.request import Request

ATTEMPTS = 4
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to download.

    Attributes:
        url: its address.
        algorithm: of its checksum, as hashlib names it.
        checksum: in hexadecimal.
        max_bytes: a larger file is refused.
    """

    url: str
    algorithm: str
    checksum: str
    max_bytes: int = 4 * 2**30

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


MICROSOFT = Remote(
    "https://download.microsoft.com/download/3/E/1/"
    "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
    "sha256",
    "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
)


def fetch(name: str) -> Path:
    """Return the path of a dataset in the data folder; download it if it isn't there.

    Args:
        name: a key of `DOWNLOADS`.

    Raises:
        CatordogError: it can't be downloaded; the message tells how to place it by hand.
    """
    return DOWNLOADS[name]()


def _microsoft() -> Path:
    target = data_folder() / MICROSOFT.name
    if target.exists():
        _verify(target, MICROSOFT)
        return target
    info("Microsoft's Cats and Dogs: 25,000 photos from Petfinder, for research only")
    info("(Microsoft Research licence: MSR-LA - 3467.docx in the archive)")
    fetch_file(MICROSOFT, target, f"put the file at {target}")
    return target


def _oxford_pets() -> Path:
    target = data_folder() / "oxford-pets"
    if target.exists():
        return target
    info("Oxford-IIIT Pet: 7,349 photos of 37 breeds; CC BY-SA 4.0 (Parkhi et al. 2012)")
    from torchvision.datasets import OxfordIIITPet

    packed = data_folder() / "oxford-iiit-pet"
    by_hand = f"put the two archives into {packed}"
    remotes = [Remote(url, "md5", md5) for url, md5 in OxfordIIITPet._RESOURCES]
    archives = [packed / remote.name for remote in remotes]
    for remote, archive in zip(remotes, archives, strict=True):
        if not archive.exists():
            fetch_file(remote, archive, by_hand)
        _verify(archive, remote)
    # torchvision expects the archives in the folder where it unpacks them; it verifies them again.
    try:
        with tempfile.TemporaryDirectory(dir=data_folder(), prefix=".oxford-pets-") as folder:
            inside = Path(folder) / "oxford-iiit-pet"
            inside.mkdir()
            for archive in archives:
                _link_or_copy(archive, inside / archive.name)
            info("unpacking")
            OxfordIIITPet(folder, target_types="binary-category", download=True)
            for archive in inside.glob("*.tar.gz"):
                archive.unlink()
            inside.rename(target)
    except (OSError, RuntimeError, EOFError) as error:
        raise CatordogError(
            f"--data oxford-pets: the archives in {packed} can't be unpacked ({error}): delete "
            "them, and run the command again"
        ) from None
    with suppress(OSError):  # torchvision's folder of the same name may hold other files
        for archive in archives:
            archive.unlink()
        packed.rmdir()
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


DOWNLOADS: dict[str, Callable[[], Path]] = {"microsoft": _microsoft, "oxford-pets": _oxford_pets}


def fetch_file(remote: Remote, target: Path, by_hand: str) -> None:
    """Download a file. It appears under its own name only when it is complete and verified.

    A broken download is resumed: a few times now, and again by the next call.

    Args:
        remote: the file to download.
        target: its path on disk.
        by_hand: what users can do instead if they have the file from elsewhere; used in errors.

    Raises:
        CatordogError: there is no network, the download breaks off repeatedly, the disk is full,
            or the checksum differs.
    """
    from urllib.error import HTTPError, URLError  # slow, and few commands download

    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            if _fetch_rest(remote, part):
                break
            if attempt < ATTEMPTS - 1:
                time.sleep(0.5 * 2**attempt)
        else:
            done = part.stat().st_size / 2**20 if part.exists() else 0
            raise CatordogError(
                f"{remote.url} broke off after {done:.1f} MiB, {ATTEMPTS} times: run the same "
                "command again to resume it"
            )
        if _checksum(part, remote) != remote.checksum:
            part.unlink()
            raise CatordogError(
                f"{remote.url} sent other bytes than published ({remote.algorithm} differs) and "
                f"they were deleted: try again, or {by_hand}"
            )
        part.replace(target)
    except HTTPError as error:
        raise CatordogError(
            f"{remote.url} answers {error.code} {error.reason}: get it elsewhere, and {by_hand}"
        ) from None
    except URLError as error:
        raise CatordogError(
            f"no network: {remote.url} can't be reached ({_plain(error.reason)}): download it on "
            f"another machine, and {by_hand}"
        ) from None
    except OSError as error:
        raise CatordogError(f"can't write {part}: {error.strerror or error}") from None


def _fetch_rest(remote: Remote, part: Path) -> bool:
    """Append the missing bytes to the partial file. Returns False if the connection broke."""
    import http.client
    from urllib.error import HTTPError
    from urllib.request import Request

    there = part.stat().st_size if part.exists() else 0
    request = Request(remote.url, headers={"User-Agent": "catordog"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        with _open(request) as answer:
            if answer.status != http.client.PARTIAL_CONTENT:
                there = 0  # the server ignores ranges and sends everything
            length = answer.headers.get("Content-Length")
            total = there + int(length) if length and length.isdigit() else None
            if total is not None:
                _check_room(part.parent, total - there, total, remote)
            return _copy(answer, part, there, total, remote)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is missing, as the checksum will confirm
        raise


def _open(request: Request) -> Any:
    from urllib.request import urlopen

    if not request.full_url.startswith(("https://", "http://")):
        raise CatordogError(f"{request.full_url} is not an http or https address")
    return urlopen(request, timeout=TIMEOUT_SECONDS)  # nosec B310


def _copy(answer: Any, part: Path, there: int, total: int | None, remote: Remote) -> bool:
    from http.client import HTTPException

    in_mib = None if total is None else max(1, total // 2**20)
    title = f"{remote.name}, MiB"
    with part.open("ab" if there else "wb") as file, progress(title, in_mib) as done:
        while True:
            try:
                block = answer.read(2**18)
            except (TimeoutError, ConnectionError, HTTPException):
                return False
            if not block:
                return total is None or there == total
            there += len(block)
            if there > remote.max_bytes:
                raise CatordogError(
                    f"{remote.url} is larger than {remote.max_bytes / 2**20:,.0f} MiB: stopped"
                )
            file.write(block)
            done(there // 2**20)


def _check_room(folder: Path, needed: int, total: int, remote: Remote) -> None:
    if total > remote.max_bytes:
        raise CatordogError(
            f"{remote.url} has {total / 2**20:,.0f} MiB, more than the published file: refused"
        )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CatordogError(
            f"{folder} has {free / 2**20:,.0f} MiB free and {needed / 2**20:,.0f} are needed: "
            "make room, or let the environment variable CATORDOG_DATA name another folder"
        )


def _verify(path: Path, remote: Remote) -> None:
    if _checksum(path, remote) != remote.checksum:
        raise CatordogError(
            f"{path} is not the published file ({remote.algorithm} differs): delete it, and it "
            "will be downloaded"
        )


def _checksum(path: Path, remote: Remote) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, remote.algorithm).hexdigest()


def _plain(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)
