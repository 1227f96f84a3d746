from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from autodistill_grounded_sam import weights
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.weights import find_weights, known_models, prefetch

HUB_ID = "IDEA-Research/grounding-dino-tiny"
DETECTOR_FILES = {"config.json": "{}", "model.safetensors": "numbers", "vocab.txt": "a", "preprocessor_config.json": "{}"}


def fill(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached_snapshot(cache: Path, name: str, files: dict[str, str]) -> Path:
    """What the hub's own client leaves behind: a ref, and a snapshot whose large files link to blobs named by their sha256."""
    repo, commit = cache / f"models--{name.replace('/', '--')}", "c" * 40
    fill(repo / "refs", {"main": commit})
    snapshot = fill(repo / "snapshots" / commit, {})
    for file, text in files.items():
        blob = hashlib.sha256(text.encode()).hexdigest() if file.endswith(".safetensors") else f"etag-{file}"
        fill(repo / "blobs", {blob: text})
        (snapshot / file).symlink_to(repo / "blobs" / blob)
    return snapshot


def test_find_weights__local_folder(tmp_path: Path) -> None:
    found = find_weights(str(fill(tmp_path / "m", DETECTOR_FILES)), "detector")
    assert (found.kind, found.path) == ("transformers", tmp_path / "m")
    assert found.sha256 == hashlib.sha256(b"numbers").hexdigest()


def test_find_weights__file_inside_a_folder_means_the_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "m", DETECTOR_FILES)
    assert find_weights(str(folder / "model.safetensors"), "detector").path == folder


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_find_weights__official_file(tmp_path: Path, suffix: str) -> None:
    path = fill(tmp_path, {f"swint{suffix}": "numbers"}) / f"swint{suffix}"
    found = find_weights(str(path), "detector")
    assert (found.kind, found.path, found.files) == ("official", path, (path,))


def test_sha256__several_files_depend_on_each_and_on_names(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    shards = {"model-1.safetensors": "1", "model-2.safetensors": "2", "model.safetensors.index.json": json.dumps(index)}
    files = {**{k: v for k, v in DETECTOR_FILES.items() if k != "model.safetensors"}, **shards}
    first = find_weights(str(fill(tmp_path / "first", files)), "detector").sha256
    swapped = {**files, "model-1.safetensors": "2", "model-2.safetensors": "1"}
    assert first != find_weights(str(fill(tmp_path / "second", swapped)), "detector").sha256
    (tmp_path / "first" / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"not a whole detector: model-2\.safetensors missing"):
        find_weights(str(tmp_path / "first"), "detector")


@pytest.mark.parametrize(
    "changed", ["config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
                "vocab.txt", "vocab.json", "merges.txt", "generation_config.json", "added_tokens.json", "special_tokens_map.json",
                "model.safetensors"],
)  # fmt: skip
def test_identity__is_of_every_file_that_changes_results(tmp_path: Path, changed: str) -> None:
    first = find_weights(str(fill(tmp_path / "first", DETECTOR_FILES)), "detector")
    same = find_weights(str(fill(tmp_path / "same", {**DETECTOR_FILES, "README.txt": "words"})), "detector")
    other = find_weights(str(fill(tmp_path / "other", {**DETECTOR_FILES, changed: "other"})), "detector")
    assert first.identity == same.identity != other.identity
    assert (first.sha256 == other.sha256) == (changed != "model.safetensors")


def test_identity__lines_of_digest_and_name(tmp_path: Path) -> None:
    found = find_weights(str(fill(tmp_path / "m", DETECTOR_FILES)), "detector")
    lines = "".join(f"{hashlib.sha256(DETECTOR_FILES[name].encode()).hexdigest()}  {name}\n" for name in sorted(DETECTOR_FILES))
    assert found.identity == hashlib.sha256(lines.encode()).hexdigest()


def test_identity__official_file_is_its_sha256(tmp_path: Path) -> None:
    fill(tmp_path, {"swint.pth": "numbers", "config.json": "{}"})
    found = find_weights(str(tmp_path / "swint.pth"), "detector")
    assert found.identity == found.sha256 == hashlib.sha256(b"numbers").hexdigest()


def test_sha256__a_tokenizer_has_one_though_it_has_no_weights(tmp_path: Path) -> None:
    found = find_weights(str(fill(tmp_path / "m", {"vocab.txt": "a"})), "tokenizer")
    assert found.sha256 == found.identity != find_weights(str(fill(tmp_path / "n", {"vocab.txt": "b"})), "tokenizer").sha256


def test_find_weights__incomplete_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "m", {"config.json": "{}", "pytorch_model.bin": "code"})
    expected = r"\*\.safetensors, tokenizer\.json or vocab\.txt or vocab\.json, .* missing; its \.bin file is a pickle, which"
    with pytest.raises(WeightsError, match=expected):
        find_weights(str(folder), "detector")


def test_find_weights__missing_path_suggests_the_nearest(tmp_path: Path) -> None:
    fill(tmp_path, {"groundingdino_swint_ogc.pth": ""})
    with pytest.raises(WeightsError, match=r"no weights at .*did you mean .*groundingdino_swint_ogc\.pth\?"):
        find_weights(str(tmp_path / "groundingdino_swint.pth"), "detector")
    with pytest.raises(WeightsError, match=r"there is no folder .*nowhere"):
        find_weights(str(tmp_path / "nowhere" / "x.pth"), "detector")


def test_find_weights__file_of_another_kind(tmp_path: Path) -> None:
    path = fill(tmp_path, {"model.onnx": ""}) / "model.onnx"
    with pytest.raises(WeightsError, match=r"model\.onnx is not a weights file: expected a transformers folder or .* \.pth"):
        find_weights(str(path), "segmenter")


def test_find_weights__unknown_name_suggests(hub_cache: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"unknown detector 'grounding-dino-tyni'.*did you mean 'IDEA-Research/grounding-dino-tiny'"
    ):
        find_weights("grounding-dino-tyni", "detector")
    with pytest.raises(WeightsError, match=r"known are: mini, facebook/sam-vit-base"):
        find_weights("zzz", "segmenter")


def test_find_weights__a_segmenter_is_no_detector(hub_cache: Path) -> None:
    with pytest.raises(WeightsError, match="facebook/sam-vit-huge is a segmenter, not a detector"):
        find_weights("facebook/sam-vit-huge", "detector")


@pytest.mark.parametrize("offline", [True, False])
def test_find_weights__hub_out_of_reach(hub_cache: Path, offline: bool) -> None:
    expected = (
        rf"the detector '{HUB_ID}' is not on this machine .*cannot be downloaded: .*"
        rf"`grounded-sam prefetch {HUB_ID}` brings it; detector=\"mini\" runs now"
    )
    with pytest.raises(WeightsError, match=expected):
        find_weights(HUB_ID, "detector", offline=offline)


def test_find_weights__cached_snapshot_needs_no_network(hub_cache: Path) -> None:
    snapshot = cached_snapshot(hub_cache, HUB_ID, DETECTOR_FILES)
    assert find_weights(HUB_ID, "detector", offline=True).path == snapshot


def test_find_weights__partial_snapshot_says_what_is_missing(hub_cache: Path) -> None:
    cached_snapshot(hub_cache, HUB_ID, {"config.json": "{}", "vocab.txt": "a"})
    with pytest.raises(WeightsError, match=r"\(\*\.safetensors, preprocessor_config\.json or processor_config\.json missing in"):
        find_weights(HUB_ID, "detector", offline=True)


def test_find_weights__downloads_only_safe_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake_download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], local_files_only: bool) -> str:
        calls.append((name, local_files_only))
        assert not any(pattern.endswith((".bin", "*")) for pattern in allow_patterns)
        if local_files_only:
            raise FileNotFoundError("not cached")
        return str(fill(tmp_path / "snapshot", DETECTOR_FILES))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_download)
    assert find_weights("someone/some-dino", "detector").path == tmp_path / "snapshot"
    assert calls == [("someone/some-dino", True), ("someone/some-dino", False)]


def test_prefetch__a_tokenizer_brings_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake_download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], local_files_only: bool) -> str:
        asked.append(allow_patterns)
        if local_files_only:
            raise FileNotFoundError("not cached")
        return str(fill(tmp_path / "snapshot", {**DETECTOR_FILES, "tokenizer.json": "{}"}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_download)
    prefetch(["bert-base-uncased"])
    assert asked == [["*.json", "*.txt", "*.jinja"]] * 2
    asked.clear()
    prefetch([HUB_ID])
    assert asked == [["*.safetensors", "*.json", "*.txt", "*.jinja"]] * 2


def test_find_weights__mini_that_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_MINI", tmp_path)
    with pytest.raises(
        WeightsError, match=r"config\.json, .* missing; the built-in segmenter 'mini' is not in this installation"
    ):
        find_weights("mini", "segmenter")
    fill(tmp_path / "detector", DETECTOR_FILES)
    assert find_weights("mini", "detector").path == tmp_path / "detector"


def test_prefetch__checks_against_the_digest_of_the_hub(hub_cache: Path) -> None:
    snapshot = cached_snapshot(hub_cache, HUB_ID, DETECTOR_FILES)
    assert [found.name for found in prefetch([HUB_ID])] == [HUB_ID]
    (snapshot / "model.safetensors").resolve().write_text("other numbers")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged: its sha256 is .*the hub says .*run prefetch again"):
        prefetch([HUB_ID])


def test_prefetch__mini_is_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_MINI", tmp_path)
    fill(tmp_path / "detector", DETECTOR_FILES)
    fill(tmp_path / "segmenter", DETECTOR_FILES)
    assert [found.path.name for found in prefetch(["mini"])] == ["detector", "segmenter"]


def test_known_models__names_are_unique_for_a_role() -> None:
    keys = [(model.role, model.name) for model in known_models()]
    assert len(set(keys)) == len(keys)
    assert {"mini", HUB_ID, "facebook/sam-vit-huge", "bert-base-uncased"} <= {model.name for model in known_models()}


def test_import__loads_no_torch_and_no_hub_client() -> None:
    code = "import sys, autodistill_grounded_sam.weights; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    root = Path(weights.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
