"""Image formats beyond what PIL makes of them.

TIFF as scanners, microscopes and cameras write it; and files that are images of a kind that is not read, or no images:
they are named by their content, each with its remedy.
"""

import os
from importlib import import_module
from typing import IO

from PIL import TiffImagePlugin

RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
))  # fmt: skip
HEAD_BYTES = 1024
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")

_RAW_HEADS = {
    b"FUJIFILMCCD-RAW": "Fujifilm RAF", b"IIRO": "Olympus ORF", b"IIRS": "Olympus ORF", b"MMOR": "Olympus ORF",
    b"IIU\0": "Panasonic RW2", b"\0MRM": "Minolta MRW", b"FOVb": "Sigma X3F", b"II\x1a\0\0\0HEAPCCDR": "Canon CRW",
    b"IIII": "Phase One IIQ",
}  # fmt: skip
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_OTHER_HEADS = {
    b"\xff\x0a": "JPEG XL: save it as JPEG or PNG (djxl)",
    b"\0\0\0\x0cJXL ": "JPEG XL: save it as JPEG or PNG (djxl)",
    b"%PDF": "a PDF: save its pages as PNG (pdftoppm -png)",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x93NUMPY": "a NumPy array: save it as PNG",
    b"\x89HDF": "HDF5: save its images as PNG",
    b"gimp xcf": "GIMP's own format: export it as PNG",
    b"version https://git-lfs": "only a pointer of Git LFS: fetch the file with git lfs pull",
    b"MZ": "a program",
    b"\x7fELF": "a program",
}
_MARKUP = {b"<svg": "a drawing (SVG): save it as PNG", b"<html": "a web page", b"<!doctype html": "a web page"}

RAW_PHOTOMETRICS = (32803, 34892)  # color filter array, linear raw
_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 258, 259, 262, 339
_MAKE, _SUB_IFDS, _DNG_VERSION = 271, 330, 50706
_THUMBNAIL = 1  # a bit of the subfile type
_RAW_COMPRESSIONS = (32767, 32769, 34713, 65000, 65535)  # Sony, packed, Nikon, Kodak, Pentax
_MAX_PAGES_SEARCHED = 16


class TiffImage(TiffImagePlugin.TiffImageFile):
    """PIL's TIFF, with two more kinds of grey, and at its first page that is no thumbnail.

    PIL shows 16 bits with white as zero inverted (``info["white_is_zero"]`` says so), and does not know it in
    big-endian files, nor with 12 bits, nor these in big-endian files: they are one stream of bits in both.
    """

    def _setup(self) -> None:
        tags = self.tag_v2
        self.info.pop("white_is_zero", None)
        bits, order = tags.get(_BITS, (1,)), tags._prefix
        if bits in ((12,), (16,)) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
            if tags.get(_PHOTOMETRIC) in (None, 0):  # who does not state it means black as zero
                self.info["white_is_zero"] = _PHOTOMETRIC in tags
                tags[_PHOTOMETRIC] = 1
            if bits == (12,):
                tags._prefix = TiffImagePlugin.II  # only for PIL's choice of the decoder: the tags are read
        try:
            super()._setup()
        finally:
            tags._prefix = order


def open_tiff(file: IO[bytes]) -> TiffImage:
    """Open a TIFF at its first page that is not marked as a thumbnail; at its first if all are."""
    image = TiffImage(file)
    page = 0
    while image.tag_v2.get(_SUBFILE_TYPE, 0) & _THUMBNAIL and page < _MAX_PAGES_SEARCHED:
        page += 1
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            break
    return image


def find_raw_maker(file: IO[bytes]) -> str | None:
    """Return whose camera wrote the raw file ("NIKON", "" if unknown, "DNG"), or None if it is an ordinary TIFF."""
    file.seek(0)
    head = file.read(16)
    if head[8:10] == b"CR":
        return "Canon CR2"
    directory = TiffImagePlugin.ImageFileDirectory_v2(head if head[2] == 43 or head[3] == 43 else head[:8])
    pending, seen, maker = [directory.next], set[int](), ""
    while pending and len(seen) < _MAX_PAGES_SEARCHED:
        offset = pending.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        file.seek(offset)
        directory.load(file)
        maker = maker or str(directory.get(_MAKE, "")).strip("\0 ")
        if _DNG_VERSION in directory:
            return "DNG"
        raw = directory.get(_COMPRESSION, 1) in _RAW_COMPRESSIONS
        if raw or directory.get(_PHOTOMETRIC, 1) in RAW_PHOTOMETRICS:
            return maker
        inner = directory.get(_SUB_IFDS, ())
        pending += [*(inner if isinstance(inner, tuple) else (inner,)), directory.next]
    return None


def describe_raw(maker: str) -> str:
    """Return what to say of a raw camera file after its name."""
    which = f" ({maker})" if maker else ""
    return f"is a raw camera file{which}, whose pixels are not developed: export it as JPEG, or as TIFF (darktable-cli)"


def name_foreign_format(head: bytes, name: str) -> str | None:
    """Return what to say of a file of a kind that is not read ("is a PDF: …"); None if it may be an image.

    ``head``: its first `HEAD_BYTES`. A HEIC file may be one, if pillow-heif is installed.
    """
    for magic, maker in _RAW_HEADS.items():
        if head.startswith(magic):
            return describe_raw(maker)
    if head[128:132] == b"DICM":
        return "is DICOM: save it as PNG of 16 bits (dcmj2pnm --write-16-bit-png), and state its bits with --bits"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))}
        if b"crx " in brands:
            return describe_raw("Canon CR3")
        if brands & _AVIF_BRANDS:
            return None
        if brands & _HEIC_BRANDS:
            return None if _register_heif() else 'is HEIC: pip install "effnet[heic]", or save it as JPEG'
        return "is a video, not an image"
    for magic, kind in _OTHER_HEADS.items():
        if head.startswith(magic):
            return f"is {kind}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, kind in _MARKUP.items():
        if text.startswith(magic) or (text.startswith(b"<?xml") and magic in text):
            return f"is {kind}"
    if os.path.splitext(name)[1].lower() in RAW_SUFFIXES:
        return describe_raw("")
    return None


def name_unreadable(head: bytes) -> str:
    """Return what to say of a file that PIL does not open."""
    if head[4:8] == b"ftyp" and {head[8:12], head[16:20]} & _AVIF_BRANDS:
        return "is AVIF, which this version of Pillow does not read: pip install --upgrade pillow"
    if head[:4] in TIFF_HEADS:
        return "is a damaged TIFF, or of a kind that is not read: save it as PNG, or as TIFF of 8 or 16 bits"
    return "is not an image, or its format is unknown"


def find_raw_tiff(head: bytes, file: IO[bytes]) -> str | None:
    """Return what to say of a TIFF that is a raw camera file: its first page is a thumbnail. None for any other."""
    if head[:4] not in TIFF_HEADS:
        return None
    try:
        maker = find_raw_maker(file)
    except Exception:  # a damaged directory: PIL says so, or does without
        return None
    finally:
        file.seek(0)
    return None if maker is None else describe_raw(maker)


def _register_heif() -> bool:
    """Let PIL open HEIC, if pillow-heif is installed."""
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True
