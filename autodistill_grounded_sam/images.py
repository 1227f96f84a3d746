"""Find images, read them upright as RGB, name them in a dataset, and set aside what cannot be read.

Which files count: every file below the folder that ends in one of `SUFFIXES`, in any case of letters. Quietly left out are other
suffixes (SVG and PDF among them), files without one, hidden files and folders (a leading dot, so AppleDouble's `._x` too), the
folders of `CLUTTER`, and linked folders (they may lead in circles); `Findings.left_out` counts them. A link to a file is an image
of its own, with the digest of its target. A file that counts but cannot be read is never passed over: it is a `FailedImage`.

Ids are the relative POSIX path as it is. Only characters that no list or terminal can hold (control characters, line separators,
bytes that are not UTF-8) and U+FFFD itself are written as U+FFFD and four hex digits of the code point: printable, and two paths
never share an id. `ImageRecord.path` has the real name.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from autodistill_grounded_sam import image_modes
from autodistill_grounded_sam.errors import ImageReadError, NoImagesError
from autodistill_grounded_sam.places import is_parquet, is_remote, place, walk
from autodistill_grounded_sam.types import ImageRecord, RgbImage

logger = logging.getLogger(__name__)

# heic and heif cannot be decoded, but a phone's photos must not be passed over in silence: each is set aside with its reason
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".avif", ".jp2", ".j2k", ".heic", ".heif"),
)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")  # for `frames`
CLUTTER = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
MAX_STEM_BYTES = 200  # file systems hold 255; tools append suffixes
MAX_MEGAPIXELS = 200
_CHUNK_BYTES = 1 << 20
_IMAGES_IN_FLIGHT = 1024  # bounds memory in folders of millions, and how long an interrupt waits
_PLAIN_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_JPEG_END = b"\xff\xd9"
_WINDOWS_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A file that counts as an image by its name; nothing of it was read yet. `root` and `file` as in ImageRecord."""

    id: str
    root: Path
    file: str = ""

    @property
    def path(self) -> Path:
        return self.root / (self.file or self.id)


@dataclass(frozen=True)
class FailedImage:
    """An image set aside: `reason` is a short word for counting, `detail` a sentence; both printable."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Findings:
    """What lies below a folder, sorted by id. `left_out` counts other files by suffix; `unreadable` are folders not listed."""

    images: tuple[FoundImage, ...]
    left_out: Mapping[str, int]
    unreadable: tuple[FailedImage, ...] = ()


@dataclass(frozen=True)
class Scan:
    """Every image of a folder, in order of id: those that can be opened, and those set aside."""

    images: tuple[ImageRecord, ...]
    failed: tuple[FailedImage, ...]


def find_images(folder: str | Path, *, extension: str | None = None) -> Findings:
    """List the images below a folder, sorted by id. `extension` (`.jpg`, `jpg`, `*.jpg`; any case) takes that one alone.

    Raises NoImagesError where the folder is missing, no folder, cannot be listed, or holds no image.
    """
    folder = place(folder)
    wanted = _wanted_suffixes(extension)
    _require_folder(folder)
    found: list[FoundImage] = []
    left_out: Counter[str] = Counter()
    unreadable: list[FailedImage] = []

    def note_unreadable(error: OSError) -> None:
        where = Path(error.filename).relative_to(folder)
        unreadable.append(FailedImage(_image_id(where), *_os_fault(error, "this folder")))

    for parent, subfolders, files in walk(folder, note_unreadable):
        left_out["(linked folder)"] += sum((parent / name).is_symlink() for name in subfolders)
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name.lower() not in CLUTTER]
        for name in files:
            if name.startswith("."):
                left_out["(hidden)"] += 1
            elif name.lower().endswith(wanted) or (extension is None and is_parquet(folder)):
                relative = (parent / name).relative_to(folder).as_posix()
                image_id = printable(relative)
                found.append(FoundImage(image_id, folder, "" if image_id == relative else relative))
            else:
                left_out[printable(Path(name).suffix.lower()) or "(no suffix)"] += 1
    left_out = +left_out  # drops zeros
    if left_out["(linked folder)"]:
        logger.warning("%d linked folder(s) in %s are not looked into", left_out["(linked folder)"], printable(folder))
    if not found:
        raise NoImagesError(_nothing_found(folder, wanted, left_out, unreadable))
    found.sort(key=lambda image: image.id)
    return Findings(tuple(found), dict(sorted(left_out.items())), tuple(unreadable))


def scan(
    folder: str | Path,
    *,
    extension: str | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Hash every image and read its header (upright size); what fails already here is set aside. No pixel is decoded.

    `progress` is called with (done, total) after each image. Raises NoImagesError as `find_images` does.
    """
    findings = find_images(folder, extension=extension)
    total = len(findings.images)
    images: list[ImageRecord] = []
    failed = list(findings.unreadable)
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 4)) as pool:
        for start in range(0, total, _IMAGES_IN_FLIGHT):
            chunk = findings.images[start : start + _IMAGES_IN_FLIGHT]
            for done, result in enumerate(pool.map(lambda image: look_at(image, max_megapixels), chunk), start + 1):
                if isinstance(result, FailedImage):
                    failed.append(result)
                else:
                    images.append(result)
                if progress is not None:
                    progress(done, total)
    return Scan(tuple(images), tuple(sorted(failed, key=lambda image: image.id)))


def read_image(source: ImageRecord | str | Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> RgbImage:
    """Decode one image file to upright RGB (height, width, 3) uint8; see `image_modes` for what becomes of other pixels.

    A JPEG that lacks only its end marker counts as truncated, since nobody can tell whether pixels are missing too.
    Raises ImageReadError with reason empty_file, not_an_image, truncated, damaged, too_many_pixels, invalid_size, no_decoder,
    missing, broken_link, link_loop, not_a_file, permission_denied or io_error.
    """
    path = source.path if isinstance(source, ImageRecord) else place(source)
    name = source.id if isinstance(source, ImageRecord) else printable(path)
    try:
        header = image_modes.read_header(io.BytesIO(_read_bytes(path)), path.name, max_megapixels)
        image_rgb, notes = image_modes.decode(header)
    except ImageReadError as error:
        if isinstance(source, ImageRecord):
            raise  # whoever holds the record names the image
        raise ImageReadError(error.reason, f"{error.detail} ({name})") from error
    for note in notes:
        logger.warning("%s: %s", name, note)
    return image_rgb


def read_pil(image: Image.Image) -> RgbImage:
    """The pixels of a Pillow image as upright RGB (height, width, 3): the very array `read_image` gives for its file.

    Upright means that an EXIF orientation which the image still carries is applied (as transformers does); an image that was
    turned by `ImageOps.exif_transpose` carries none.
    """
    if 0 in image.size:
        raise ImageReadError("invalid_size", f"a Pillow image of {image.size[0]} x {image.size[1]} pixels")
    try:
        image.load()
        orientation = image.getexif().get(image_modes.ORIENTATION)
        image_rgb, note = image_modes.to_rgb(image)
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise image_modes.fault(error, image.format or "Pillow image") from error
    if note:
        logger.warning("Pillow image: %s", note)
    return image_modes.turn(image_rgb, orientation if isinstance(orientation, int) else None)


def upright_bytes(record: ImageRecord) -> tuple[bytes, str]:
    """What to write into a dataset, and its suffix, so that every trainer loads the very pixels that were labelled.

    An 8-bit RGB or gray JPEG, PNG, WebP or BMP with one frame, no orientation and no transparency is returned as it is (a JPEG
    less what follows its end marker: ultralytics rewrites files that do not end with it), with the suffix of its content.
    Everything else becomes PNG: exact, but about five times the bytes of a turned JPEG photo. Raises ImageReadError
    (with reason changed where the file is not the one that was labelled).
    """
    header, data = _unchanged(record)
    if _is_plain(header, data):
        if header.image.format == "JPEG":
            data = data[: data.rindex(_JPEG_END) + len(_JPEG_END)]
        return data, _PLAIN_SUFFIX[header.image.format or ""]
    image_rgb, _ = image_modes.decode(header)
    bands = header.image.getbands()
    is_gray = len(bands) <= 2 and bands[0] != "P"
    written = Image.fromarray(image_rgb[..., 0] if is_gray else image_rgb)
    out = io.BytesIO()
    written.save(out, "PNG", compress_level=3)  # 2.5 times as fast as 6, for 15 % more bytes
    return out.getvalue(), ".png"


def read_labelled(record: ImageRecord) -> RgbImage:
    """As `read_image`, and raises ImageReadError (changed) where the file is not the one that was labelled."""
    return image_modes.decode(_unchanged(record)[0])[0]


def _unchanged(record: ImageRecord) -> tuple[image_modes.Header, bytes]:
    data = _read_bytes(record.path)
    if hashlib.sha256(data).hexdigest() != record.digest:
        raise ImageReadError("changed", "the file is not the one that was labelled; label it again")
    megapixels = record.width * record.height / 1e6 + 1  # it was inside the run's limit when it was labelled
    return image_modes.read_header(io.BytesIO(data), record.path.name, megapixels), data


def dataset_stems(ids: Sequence[str]) -> dict[str, str]:
    """A file stem for every image id: unique (whatever the case of letters or the Unicode form), safe anywhere, no folders.

    `a.jpg` gives `a`; `cam1/img.jpg` gives `cam1__img`. A short digest of the id is appended where two would clash (to both),
    where characters had to be replaced, and where the name is too long; so a stem depends on the other ids only in a clash.
    """
    stems = {image_id: _stem(image_id, 0) for image_id in ids}
    digits = 8
    while True:
        counts = Counter(_file_key(stem) for stem in stems.values())
        clashing = [image_id for image_id, stem in stems.items() if counts[_file_key(stem)] > 1]
        if not clashing:  # comes true: at 64 digits, two ids with a digest differ, and each round gives more ids one
            return stems
        stems.update({image_id: _stem(image_id, digits) for image_id in clashing})
        digits = min(64, 2 * digits)


def printable(text: str | Path) -> str:
    """The text without anything that breaks a line-based list, a terminal or JSON; different texts stay different."""
    return "".join(f"\ufffd{ord(char):04x}" if _is_unprintable(char) else char for char in str(text))


def _is_unprintable(char: str) -> bool:
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _image_id(relative: Path) -> str:
    return printable(relative.as_posix())


def _wanted_suffixes(extension: str | None) -> tuple[str, ...]:
    bare = (extension or "").strip().lstrip("*").lstrip(".").lower()
    return (f".{bare}",) if bare and bare != "*" else SUFFIXES


def _require_folder(folder: Path) -> None:
    if is_remote(folder):
        try:
            is_there, why = folder.is_dir(), "nothing is there, or it may not be read"
        except Exception as error:  # each store has errors of its own
            is_there, why = False, f"{type(error).__name__}: {error}"
        if not is_there:
            raise NoImagesError(f"no folder of images at {printable(folder)}: {why}")
        return
    try:
        os.scandir(folder).close()
    except FileNotFoundError as error:
        raise NoImagesError(
            f"the image folder {printable(folder)} does not exist (looked from {printable(Path.cwd())})"
        ) from error
    except NotADirectoryError as error:
        is_video, parent = folder.suffix.lower() in VIDEO_SUFFIXES, printable(folder.parent)
        cure = "`grounded-sam frames` takes images from videos" if is_video else f"give the folder of the images: {parent}"
        raise NoImagesError(f"{printable(folder)} is a file, not a folder; {cure}") from error
    except OSError as error:
        raise NoImagesError(f"the image folder {printable(folder)} cannot be listed: {error.strerror}") from error


def _nothing_found(folder: Path, wanted: Sequence[str], left_out: Counter[str], unreadable: Sequence[FailedImage]) -> str:
    seen = ", ".join(f"{count} {suffix}" for suffix, count in left_out.most_common(12)) or "nothing"
    message = f"no images in {printable(folder)}: looked in all its folders for {' '.join(wanted)}, found {seen}"
    if unreadable:
        message += f"; {len(unreadable)} folder(s) could not be listed, the first is {unreadable[0].id} ({unreadable[0].reason})"
    if len(wanted) == 1 and any(suffix in SUFFIXES for suffix in left_out):
        message += f"; leave out the extension {wanted[0]} to take images of every suffix"
    if any(suffix in VIDEO_SUFFIXES for suffix in left_out):
        message += "; `grounded-sam frames` takes images from videos"
    return message


def look_at(image: FoundImage, max_megapixels: float) -> ImageRecord | FailedImage:
    """Hash one file and read its header: a record of it, or why it is set aside. Decodes no pixel."""
    try:
        with _opened(image.path) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            file.seek(0)
            header = image_modes.read_header(file, image.path.name, max_megapixels)
            width, height = header.size
    except ImageReadError as error:
        return FailedImage(image.id, error.reason, printable(error.detail))
    return ImageRecord(image.id, digest.hexdigest(), image.root, width, height, image.file)


def _read_bytes(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened; anything else is refused before it is opened, since opening a pipe waits for ever."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
            raise ImageReadError("not_a_file", f"{what}, not a regular file")
        with path.open("rb") as file:
            yield file
    except ImageReadError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise ImageReadError("broken_link", "a symbolic link to nothing") from error
        raise ImageReadError(*_os_fault(error, "the file")) from error
    except Exception as error:
        if not is_remote(path):
            raise
        raise ImageReadError("io_error", f"the file cannot be fetched: {type(error).__name__}: {error}") from error


def _os_fault(error: OSError, what: str) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "missing", f"{what} does not exist"
    if isinstance(error, PermissionError):
        return "permission_denied", f"{what} may not be read by this user"
    if error.errno == errno.ELOOP:
        return "link_loop", "symbolic links that lead in a circle"
    return "io_error", f"{what} cannot be read: {error.strerror}"


def _is_plain(header: image_modes.Header, data: bytes) -> bool:
    """Whether OpenCV, Pillow and torchvision all load these bytes as `image_modes.decode` does."""
    image = header.image
    if image.format not in _PLAIN_SUFFIX or image.mode not in ("RGB", "L") or header.orientation not in (None, 1):
        return False
    if image.has_transparency_data or getattr(image, "is_animated", False):
        return False
    if image.format == "PNG":
        return data[24] == 8  # bit depth: Pillow calls 16-bit colour RGB, too
    if image.format == "BMP":
        return data[28:30] in (b"\x08\x00", b"\x18\x00")  # bits a pixel: 16 and 32 are read differently
    return image.format != "JPEG" or _JPEG_END in data


def _file_key(stem: str) -> str:
    """Equal for stems that are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def _stem(image_id: str, digits: int) -> str:
    """The stem of one id, with so many hex digits of its digest; safe names that need none get none."""
    folders, _, name = image_id.rpartition("/")
    bare = name.rpartition(".")[0] or name
    plain = "__".join([*folders.split("/"), bare]) if folders else bare
    safe = "".join("_" if char in '<>:"/\\|?*' or _is_unprintable(char) else char for char in plain).rstrip(". ").lstrip(". ")
    if safe.partition(".")[0].rstrip().upper() in _WINDOWS_DEVICES:
        safe = f"_{safe}"
    if safe == plain and len(safe.encode()) <= MAX_STEM_BYTES and not digits:
        return safe
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[: digits or 8]
    room = MAX_STEM_BYTES - 1 - len(digest)
    return f"{safe.encode()[:room].decode('utf-8', 'ignore')}-{digest}"
