"""Any image of a run by its number, for those who jump about in it: what `Store.sightings` is for those who go through it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.store.parts import Part, PartName, read_columns
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.types import Sighting, Status

PARTS_IN_MEMORY = 8  # of 512 images each


class Lookup:
    """The images that were seen, in the order of ids; `digests` is that of each. Safe to use from several threads.

    `images_root` says where the images folder is now. Where each image lies is read once, what was seen in it when asked for.
    """

    def __init__(self, store: Store, images_root: Path) -> None:
        self._store, self._images_root, self._prompts = store, images_root, len(store.prompts)

        def read(part: PartName) -> Iterator[tuple[str, str, PartName, int]]:
            columns = read_columns(store.run / "candidates" / str(part), ("image_id", "digest", "status"))
            for row, (image_id, digest, status) in enumerate(columns):
                if status == Status.SEEN.value:
                    yield image_id, digest, part, row

        self.digests: list[str] = []
        self._names: list[PartName] = []
        places, rows, numbers = [], [], dict[PartName, int]()
        for _, digest, part, row in store.current(read, lambda found: found[:2]):
            self.digests.append(digest)
            places.append(numbers.setdefault(part, len(numbers)))
            rows.append(row)
        self._names = list(numbers)
        self._places, self._rows = np.array(places, np.int32), np.array(rows, np.int32)
        self._part = lru_cache(PARTS_IN_MEMORY)(self._read)

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, number: int) -> Sighting:
        return self._part(int(self._places[number]))[int(self._rows[number])]

    def _read(self, place: int) -> Part:
        return Part(self._store.run / "candidates" / str(self._names[place]), self._prompts, self._images_root)
