"""The command `app`: the playground on this machine. `cli` registers it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output


def app(
    run: Annotated[Optional[Path], typer.Argument(help="A dataset folder that `label` made: its images, words, scores.")] = None,  # noqa: UP045
    detector: Annotated[Optional[str], typer.Option("--detector", help="To start with (mini, or the run's).")] = None,  # noqa: UP045
    segmenter: Annotated[Optional[str], typer.Option("--segmenter", help="As --detector.")] = None,  # noqa: UP045
    ontology: Annotated[Optional[str], typer.Option("--ontology", help="Words to start with, as of `label`.")] = None,  # noqa: UP045
    speech: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--speech", help="Speak the words: a speech model of transformers, such as openai/whisper-base."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Of the page; a free one if left out.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    images: Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Try words and scores on an image, then label a folder with them; only this machine sees the page. Needs the extra [app]."""
    import webbrowser

    from autodistill_grounded_sam import playing

    server = playing.open_app(
        run, detector=detector, segmenter=segmenter, ontology=ontology, device=device, offline=offline, images=images,
        speech=speech, port=port,
    )  # fmt: skip
    with server:
        if json:
            cli_output.as_json({"url": server.url})
            sys.stdout.flush()  # a program reads it while the page stays open
        else:
            cli_output.tell(f"the playground is open until Ctrl-C, here alone:\n  {server.url}")
        if browser:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):  # the way to end it; a folder under way goes on when it is labelled again
            server.serve_forever()
