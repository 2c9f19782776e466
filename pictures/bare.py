"""A PNG or JPEG file without all that says nothing of its pixels: what is broken in there stops no sound picture.

Pillow gives a picture up for a text of more than a megabyte, a wrong checksum of a comment, or half a profile.
"""

from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}  # of a PNG: pixels, and how the camera was turned
APP0, APP1, APP14, APP15, COM, SCAN = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA  # markers of a JPEG


def bare(data: bytes) -> bytes:
    """`data` itself if it is of another format. A file that is cut off stays so."""
    if data.startswith(PNG):
        return PNG + b"".join(_chunks(data))
    if data.startswith(JPEG):
        return JPEG + b"".join(_segments(data))
    return data


def _chunks(data: bytes) -> Iterator[bytes]:
    """Each is its length, its name, as many bytes, and a checksum."""
    start = len(PNG)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in CHUNKS:
            yield data[start:end]
        start = end


def _segments(data: bytes) -> Iterator[bytes]:
    """Each is 0xFF, its marker, its length from there on, and as many bytes less two; the rest after the last."""
    start = len(JPEG)
    while data[start : start + 1] == b"\xff" and data[start + 1] != SCAN:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if _tells_of_pixels(data[start + 1], data[start + 4 : end]):
            yield data[start:end]
        start = end
    yield data[start:]


def _tells_of_pixels(marker: int, content: bytes) -> bool:
    """EXIF tells how the camera was turned, Adobe's segment how colours are coded."""
    if marker == APP1:
        return content.startswith(b"Exif\0\0")
    if marker == APP14:
        return content.startswith(b"Adobe") and len(content) >= 12
    return not (APP0 <= marker <= APP15 or marker == COM)
