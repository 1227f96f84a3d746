"""What tests of the page share: a run of instant models with everything in it that a page can tell, and a reader of HTML."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder
from tests.run_kit import FAKE

EVIL = "<script>alert(1)</script>"
ONTOLOGY = {
    "version": 1,
    "classes": {
        EVIL: {"prompts": ["red circle"], "box_threshold": 0.4},
        "square & co": {"prompts": ["blue square"]},
        "never": {"prompts": ["green star"], "box_threshold": 1.0},
    },
    "negatives": ["shadow"],
}
VOID = {"meta", "input", "br", "link", "img"}
SETTINGS = PainterSettings(width=96, height=72)


def label_all_sorts(home: Path, images: int = 40) -> Path:
    """Painted scenes with a copy of one, a broken file and a file of an evil name, labelled; the dataset folder."""
    folder = home / "images"
    paint_folder(folder, images, settings=SETTINGS)
    shutil.copy(folder / "scene_0001.png", folder / "scene_0001_copy.png")
    (folder / "broken.png").write_bytes(b"no picture")
    evil = folder / f"{EVIL}.png"  # the slash in it makes a folder
    evil.parent.mkdir()
    shutil.copy(folder / "scene_0003.png", evil)
    config = LabelConfig(see=SeeConfig(**FAKE), run=RunConfig(batch_size=8, device="cpu", report=False))
    pipeline.label(folder, ONTOLOGY, home / "out", config)
    return home / "out"


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            yield from child

    def all(self, name: str, **attributes: str) -> list[Element]:
        """The elements of this name with these attributes (`class_` has to be among its classes), in the order of the page."""
        wanted = attributes.pop("class_", "")
        return [
            one
            for one in self
            if one.name == name
            and (not wanted or wanted in one.attributes.get("class", "").split())
            and all(one.attributes.get(key) == value for key, value in attributes.items())
        ]

    @property
    def words(self) -> str:
        return " ".join(" ".join(one.text for one in self).split())


class Page(HTMLParser):
    """The tree of a page; raises AssertionError for an end tag without its start."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        assert self._open == [self.root], f"not closed: {[one.name for one in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].name == tag, f"</{tag}> inside <{self._open[-1].name}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].text += data
