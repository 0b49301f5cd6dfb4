"""Read the photos of a request into memory, within its limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import PurePath

from fastapi import HTTPException, Request
from starlette.formparsers import MultiPartException, MultiPartParser

from catordog.web.limits import Limits


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo in a request."""

    name: str
    data: bytes


DRAINED = 160 * 2**20
"""Bytes of a request over its limit that are still read, and dropped, before it is cut off."""


async def read_body(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request.

    Args:
        request: any.
        most: bytes, at most.

    Raises:
        HTTPException: there are more.
    """
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken <= most:
            yield chunk
        elif taken > DRAINED:
            break
    if taken > most:  # most clients read an answer only after sending
        shown = f"{most / 2**20:.0f} MiB" if most >= 2**20 else f"{most / 2**10:.0f} KiB"
        raise HTTPException(413, f"the request is over {shown}")


async def read_uploads(request: Request, limits: Limits) -> tuple[list[Upload], bool]:
    """Read the photos of a request into memory, and whether they came as a form.

    Raises:
        HTTPException: there is no photo, or a limit is exceeded.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    several = kind == "multipart/form-data"
    most = limits.request_bytes if several else limits.photo_bytes

    if not several:
        data = b"".join([chunk async for chunk in read_body(request, most)])
        if not data:
            raise HTTPException(422, "the request has no photo")
        return [Upload("photo", data)], False
    parser = MultiPartParser(
        request.headers, read_body(request, most), max_files=limits.photos, max_fields=8
    )
    parser.spool_max_size = most  # photos never touch the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    found = [part for _, part in form.multi_items() if not isinstance(part, str)]
    uploads = [Upload(PurePath(part.filename or "photo").name, await part.read()) for part in found]
    await form.close()
    if not uploads:
        raise HTTPException(422, "the request has no photo")
    for upload in uploads:
        if len(upload.data) > limits.photo_bytes:
            raise HTTPException(413, f"{upload.name}: over {limits.photo_bytes / 2**20:.0f} MiB")
    return uploads, True
