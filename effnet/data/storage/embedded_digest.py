"""A digest of its content inside a file that we write, in whichever format, and the check of it when it is opened.

The formats of networks have no checksum: a byte that a disk, a copy or a download has changed gives other predictions
and no error. A writer puts `PLACEHOLDER` among the file's texts (metadata of ONNX and TFLite, ``rt_info`` of OpenVINO,
the header of safetensors) and calls `seal`, which replaces its zeros by the SHA-256 of the file as it was with them.
All formats store texts as they are, so that nothing here depends on one. It finds damage, and is no signature: who
wants to can seal again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from mmap import ACCESS_READ, ACCESS_WRITE, mmap
from pathlib import Path

DIGEST_KEY = "effnet.digest"  # under which files hold it, where their texts have names
_MARK, _DIGITS = "effnet-sha256:", 64
PLACEHOLDER = _MARK + "0" * _DIGITS
DIGEST_TEXTS = {DIGEST_KEY: PLACEHOLDER}
_CHUNK_BYTES = 2**22


def seal(path: Path) -> None:
    """Write the digest of ``path``, and of the weights that it refers to, into each `PLACEHOLDER` in it.

    An older digest, in what was taken over from another file, is replaced too. Equal files stay equal.
    """
    with _open_content(path, ACCESS_WRITE) as content:
        places = _find_digests(content)
        for start, end in places:
            content[start:end] = b"0" * _DIGITS
        digest = _hash(path, content, []).encode()
        for start, end in places:
            content[start:end] = digest


def verify(path: Path) -> str:
    """Compare a file with the digest in it, and return that; "" if it has none.

    Files that were written before there were digests, or by other programs, have none. Raises ``ValueError`` if the
    content is another one than was written, and ``OSError``.

    Example:
        >>> verify(Path("model.onnx"))
        '5f0c…'
    """
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    with _open_content(path, ACCESS_READ) as content:
        places = _find_digests(content)
        if not places:
            return ""
        digest = _hash(path, content, places)
        stated = {bytes(content[start:end]) for start, end in places}
    if stated != {digest.encode()}:
        raise ValueError(
            f"{path} is damaged, or was changed after it was written: its content does not fit its digest; copy or "
            f"write it again (if it was changed on purpose, remove {DIGEST_KEY} from its metadata)"
        )
    return digest


@contextmanager
def _open_content(path: Path, access: int) -> Iterator[mmap]:
    with path.open("rb" if access == ACCESS_READ else "r+b") as file, mmap(file.fileno(), 0, access=access) as content:
        yield content


def _find_digests(content: mmap) -> list[tuple[int, int]]:
    """Return start and end of each digest."""
    mark, found, at = _MARK.encode(), [], 0
    while (at := content.find(mark, at)) >= 0:  # far faster than a regular expression
        at += len(mark)
        found.append((at, min(at + _DIGITS, len(content))))
    return found


def _hash(path: Path, content: mmap, places: list[tuple[int, int]]) -> str:
    """Return the digest of ``content``, with zeros in these places, and of its weights in another file."""
    digest, done = sha256(), 0
    with memoryview(content) as view:
        for start, end in places:
            digest.update(view[done:start])
            digest.update(b"0" * (end - start))
            done = end
        digest.update(view[done:])
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and weights.is_file():  # of OpenVINO's graph
        with weights.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
