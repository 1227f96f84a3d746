"""The command `review`: a page on this machine, or the merging of decisions made elsewhere. `cli` registers it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from autodistill_grounded_sam import cli_output


def review(
    run: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or its run/ folder.")],
    merge: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--merge", help="Take in the decisions of this file (of a static page) instead of opening one."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Of the page; a free one if left out.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    device: Annotated[str, typer.Option("--device", help="Where boxes that you draw are masked: auto, cpu, cuda, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    images: Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Look at the labels most likely wrong, one key a decision; only this machine sees the page.

    Every decision is in run/reviews.jsonl at once. `decide RUN --format ...` and `export` then apply them.
    """
    import webbrowser

    from autodistill_grounded_sam import reviewing

    if merge is not None:
        merged = reviewing.merge_reviews(run, merge)
        _show_merged(merged, json)
        raise typer.Exit(3 if merged.faults else 0)
    with cli_output.progress(quiet=json) as bar:
        server = reviewing.open_review(run, images=images, port=port, device=device, offline=offline, progress=bar)
    with server:
        _show_page(server.url, server.session.about(), json)
        if browser:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):  # the way to end it; nothing is lost
            server.serve_forever()


def _show_page(url: str, about: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        cli_output.as_json({"url": url, "total": about["total"], "left": about["left"]})
        sys.stdout.flush()  # a program reads it while the page stays open
        return
    cli_output.tell(f"{about['left']} of {about['total']} labels are left to look at; the page is open until Ctrl-C, here alone:")
    cli_output.tell(f"  {url}")
    cli_output.tell("every decision is kept at once; `decide --format` or `export` then apply them")


def _show_merged(merged: Any, as_object: bool) -> None:
    if as_object:
        cli_output.as_json(asdict(merged))
        return
    for fault in merged.faults:
        cli_output.tell(f"left out: {fault}")
    cli_output.tell(
        f"decisions taken in: {merged.added}; known already: {merged.known}; of images that this run does not hold: "
        f"{merged.elsewhere}; lines left out: {len(merged.faults)}"
    )
