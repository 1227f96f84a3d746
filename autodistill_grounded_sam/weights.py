"""Where weights come from: inside the package (`mini`), a local path, or the hub. Nothing here loads them.

Only safetensors are taken from the hub; official `.pth` files are read later with `weights_only=True`. A pickle never runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal

from autodistill_grounded_sam.errors import WeightsError

logger = logging.getLogger(__name__)

Role = Literal["detector", "segmenter", "tagger", "student", "tokenizer", "model"]  # "model": whatever prefetch is asked for
Kind = Literal["transformers", "official"]

OFFICIAL_SUFFIXES = (".pth", ".pt", ".safetensors")
_HUB_TEXTS = [
    "*.json",
    "*.txt",
    "*.jinja",
]  # all that a tokenizer is made of; its repository may hold a whole language model besides
_HUB_FILES = ["*.safetensors", *_HUB_TEXTS]
# What changes the numbers of a model besides its weights.
_SETTINGS = (
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_MINI = Path(__file__).parent / "mini"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json")
# What a folder must hold for its role: one file of each line.
_NEEDED: dict[Role, tuple[tuple[str, ...], ...]] = {
    "detector": (("config.json",), ("*.safetensors",), _TOKENIZER, _PROCESSOR),
    "segmenter": (("config.json",), ("*.safetensors",), _PROCESSOR),
    "tagger": (("config.json",), ("*.safetensors",), _TOKENIZER, _PROCESSOR),
    "student": (("config.json",), ("*.safetensors",)),
    "tokenizer": (_TOKENIZER,),
    "model": (("config.json",), ("*.safetensors",)),
}


@dataclass(frozen=True)
class KnownModel:
    """One line of the table of models that are known to work: what it is, under which licence, and how much is downloaded."""

    name: str
    role: Role
    licence: str
    size: str
    what: str


_KNOWN = (
    KnownModel("mini", "detector", "Apache-2.0", "in the package", "tiny Grounding DINO; knows painted shapes and colours only"),
    KnownModel("IDEA-Research/grounding-dino-tiny", "detector", "Apache-2.0", "0.7 GB", "Grounding DINO Swin-T; the default"),
    KnownModel("IDEA-Research/grounding-dino-base", "detector", "Apache-2.0", "0.9 GB", "Grounding DINO Swin-B; has seen COCO"),
    KnownModel("iSEE-Laboratory/llmdet_tiny", "detector", "Apache-2.0", "0.7 GB", "LLMDet Swin-T (MM Grounding DINO)"),
    KnownModel("iSEE-Laboratory/llmdet_base", "detector", "Apache-2.0", "0.9 GB", "LLMDet Swin-B (MM Grounding DINO)"),
    KnownModel("iSEE-Laboratory/llmdet_large", "detector", "Apache-2.0", "1.3 GB", "LLMDet Swin-L (MM Grounding DINO)"),
    KnownModel(
        "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det", "detector", "Apache-2.0", "0.7 GB",
        "MM Grounding DINO Swin-T",
    ),
    KnownModel(
        "openmmlab-community/mm_grounding_dino_base_o365v1_goldg_v3det", "detector", "Apache-2.0", "0.9 GB",
        "MM Grounding DINO Swin-B",
    ),
    KnownModel(
        "openmmlab-community/mm_grounding_dino_large_o365v2_oiv6_goldg", "detector", "Apache-2.0", "1.3 GB",
        "MM Grounding DINO Swin-L",
    ),
    KnownModel("google/owlv2-base-patch16-ensemble", "detector", "Apache-2.0", "0.6 GB", "OWLv2 ViT-B"),
    KnownModel("google/owlv2-large-patch14-ensemble", "detector", "Apache-2.0", "1.8 GB", "OWLv2 ViT-L"),
    KnownModel("google/owlvit-base-patch32", "detector", "Apache-2.0", "0.6 GB", "OWL-ViT ViT-B/32: quick, rough boxes"),
    KnownModel("omlab/omdet-turbo-swin-tiny-hf", "detector", "Apache-2.0", "0.5 GB", "OmDet-Turbo Swin-T; needs extra [omdet]"),
    KnownModel("florence-community/Florence-2-base-ft", "detector", "MIT", "0.5 to 1.1 GB", "Florence-2; gives no scores"),
    KnownModel("florence-community/Florence-2-large-ft", "detector", "MIT", "1.6 to 3.3 GB", "Florence-2; gives no scores"),
    KnownModel("facebook/sam3", "detector", "SAM License", "3.4 GB", "SAM 3; its authors ask to accept their terms"),
    KnownModel("mini", "segmenter", "Apache-2.0", "in the package", "tiny SAM; trained on painted shapes only"),
    KnownModel("facebook/sam-vit-base", "segmenter", "Apache-2.0", "0.4 GB", "SAM ViT-B"),
    KnownModel("facebook/sam-vit-large", "segmenter", "Apache-2.0", "1.2 GB", "SAM ViT-L"),
    KnownModel("facebook/sam-vit-huge", "segmenter", "Apache-2.0", "2.6 GB", "SAM ViT-H; the default"),
    KnownModel("syscv-community/sam-hq-vit-base", "segmenter", "Apache-2.0", "0.4 GB", "SAM-HQ ViT-B"),
    KnownModel("syscv-community/sam-hq-vit-large", "segmenter", "Apache-2.0", "1.3 GB", "SAM-HQ ViT-L"),
    KnownModel("syscv-community/sam-hq-vit-huge", "segmenter", "Apache-2.0", "2.6 GB", "SAM-HQ ViT-H; finer edges than SAM"),
    KnownModel("facebook/sam2.1-hiera-tiny", "segmenter", "Apache-2.0", "0.2 GB", "SAM 2.1 tiny"),
    KnownModel("facebook/sam2.1-hiera-small", "segmenter", "Apache-2.0", "0.2 GB", "SAM 2.1 small"),
    KnownModel("facebook/sam2.1-hiera-base-plus", "segmenter", "Apache-2.0", "0.3 GB", "SAM 2.1 base-plus"),
    KnownModel("facebook/sam2.1-hiera-large", "segmenter", "Apache-2.0", "0.9 GB", "SAM 2.1 large; faster than SAM ViT-H"),
    KnownModel("yonigozlan/EdgeTAM-hf", "segmenter", "Apache-2.0", "0.1 GB", "EdgeTAM; small and quick, needs timm"),
    KnownModel("ram-plus", "tagger", "Apache-2.0", "some GB", "RAM++ Swin-L, the authors' file: 4,585 tags; the default tagger"),
    KnownModel("ram", "tagger", "Apache-2.0", "some GB", "RAM Swin-L, the authors' file: the same tags"),
    KnownModel("tag2text", "tagger", "Apache-2.0", "4.5 GB", "Tag2Text Swin-B, the authors' file: 3,429 tags"),
    KnownModel("Salesforce/blip-image-captioning-large", "tagger", "BSD-3-Clause", "1.9 GB", "BLIP: nouns of a caption"),
    KnownModel("florence-community/Florence-2-base-ft", "tagger", "MIT", "0.5 to 1.1 GB", "Florence-2: nouns of region captions"),
    KnownModel("bert-base-uncased", "tokenizer", "Apache-2.0", "1 MB", "the words of official Grounding DINO .pth files"),
)  # fmt: skip

# Official files that lie on the hub as they are: repository, its kind, and the file.
OFFICIAL_ON_HUB: Mapping[str, tuple[str, str, str]] = {
    "ram-plus": ("xinyu1205/recognize-anything-plus-model", "model", "ram_plus_swin_large_14m.pth"),
    "ram": ("xinyu1205/recognize-anything", "space", "ram_swin_large_14m.pth"),
    "tag2text": ("xinyu1205/recognize-anything", "space", "tag2text_swin_14m.pth"),
}


def known_models() -> tuple[KnownModel, ...]:
    """The models that are known to work, detectors first; any other of the same architectures may be named as well."""
    return _KNOWN


@dataclass(frozen=True)
class FoundWeights:
    """Weights that are on this machine: a transformers folder, or one official file of the original authors."""

    name: str
    kind: Kind
    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the numbers, sorted by name."""
        return (self.path,) if self.kind == "official" else tuple(sorted(self.path.glob("*.safetensors")))

    @cached_property
    def model_type(self) -> str:
        """The architecture that the folder's config.json names; "" where it names none."""
        try:
            settings = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.path / 'config.json'} cannot be read: {error}") from error
        return str(settings.get("model_type", "")) if isinstance(settings, dict) else ""

    @cached_property
    def sha256(self) -> str:
        """Of the weights file; of the lines `<sha256>  <name>` where there are several; the `identity` where there is none.

        Read once, on first use; for people to compare with what others publish.
        """
        if not self._digests:
            return self.identity
        return next(iter(self._digests.values())) if len(self._digests) == 1 else _sha256_of_lines(self._digests)

    @cached_property
    def identity(self) -> str:
        """Of all that changes results: the lines `<sha256>  <name>` of the weights, config, processor and tokenizer files.

        The `sha256` itself for an official file. Read once, on first use.
        """
        if self.kind == "official":
            return self.sha256
        settings = {name: _sha256(self.path / name) for name in _SETTINGS if (self.path / name).is_file()}
        return _sha256_of_lines({**self._digests, **settings})

    @cached_property
    def _digests(self) -> dict[str, str]:
        """The sha256 of each weights file, by its name."""
        return {path.name: _sha256(path) for path in self.files}


def find_weights(name: str, role: Role, *, offline: bool = False) -> FoundWeights:
    """Find the weights that `name` stands for: `mini`, a local path, or a hub id (downloaded unless `offline`).

    Raises WeightsError, saying what is missing and how to get it.
    """
    if name == "mini":
        return FoundWeights(name, "transformers", _checked_folder(_MINI / role, role, _not_installed(role)))
    path = Path(name).expanduser()
    if path.exists():
        return _local(name, path, role)
    own = [model.role for model in _KNOWN if model.name == name]
    if own and role not in own:
        raise WeightsError(f"{name} is a {own[0]}, not a {role}; {_suggestion(name, role)}")
    if name in OFFICIAL_ON_HUB:
        return FoundWeights(name, "official", _file_from_hub(name, offline))
    if own or (_HUB_ID.fullmatch(name) and not _looks_like_path(name)):
        return FoundWeights(name, "transformers", _from_hub(name, role, offline))
    if _looks_like_path(name):
        raise WeightsError(f"no weights at {path}: {_nearest_file(path)}; {_suggestion(name, role)}")
    raise WeightsError(f"unknown {role} {name!r}: not a built-in name, a local path or a hub id; {_suggestion(name, role)}")


def prefetch(names: Sequence[str]) -> list[FoundWeights]:
    """Bring every named model to this machine and check its files against the sha256 that the hub gave for them."""
    found = []
    for name in names:
        for role in _roles_of(name):
            weights = find_weights(name, role)
            _check_digests(weights)
            found.append(weights)
    return found


def _roles_of(name: str) -> tuple[Role, ...]:
    known: tuple[Role, ...] = tuple(model.role for model in _KNOWN if model.name == name)
    return known or ("model",)


def _local(name: str, path: Path, role: Role) -> FoundWeights:
    if path.is_dir():
        return FoundWeights(name, "transformers", _checked_folder(path, role, _suggestion(name, role)))
    if path.suffix == ".safetensors" and path.with_name("config.json").exists():
        return _local(name, path.parent, role)
    if path.suffix not in OFFICIAL_SUFFIXES:
        expected = ", ".join(OFFICIAL_SUFFIXES)
        raise WeightsError(f"{path} is not a weights file: expected a transformers folder or a file ending in {expected}")
    return FoundWeights(name, "official", path)


def _missing(folder: Path, role: Role) -> list[str]:
    missing = [" or ".join(choice) for choice in _NEEDED[role] if not any(any(folder.glob(pattern)) for pattern in choice)]
    for index in folder.glob("*.safetensors.index.json"):
        shards = sorted(set(re.findall(r'"([^"/]+\.safetensors)"', index.read_text())))
        missing += [shard for shard in shards if not (folder / shard).exists()]
    return missing


def _checked_folder(folder: Path, role: Role, cure: str) -> Path:
    missing = _missing(folder, role)
    if not missing:
        return folder
    pickles = "; its .bin file is a pickle, which could run code and is never read: save it again as safetensors"
    has_pickle = any(folder.glob("*.bin")) and "*.safetensors" in missing
    raise WeightsError(f"{folder} is not a whole {role}: {', '.join(missing)} missing{pickles if has_pickle else ''}; {cure}")


def _not_installed(role: Role) -> str:
    return f"the built-in {role} 'mini' is not in this installation: reinstall the package, or make it again with tools/mini"


def _from_hub(name: str, role: Role, offline: bool) -> Path:
    """The snapshot folder in the hub's own cache, looked for there first so that a second run needs no network."""
    missing = ["everything"]
    for local_files_only in (True, False):
        if offline and not local_files_only:
            break
        folder, reason = _snapshot(name, role, local_files_only)
        if folder is not None:
            missing = _missing(folder, role)
            if not missing:
                return folder
            reason = "it is on the hub in another form"
    reason = "offline" if offline else reason.rstrip(".")
    raise WeightsError(
        f"the {role} {name!r} is not on this machine ({', '.join(missing)} missing in {_hub_cache()}, and no local path of that "
        f"name) and cannot be downloaded: {reason}. Where there is a network, `grounded-sam prefetch {name}` brings it"
        + (f'; {role}="mini" runs now' if role in ("detector", "segmenter") else "")
    )


def _file_from_hub(name: str, offline: bool) -> Path:
    """The official file in the hub's own cache, brought there unless `offline`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    repository, kind, file = OFFICIAL_ON_HUB[name]
    reason = "offline"
    for local_files_only in (True, False):
        if offline and not local_files_only:
            break
        try:
            return Path(hf_hub_download(repository, file, repo_type=kind, local_files_only=local_files_only))
        except LocalEntryNotFoundError as error:
            reason = reason if offline else str(error).splitlines()[0]
        except (OSError, ValueError, HTTPError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"
    page = f"{repository} ({kind})"
    raise WeightsError(
        f"{file} of the hub's {page} is not on this machine and cannot be downloaded: {reason}. Where there is a network, "
        f"`grounded-sam prefetch {name}` brings it; or give the path of the file instead of {name!r}"
    )


def _snapshot(name: str, role: Role, local_files_only: bool) -> tuple[Path | None, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    if not local_files_only:
        logger.info("downloading %s from the hub", name)
    try:
        patterns = _HUB_TEXTS if role == "tokenizer" else _HUB_FILES
        # Only the top level: subfolders hold other formats (onnx, ...).
        folder = snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=local_files_only)
        return Path(folder), ""
    except GatedRepoError:
        return None, "its authors ask you to accept their terms on its page first, then to log in with `hf auth login`"
    except RepositoryNotFoundError:
        return None, f"the hub has no public model of that name; {_suggestion(name, None)}"
    except (OSError, ValueError, HTTPError) as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"


def _hub_cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _check_digests(weights: FoundWeights) -> None:
    """In the hub's cache a large file is a link to a blob that is named by the sha256 the hub gave for it."""
    for path in weights.files:
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and (got := _sha256(blob)) != blob.name:
            raise WeightsError(
                f"{path} is damaged: its sha256 is {got}, the hub says {blob.name}; delete {blob} and run prefetch again"
            )
        logger.info("%s: %s is whole", weights.name, path.name)


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.count("/") > 1
        or Path(name).suffix in (*OFFICIAL_SUFFIXES, ".bin")
    )


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {path.parent / near[0]}?" if near else f"the folder {path.parent} has nothing of a similar name"


def _suggestion(name: str, role: Role | None) -> str:
    names = [model.name for model in _KNOWN if role in (None, "model", model.role)]
    by_tail = {known.rpartition("/")[2].lower(): known for known in names}
    near = get_close_matches(name.rpartition("/")[2].lower(), list(by_tail), n=1, cutoff=0.5)
    return f"did you mean {by_tail[near[0]]!r}?" if near else f"known are: {', '.join(dict.fromkeys(names))}"


def _sha256_of_lines(digests: Mapping[str, str]) -> str:
    lines = (f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
