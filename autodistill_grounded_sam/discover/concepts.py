"""Tags of images merged into concepts: one for all spellings, numbers and synonyms of a word, with the images that carry it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import sanitize
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.word_forms import bare, singular

# Words for the very same objects; what is only near in meaning is left to the detector, which says what shares its boxes.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("airplane", "aeroplane", "plane"), ("automobile", "car"), ("bicycle", "bike", "pushbike"), ("bunny", "rabbit"),
    ("cab", "taxi", "taxicab"), ("carpet", "rug"), ("cell phone", "mobile phone", "mobile", "cellphone", "smartphone"),
    ("child", "kid"), ("coffee cup", "cup of coffee"), ("computer keyboard", "keyboard"), ("computer monitor", "monitor"),
    ("couch", "sofa"), ("crosswalk", "zebra crossing", "pedestrian crossing"), ("donut", "doughnut"), ("faucet", "tap"),
    ("fire hydrant", "hydrant"), ("french fry", "fry", "chip"), ("garbage truck", "dustcart"),
    ("glasses", "eyeglasses", "spectacles"), ("guy", "man"), ("hamburger", "burger"), ("hard hat", "safety helmet"),
    ("human", "person"), ("lady", "woman"), ("lorry", "truck"), ("microwave", "microwave oven"), ("motorbike", "motorcycle"),
    ("package", "parcel"), ("pavement", "sidewalk"), ("photo", "photograph"), ("policeman", "police officer"),
    ("refrigerator", "fridge"), ("soccer ball", "football ball"), ("stuffed animal", "stuffed toy", "plush toy", "plushie"),
    ("television", "tv", "television set", "tv set"), ("traffic light", "traffic signal", "stoplight"),
    ("trash can", "garbage can", "trash bin", "dustbin", "rubbish bin", "waste bin", "garbage bin"),
)  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """One thing that was tagged: its usual name, all `words` by which it was tagged (the usual one first), in which images."""

    name: str
    words: tuple[str, ...]
    images: frozenset[int]

    def with_other(self, other: Concept) -> Concept:
        """This one, with the words and images of another that turned out to be the same thing."""
        return Concept(self.name, tuple(dict.fromkeys((*self.words, *other.words))), self.images | other.images)


def merge_tags(tags: Sequence[Iterable[Tag]]) -> list[Concept]:
    """The concepts in the tags of each image, those of most images first; in one number, case and spelling, without articles."""
    images: defaultdict[str, set[int]] = defaultdict(set)
    forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for place, of_image in enumerate(tags):
        for form in {form for tag in of_image if (form := _form(tag.name))}:
            key = _SAME_AS.get(_joined(form), _joined(form))
            images[key].add(place)
            forms[key][form] += 1
    concepts = []
    for key, counted in forms.items():
        words = sorted(counted, key=lambda word: (-counted[word], word))
        concepts.append(Concept(words[0], tuple(words), frozenset(images[key])))
    return sorted(concepts, key=lambda concept: (-len(concept.images), concept.name))


def _form(name: str) -> str:
    """The tag as it is asked, bare and in the singular; "" where nothing is left."""
    try:
        return singular(bare(sanitize(name)))
    except OntologyError:
        return ""


def _joined(form: str) -> str:
    """`t-shirt`, `t shirt` and `tshirt` are one."""
    return form.replace("-", "").replace(" ", "")


_SAME_AS = {_joined(word): _joined(group[0]) for group in SYNONYMS for word in group}
