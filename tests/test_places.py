"""Images by URL, or in Parquet, give the dataset that the same files on a disk give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, NoImagesError
from autodistill_grounded_sam.images import scan
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.pipeline import export_run, label
from autodistill_grounded_sam.places import place
from autodistill_grounded_sam.testing import paint_folder
from tests.peers import peer
from tests.run_kit import FAKE, ONTOLOGY, files

CONFIG = LabelConfig(see=SeeConfig(**FAKE), run=RunConfig(batch_size=2))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    paint_folder(tmp_path / "images", 6, settings=PainterSettings(width=96, height=72))
    paint_folder(tmp_path / "images" / "more", 3, seed=50, settings=PainterSettings(width=96, height=72))
    (tmp_path / "images" / "more" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "images" / ".hidden").mkdir()
    (tmp_path / "images" / ".hidden" / "a.png").write_bytes(b"hidden")
    return tmp_path / "images"


@pytest.fixture
def bucket() -> Iterator[str]:
    """An S3 server on this machine, spoken to as to the real one."""
    server_module = peer("moto.server")
    peer("s3fs")
    import s3fs

    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
            patch.setenv(key, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/some/images"
    server.stop()


def put(folder: Path, url: str) -> None:
    target: Any = place(url)
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def check_same(images: Path, url: str, tmp_path: Path) -> None:
    put(images, url)
    label(images, ONTOLOGY, tmp_path / "local", CONFIG)
    summary = label(url, ONTOLOGY, tmp_path / "remote", CONFIG)
    assert summary.looked_at == 9 and [line.id for line in summary.failed] == ["more/broken.jpg"]
    assert files(tmp_path / "remote") == files(tmp_path / "local")
    assert label(url, ONTOLOGY, tmp_path / "remote", CONFIG).looked_at == 0
    assert export_run(tmp_path / "remote", "coco", tmp_path / "coco").labels == summary.labels


def test_images_in_memory(images: Path, tmp_path: Path) -> None:
    check_same(images, "memory://photos/today", tmp_path)


def test_images_in_a_bucket(images: Path, tmp_path: Path, bucket: str) -> None:
    check_same(images, bucket, tmp_path)


def as_parquet(images: Path, target: Path, *, struct: bool) -> None:
    """The images as rows, three in a row group."""
    paths = sorted(path for path in images.rglob("*") if path.is_file() and ".hidden" not in path.parts)
    names = [path.relative_to(images).as_posix() for path in paths]
    data = [path.read_bytes() for path in paths]
    columns: dict[str, Any] = {"label": list(range(len(paths)))}
    if struct:
        columns["image"] = [{"bytes": one, "path": name} for one, name in zip(data, names, strict=True)]
    else:
        columns |= {"photo": data, "file_name": names}
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), target, row_group_size=3)


@pytest.mark.parametrize("struct", [True, False])
def test_images_in_parquet(images: Path, tmp_path: Path, struct: bool) -> None:
    as_parquet(images, tmp_path / "photos.parquet", struct=struct)
    label(images, ONTOLOGY, tmp_path / "local", CONFIG)
    summary = label(tmp_path / "photos.parquet", ONTOLOGY, tmp_path / "rows", CONFIG)
    assert summary.looked_at == 9 and [line.id for line in summary.failed] == ["more/broken.jpg"]
    assert files(tmp_path / "rows") == files(tmp_path / "local")
    assert label(tmp_path / "photos.parquet", ONTOLOGY, tmp_path / "rows", CONFIG).looked_at == 0
    assert export_run(tmp_path / "rows", "coco", tmp_path / "coco").labels == summary.labels


def test_several_parquet_files(images: Path, tmp_path: Path) -> None:
    as_parquet(images, tmp_path / "data" / "a.parquet", struct=True)
    as_parquet(images / "more", tmp_path / "data" / "b.parquet", struct=True)
    found = scan(tmp_path / "data" / "*.parquet")
    assert [image.id for image in found.images][:2] == ["a/more/scene_0000.png", "a/more/scene_0001.png"]
    assert len(found.images) == 12 and len(found.failed) == 2


def test_rows_without_a_name_have_a_number(images: Path, tmp_path: Path) -> None:
    pixels = (images / "scene_0000.png").read_bytes()
    pq.write_table(pa.table({"image": [pixels, b"", pixels]}), tmp_path / "bare.parquet")
    found = scan(tmp_path / "bare.parquet")
    assert [image.id for image in found.images] == ["000000000", "000000002"]
    assert [(image.id, image.reason) for image in found.failed] == [("000000001", "empty_file")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "must hold images in a column `image`"),
        ({"first": [b"a"], "second": [b"b"]}, "or in one such column; it has 'first', 'second'"),
        ({"image": [b"a", b"b"], "id": ["same", "same"]}, "holds 1 ids more than once, 'same' for one"),
        ({"image": pa.array([], pa.binary())}, "holds no row"),
    ],
)
def test_parquet_without_images_is_told(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
    with pytest.raises(NoImagesError, match=message):
        scan(tmp_path / "odd.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(NoImagesError, match="cannot be read as Parquet"):
        scan(tmp_path / "broken.parquet")
    with pytest.raises(NoImagesError, match="no folder of images at"):
        scan(tmp_path / "missing.parquet")


def test_a_url_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match="no folder of images at memory://nothing/here"):
        scan("memory://nothing/here")
    with pytest.raises(ConfigError, match="say where the dataset goes on this machine"):
        label("memory://nothing/here", ONTOLOGY)


def test_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingExtraError, match=r"reading images from s3://bucket/images .*\[cloud\]"):
        place("s3://bucket/images")
    assert place("images") == Path("images")
