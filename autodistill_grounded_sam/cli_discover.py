"""The command `discover`, and `label --auto`: flags to one call. `cli` registers them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from autodistill_grounded_sam import cli_output
from autodistill_grounded_sam.errors import ConfigError

OntologyFlag = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ontology", help='A file, a shipped name (see `ontologies`), or \'{"prompt": "class"}\'.'),
]
AutoFlag = Annotated[bool, typer.Option("--auto", help="Instead of --ontology: find out what is there, as `discover` does.")]
TaggerFlag = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--tagger", help="ram-plus, ram, tag2text, mini, a hub id, a path, or pkg.module:Class (ram-plus)."),
]
WordsFlag = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--words", help="Makes a tagger of any detector: a .txt of a word a line, or what --ontology takes."),
]
SampleFlag = Annotated[Optional[int], typer.Option("--sample", help="Images looked at, evenly over the folder (200).")]  # noqa: UP045
MinImagesFlag = Annotated[Optional[int], typer.Option("--min-images", help="Of them, that a class must be in (3).")]  # noqa: UP045
MaxClassesFlag = Annotated[Optional[int], typer.Option("--max-classes", help="The most there are (30).")]  # noqa: UP045


def discover(
    images: Annotated[str, typer.Argument(help="The folder of images, searched with its sub-folders, or a URL (s3://...).")],
    out: Annotated[Path, typer.Option("--out", help="The ontology to write; a picture of each class goes beside it.")],
    tagger: TaggerFlag = None,
    words: WordsFlag = None,
    sample: SampleFlag = None,
    min_images: MinImagesFlag = None,
    max_classes: MaxClassesFlag = None,
    detector: Annotated[Optional[str], typer.Option("--detector", help="As of `label`: it must find what was tagged.")] = None,  # noqa: UP045
    box_threshold: Annotated[Optional[float], typer.Option("--box-threshold", help="As of `label` (0.35).")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    extension: Annotated[Optional[str], typer.Option("--extension", help="Only files of this suffix.")] = None,  # noqa: UP045
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Find out what is in a folder, and write an ontology for it with the evidence beside each class.

    A tagger names what it sees in a sample, and a detector says which of that it finds as objects.
    """
    from autodistill_grounded_sam import discovering
    from autodistill_grounded_sam.config import DecideConfig, LabelConfig, RunConfig, SeeConfig, checked

    config = LabelConfig(
        see=checked(SeeConfig, {} if detector is None else {"detector": detector}),
        run=checked(RunConfig, {"device": device, "offline": offline}),
        decide=checked(DecideConfig, {} if box_threshold is None else {"box_threshold": box_threshold}),
    )
    settings = settings_of(tagger=tagger, words=words, sample=sample, min_images=min_images, max_classes=max_classes)
    with cli_output.progress(quiet=json) as bar:
        found = discovering.discover(images, out, settings, config, extension=extension, progress=bar)
    _show(discovering.discovery_to_json(found), json)


def found(
    auto: bool,
    ontology: str | None,
    images: str,
    out: Path | None,
    given: Mapping[str, Any],
    config: Any,
    extension: str | None,
    progress: cli_output.RunProgress,
) -> str:
    """What to label with: the ontology that was named, or with `auto` the one that is found and written into the dataset."""
    if not auto:
        if ontology is None:
            raise ConfigError("say what to look for with --ontology, or --auto to find out what is there")
        if wrong := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"--{wrong[0]} is for --auto; with --ontology nothing is tagged, leave it out")
        return ontology
    if ontology is not None:
        raise ConfigError("--auto finds an ontology, --ontology names one: give one of them")
    from autodistill_grounded_sam import discovering

    path = discovering.discovered_ontology(images, out, settings_of(**given), config, extension=extension, progress=progress)
    return str(path)


def settings_of(words: str | None = None, **given: Any) -> Any:
    """A DiscoverConfig of what was given."""
    from autodistill_grounded_sam.config import DiscoverConfig, checked
    from autodistill_grounded_sam.discovering import words_of

    asked = {} if words is None else {"words": words_of(words)}
    return checked(DiscoverConfig, {**{name: value for name, value in given.items() if value is not None}, **asked})


def _show(facts: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        cli_output.as_json(facts)
        return
    aside = f"{facts['near_duplicates']} near-duplicates and {facts['unreadable']} unreadable ones passed over"
    title = f"in {facts['sampled']} images of {facts['folder']} ({aside}), {facts['tags']} different tags"
    table = Table("class", "tagged in", "boxes", "in images", "threshold", title=title, title_justify="left")
    for name, one in facts["evidence"].items():
        threshold = "default" if one["box_threshold"] is None else f"{one['box_threshold']:.2f}"
        table.add_row(escape(name), str(one["tagged"]), str(one["boxes"]), str(one["images"]), threshold)
    cli_output.out.print(table)
    if facts["negatives"]:
        cli_output.out.print(f"negatives: {escape(', '.join(facts['negatives']))}")
    if facts["left_out"]:
        cli_output.out.print(f"left out: {len(facts['left_out'])} things; the file says why")
    cli_output.out.print(f"ontology: {escape(facts['out'])}\npictures: {escape(facts['sheet'])}")
