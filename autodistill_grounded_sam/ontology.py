"""What to look for: classes, the prompts that ask for them, and the negatives that compete with them.

An `Ontology` keeps the user's own words; what a model is asked are its sanitised `prompts`, and `notes` says every change.
Class ids are places in `classes`, prompt columns are places in `prompts`; the two are never the same thing.
Reading and writing of files is in `ontology_io`.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.example_images import Example
from autodistill_grounded_sam.types import Float32, Int32

# Grounding DINO ends a phrase at '.' and '?'; the others part words in every text these prompts come from.
_BREAKERS = str.maketrans(dict.fromkeys("._?;", " "))

# The settings of a class beside its prompts, with the largest value that each may have; the smallest is 0.
LIMITS: dict[str, float] = {
    "box_threshold": 1.0,
    "min_size_px": math.inf,
    "max_size_px": math.inf,
    "min_area_fraction": 1.0,
    "max_area_fraction": 1.0,
}


def sanitize(prompt: str) -> str:
    """The prompt as a model is asked: lower case, compatibility forms unfolded, '_', '.', '?' and ';' as spaces, one line.

    Raises `OntologyError` where no letter or digit is left. `sanitize(sanitize(x)) == sanitize(x)`.
    """
    spaced = unicodedata.normalize("NFKC", prompt).lower().translate(_BREAKERS)
    seen = "".join(c for c in spaced if c.isspace() or unicodedata.category(c)[0] != "C")  # invisible ones go, as in BERT
    asked = " ".join(unicodedata.normalize("NFKC", seen).split())
    if not any(c.isalnum() for c in asked):
        raise OntologyError(f"prompt {prompt!r} has no letter or digit to ask for")
    return asked


@dataclass(frozen=True)
class ClassSpec:
    """One class: its name in the dataset, the words and example images that ask for it, and its own limits (None: the run's
    default, or none).

    `min_size_px` and `max_size_px` bound the shorter side of the box in pixels of the upright image, `min_area_fraction` and
    `max_area_fraction` the box's area over the image's; all bounds include their value.
    """

    name: str
    prompts: tuple[str, ...]
    box_threshold: float | None = None
    min_size_px: float | None = None
    max_size_px: float | None = None
    min_area_fraction: float | None = None
    max_area_fraction: float | None = None
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", as_texts(self.prompts))
        object.__setattr__(self, "examples", tuple(self.examples))
        _refuse(class_problems(self.name, self.asked, self.limits))

    @property
    def asked(self) -> tuple[str, ...]:
        """Its words, and the prompts of its example images."""
        return (*self.prompts, *(example.prompt for example in self.examples))

    @property
    def limits(self) -> dict[str, float]:
        """The settings that are given, by name."""
        return {key: value for key in LIMITS if (value := getattr(self, key)) is not None}


@dataclass(frozen=True)
class Ontology:
    """Classes in the user's order (the class ids), `negatives` that are asked for and never labelled, and `exclusive` groups.

    An exclusive group names classes of which one object can be only one, so that a box of `car` and a box of `truck` on the
    same object are duplicates. Leave classes apart that lie within one another (a tie on a person).
    Raises `OntologyError`, a line a fault: a name or a prompt that stands for two things, an unknown name in a group.
    """

    classes: tuple[ClassSpec, ...]
    negatives: tuple[str, ...] = ()
    exclusive: tuple[tuple[str, ...], ...] = ()
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "negatives", as_texts(self.negatives))
        object.__setattr__(self, "exclusive", tuple(as_texts(group) for group in self.exclusive))
        _refuse(ontology_problems([(c.name, c.asked) for c in self.classes], self.negatives, self.exclusive))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def _asked(self) -> dict[str, int]:
        """Sanitised prompt -> class id, or -1 for a negative; in the order in which they are asked."""
        asked = {sanitize(prompt): class_id for class_id, c in enumerate(self.classes) for prompt in c.asked}
        return asked | {sanitize(prompt): -1 for prompt in self.negatives}

    @property
    def prompts(self) -> tuple[str, ...]:
        """What a model is asked, P unique prompts: those of the classes in their order, then the negatives.

        Of the whole ontology a store depends on these alone.
        """
        return tuple(self._asked)

    @property
    def examples(self) -> dict[str, Example]:
        """The example images by the prompts that stand for them; a subset of `prompts`."""
        return {example.prompt: example for c in self.classes for example in c.examples}

    def told(self, prompts: Sequence[str]) -> str:
        """Prompts as a person knows them, for a message: an example by its picture and box."""
        shown = {prompt: f"the example {one.image} (box {list(one.box)})" for prompt, one in self.examples.items()}
        return ", ".join(shown.get(prompt, repr(prompt)) for prompt in prompts)

    @cached_property
    def prompt_class(self) -> Int32:
        """The class id of each prompt, (P,) int32; -1 for a negative."""
        return _frozen(np.fromiter(self._asked.values(), np.int32, len(self._asked)))

    @cached_property
    def prompt_groups(self) -> tuple[tuple[str, ...], ...]:
        """Prompts that should share a caption, so that they compete: those of a class, and of classes of one exclusive group.

        Every prompt is in one group; a negative is a group of its own, since nobody said what it is confused with.
        """
        first = list(range(len(self.classes)))  # the lowest class id that each class hangs together with
        for group in self.exclusive:
            joined = {first[self.class_names.index(name)] for name in group}
            first = [min(joined) if own in joined else own for own in first]
        groups: dict[object, list[str]] = {}
        for prompt, class_id in self._asked.items():
            groups.setdefault(prompt if class_id < 0 else first[class_id], []).append(prompt)
        return tuple(tuple(group) for group in groups.values())

    @cached_property
    def exclusive_matrix(self) -> npt.NDArray[np.bool_]:
        """True where two classes cannot be one object, (C, C) bool, symmetric; True on the diagonal."""
        matrix = np.eye(len(self.classes), dtype=np.bool_)
        for group in self.exclusive:
            ids = [self.class_names.index(name) for name in group]
            matrix[np.ix_(ids, ids)] = True
        return _frozen(matrix)

    def thresholds(self, default: float) -> Float32:
        """The box threshold of each class, (C,) float32: its own, or the default."""
        return np.array([default if c.box_threshold is None else c.box_threshold for c in self.classes], np.float32)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Every change that sanitising made to the user's words, one sentence each."""
        notes: dict[str, None] = {}
        met: set[str] = set()
        for prompt in [p for c in self.classes for p in c.prompts] + list(self.negatives):
            asked = sanitize(prompt)
            if asked != prompt:
                notes[f"{prompt!r} is asked as {asked!r}"] = None
            if asked in met:
                notes[f"{asked!r} is given more than once and asked once"] = None
            met.add(asked)
        return tuple(notes)

    @staticmethod
    def load(spec: Any) -> Ontology:
        """An ontology from whatever a user has: an `Ontology`, a shipped name, a path, a mapping, JSON text, a `CaptionOntology`.

        A text that starts with '{' is JSON, one with a suffix or a slash is a path, any other is a shipped name. Files and
        mappings are told apart by what they hold: our schema, {prompt: class}, COCO categories, or a YOLO data.yaml.
        """
        from autodistill_grounded_sam import ontology_io

        return ontology_io.load(spec)

    @staticmethod
    def from_dict(prompt_to_class: Mapping[str, str]) -> Ontology:
        """{prompt: class}; class ids in order of first appearance, several prompts may name one class."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_pairs(prompt_to_class.items(), "the {prompt: class} mapping")

    @staticmethod
    def from_caption_ontology(caption_ontology: Any) -> Ontology:
        """autodistill's `CaptionOntology` and its like; two prompts of one class give one class."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_pairs(ontology_io.caption_pairs(caption_ontology), type(caption_ontology).__name__)

    @staticmethod
    def from_coco(source: str | Path | Mapping[str, Any]) -> Ontology:
        """The categories of a COCO json (path or content), in the order of the file; names are the prompts."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_coco(*ontology_io.content_of(source))

    @staticmethod
    def from_yolo(source: str | Path | Mapping[str, Any]) -> Ontology:
        """The `names` of a YOLO data.yaml (path or content), a list or {id: name}; names are the prompts."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_yolo(*ontology_io.content_of(source))

    @staticmethod
    def from_document(document: Mapping[str, Any], source: str = "the ontology") -> Ontology:
        """The plain data of our YAML schema (version 1); `source` names it in errors. The inverse of `document`."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_document(document, source)

    @staticmethod
    def from_yaml(path: str | Path) -> Ontology:
        """A file of our YAML schema. Raises `OntologyError` with one line for each fault in it."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_document(*ontology_io.content_of(path))

    @staticmethod
    def from_yaml_text(text: str, source: str = "the YAML text") -> Ontology:
        """As `from_yaml`, from the text itself."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.from_document(ontology_io.parse_yaml(text, source), source)

    def document(self) -> dict[str, Any]:
        """This ontology as plain data of our YAML schema, fit for JSON; `from_document` gives it back."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.to_document(self)

    def to_yaml_text(self) -> str:
        """This ontology as YAML; `from_yaml_text` gives it back."""
        from autodistill_grounded_sam import ontology_io

        return ontology_io.to_yaml_text(self)

    def to_yaml(self, path: str | Path) -> Path:
        """Write the YAML file (whole or not at all) and return its path."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.write_text(self.to_yaml_text(), encoding="utf-8", newline="\n")
        return partial.replace(target)


def as_texts(value: object) -> tuple[Any, ...]:
    """One text or a list of them as a tuple; anything else as the one thing it is, for the checks to name."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names (one that holds the name, else difflib's), or nothing."""
    wanted = name.lower()
    near = [k for k in known if len(wanted) > 2 and wanted in k.lower()] or get_close_matches(wanted, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def class_problems(name: object, prompts: Sequence[object], limits: Mapping[str, object]) -> list[str]:
    """What is wrong with the parts of one class, a line each; nothing if they make a `ClassSpec`."""
    what = f"class {name!r}"
    problems = []
    if not isinstance(name, str):
        problems.append(f"{what}: a class name must be text{_QUOTES}")
    elif not name.strip() or name != name.strip() or not name.isprintable():
        problems.append(f"{what}: a class name must be printable text on one line, without spaces around it")
    if not prompts:
        problems.append(f"{what} has no prompts")
    problems += [f"{what}: {problem}" for prompt in prompts if (problem := _prompt_problem(prompt))]
    good: dict[str, float] = {}
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LIMITS[key] or value == math.inf:
            span = "in 0..1" if LIMITS[key] == 1 else "of 0 or more"
            problems.append(f"{what}: {key} must be a number {span}, got {value!r}")
        else:
            good[key] = value
    for low, high in (("min_size_px", "max_size_px"), ("min_area_fraction", "max_area_fraction")):
        if good.get(low, 0) > good.get(high, math.inf):
            problems.append(f"{what}: {low} {good[low]} is above {high} {good[high]}")
    return problems


def ontology_problems(
    classes: Sequence[tuple[object, Sequence[object]]], negatives: Sequence[object], exclusive: Sequence[Sequence[object]]
) -> list[str]:
    """What is wrong between classes (name, prompts), negatives and exclusive groups, a line each. Each class is checked apart."""
    names = [str(name) for name, _ in classes]
    problems = [] if classes else ["an ontology needs at least one class"]
    problems += [f"class {name!r} is given twice" for name, count in Counter(names).items() if count > 1]
    problems += [f"negatives: {problem}" for prompt in negatives if (problem := _prompt_problem(prompt))]
    owners: dict[str, str] = {}
    asked = [(f"class {name!r}", p) for name, (_, prompts) in zip(names, classes, strict=True) for p in prompts]
    for owner, prompt in asked + [("the negatives", p) for p in negatives]:
        if isinstance(prompt, str) and not _prompt_problem(prompt):
            other = owners.setdefault(sanitize(prompt), owner)
            if other != owner:
                problems.append(f"prompt {sanitize(prompt)!r} is asked for both {other} and {owner}; it can stand for one only")
    for group in exclusive:
        for name in group:
            if name not in names:
                problems.append(f"exclusive: {name!r} is no class of this ontology{did_you_mean(str(name), names)}")
    return problems


_QUOTES = "; YAML reads an unquoted yes, no, on, off, null or number as a value, so put it in quotes"


def _prompt_problem(prompt: object) -> str:
    if not isinstance(prompt, str):
        return f"prompt {prompt!r} is not text{_QUOTES}"
    try:
        sanitize(prompt)
    except OntologyError as error:
        return str(error)
    return ""


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise OntologyError("\n".join(problems))


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array
