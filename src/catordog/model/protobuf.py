"""Read and write the wire format of protobuf, in which ONNX files are stored.

The package `onnx` can do this too, but it is large, and prediction and teaching do without it. A
message is a list of fields. Fields that nothing here knows are kept as they are, so a file that is
read and written keeps all of its content.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

_MAX_VARINT_BYTES = 10

Value = int | memoryview | bytes
Field = tuple[int, int, Value]
"""A field: its number, its wire type, and its value: an integer for `VARINT`, else bytes."""


def parse(data: bytes | memoryview) -> list[Field]:
    """The fields of a message, in order.

    Values of bytes are views into `data`, so that large weights are not copied.

    Raises:
        ValueError: the data is no message.
    """
    return list(_fields(memoryview(data)))


def _fields(data: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, at = _varint(data, at)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, at = _varint(data, at)
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if at + size > len(data):
            raise ValueError("a field ends after its message")
        yield number, wire_type, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise ValueError("a number ends after its message")
        byte = data[at + index]
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return result & (2**64 - 1), at + index + 1  # as protobuf does
    raise ValueError("a number has too many bytes")


def serialise(fields: Iterable[Field]) -> bytes:
    """The message with these fields; the inverse of `parse`.

    >>> bytes(parse(serialise([text(1, "cat"), integer(2, 300)]))[0][2])
    b'cat'
    """
    parts: list[bytes | memoryview] = []
    for number, wire_type, value in fields:
        parts.append(_packed_varint(number << 3 | wire_type))
        if isinstance(value, int):
            parts.append(_packed_varint(value))
            continue
        if wire_type == BYTES:
            parts.append(_packed_varint(len(value)))
        parts.append(value)
    return b"".join(parts)


def _packed_varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are two's complements of 64 bits
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def integer(number: int, value: int) -> Field:
    """A field with an integer."""
    return number, VARINT, value


def text(number: int, value: str) -> Field:
    """A field with a text."""
    return number, BYTES, value.encode()


def message(number: int, fields: Iterable[Field]) -> Field:
    """A field with a message in it."""
    return number, BYTES, serialise(fields)


def packed(number: int, value: bytes) -> Field:
    """A field with bytes."""
    return number, BYTES, value


def text_of(fields: Iterable[Field], number: int) -> str:
    """The last text with this field number; empty if there is none.

    Raises:
        ValueError: it is not UTF-8.
    """
    found = texts_of(fields, number)
    return found[-1] if found else ""


def texts_of(fields: Iterable[Field], number: int) -> list[str]:
    """All texts with this field number.

    Raises:
        ValueError: one is not UTF-8.
    """
    return [str(value, "utf-8") for value in bytes_of(fields, number)]


def bytes_of(fields: Iterable[Field], number: int) -> list[bytes | memoryview]:
    """All values of bytes with this field number: texts, messages or data."""
    return [
        value
        for found, wire_type, value in fields
        if found == number and wire_type == BYTES and not isinstance(value, int)
    ]
