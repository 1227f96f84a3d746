"""What of an image goes into a dataset: the bytes that trainers load, and a name that every disk takes."""

from __future__ import annotations

import hashlib
import io
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autodistill_grounded_sam import images
from autodistill_grounded_sam.errors import ImageReadError
from autodistill_grounded_sam.images import dataset_stems, read_image, upright_bytes
from tests.image_kit import exif_with, png_claiming, record_of, save, scene

# --- bytes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "suffix"),
    [
        ("a.jpg", {}, ".jpg"),
        ("a.jfif", {"progressive": True}, ".jpg"),
        ("a.png", {}, ".png"),
        ("a.webp", {}, ".webp"),
        ("a.bmp", {}, ".bmp"),
        ("b.jpg", {"exif": exif_with(1)}, ".jpg"),
    ],
)
def test_upright_bytes__plain_files_stay_as_they_are(tmp_path: Path, name: str, settings: dict, suffix: str) -> None:
    path = save(tmp_path / name, **settings)
    assert upright_bytes(record_of(path)) == (path.read_bytes(), suffix)


def test_upright_bytes__jpeg_with_a_tail_is_cut_after_its_end(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + b"a phone's trailer")
    assert upright_bytes(record_of(path)) == (whole, ".jpg")


def test_upright_bytes__16_bit_png_and_odd_bmp_are_written_anew(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + np.full((32, 3), 0x7FFF, ">u2").tobytes() for _ in range(24))
    (tmp_path / "a.png").write_bytes(png_claiming(32, 24, zlib.compress(rows), bits=16))
    data, suffix = upright_bytes(record_of(tmp_path / "a.png"))
    assert suffix == ".png"
    assert data[24] == 8
    assert (read_image(tmp_path / "a.png") == 0x7F).all()
    Image.fromarray(scene()[..., 0] > 90).save(tmp_path / "b.bmp")
    assert upright_bytes(record_of(tmp_path / "b.bmp"))[1] == ".png"


def test_upright_bytes__a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    record = record_of(path)
    save(path, scene()[::-1])  # of the same size
    with pytest.raises(ImageReadError, match="changed: the file is not the one that was labelled; label it again"):
        upright_bytes(record)


def test_upright_bytes__trainers_load_what_was_labelled(tmp_path: Path) -> None:
    """OpenCV (ultralytics) and Pillow without any turning (others) see the pixels of `read_image`."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
    for name, image, extra in [
        ("plain.jpg", smooth, {"quality": 95}),
        ("turned.jpg", smooth, {"exif": exif_with(6)}),
        ("turned.webp", smooth, {"exif": exif_with(5)}),
        ("plain.webp", smooth, {}),
        ("cmyk.jpg", smooth.convert("CMYK"), {}),
        ("palette.png", smooth.quantize(32), {}),
        ("gray.jpg", smooth.convert("L"), {}),
        ("plain.bmp", smooth, {}),
        ("gray.bmp", smooth.convert("L"), {}),
        ("plain.tif", smooth, {}),
    ]:
        image.save(tmp_path / name, **extra)
        data, suffix = upright_bytes(record_of(tmp_path / name))
        labelled = read_image(tmp_path / name).astype(int)
        by_pillow = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.array_equal(by_pillow, labelled), name
        assert by_opencv.shape == labelled.shape, name
        assert np.abs(by_opencv.astype(int) - labelled).max() <= (0 if suffix in (".png", ".bmp") else 6), name


# --- names --------------------------------------------------------------------------------------------------------------------


def test_dataset_stems__what_needs_no_change_stays() -> None:
    stems = dataset_stems(
        ["a.jpg", "a.b.c.v1.2.jpg", "001.jpg", "null.png.jpg", "cam1/img_1.jpg", "фото_日本語.jpg", "-rf.jpg", "x#t=1.jpg"]
    )
    assert list(stems.values()) == ["a", "a.b.c.v1.2", "001", "null.png", "cam1__img_1", "фото_日本語", "-rf", "x#t=1"]


def test_dataset_stems__clashes_of_suffix_case_unicode_and_flattening() -> None:
    ids = ["a.jpg", "a.PNG", "Case.jpg", "case.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "c/i.jpg", "c__i.jpg", "free.jpg"]
    stems = dataset_stems(ids)
    keys = {unicodedata.normalize("NFC", stem).casefold() for stem in stems.values()}
    assert len(keys) == len(ids)
    assert stems["free.jpg"] == "free"
    assert stems["a.jpg"] == "a-" + hashlib.sha256(b"a.jpg").hexdigest()[:8]
    assert stems["c/i.jpg"].startswith("c__i-")


@pytest.mark.parametrize(
    "image_id",
    [
        *("CON.jpg", "nul.tar.jpg", "com1.png", "<b>.jpg", 'q"q.jpg', "b\\s.jpg", "trail .jpg", " lead.jpg", "dot..jpg", "?.jpg"),
        *("x\ufffd000ay.jpg", "n\nl.jpg", ". .jpg", "x" * 250 + ".jpg", "日" * 90 + ".jpg", "\udce9.jpg"),
    ],
)
def test_dataset_stems__unsafe_names_are_mended_and_marked(image_id: str) -> None:
    stem = dataset_stems([image_id])[image_id]
    assert stem.endswith("-" + hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:8])
    check_safe(stem)


def check_safe(stem: str) -> None:
    assert 0 < len(stem.encode("utf-8")) <= images.MAX_STEM_BYTES
    assert not set(stem) & set('<>:"/\\|?*\ufffd')
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in stem)
    assert stem == stem.strip(" ").rstrip(".").lstrip(".")
    assert stem.split(".")[0].upper() not in images._WINDOWS_DEVICES


def test_dataset_stems__a_file_named_like_a_digest_cannot_take_the_place() -> None:
    ids = ["a.jpg", "a.png"]
    for digits in (8, 16, 32, 64):  # an adversary who knows the scheme
        ids += [f"a-{hashlib.sha256(b'a.jpg').hexdigest()[:digits]}.jpg"]
    stems = dataset_stems(ids)
    assert len({stem.casefold() for stem in stems.values()}) == len(ids)
    for stem in stems.values():
        check_safe(stem)


_parts = st.one_of(
    st.sampled_from(
        ["a", "A", "con", "cam1", "__", ".", "..", " ", "é", "e\u0301", "ß", "ss", "\ufffd000a", "x" * 120, "-", "1"]
    ),
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6),
)
_names = st.lists(_parts, min_size=1, max_size=3).map("".join)
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_ids = st.lists(st.tuples(_paths, st.sampled_from([".jpg", ".PNG"])).map("".join), unique=True, max_size=12)


def file_key(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


@settings(deadline=None)  # the machine may be busy
@given(_ids, st.randoms())
def test_dataset_stems__unique_safe_and_independent_of_order(ids: list[str], random: object) -> None:
    stems = dataset_stems(ids)
    assert set(stems) == set(ids)
    assert len({file_key(stem) for stem in stems.values()}) == len(ids)
    for stem in stems.values():
        check_safe(stem)
    shuffled = list(ids)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dataset_stems(shuffled) == stems
    alone = {image_id: dataset_stems([image_id])[image_id] for image_id in ids}
    keys = [file_key(stem) for stem in alone.values()]
    for image_id, key in zip(alone, keys, strict=True):
        if keys.count(key) == 1:  # the other images change a stem only in a clash
            assert stems[image_id] == alone[image_id]
