"""The table of SegInW: our rows beside the published ones, with intervals, as lines for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.evaluate.seginw import DATASETS, MODELS, PUBLISHED, WHAT, SegInWRow


def report_to_json(rows: Sequence[SegInWRow]) -> dict[str, Any]:
    """Figures in 0..1, None where one cannot be; `low` and `high` are the 95 % bootstrap interval of mask AP over images.

    `mean` is over the datasets that were run, unweighted, and so are the published ones beside it.
    """
    names = list(rows[0].figures)
    published = {name: dict(zip(MODELS, (round(ap / 100, 3) for ap in PUBLISHED[name]), strict=True)) for name in names}
    return {
        "datasets": len(names),
        "of": len(DATASETS),
        "rows": [_row(row) for row in rows],
        "published": {
            "models": WHAT,
            "per_dataset": published,
            "mean": {model: float(np.mean([published[name][model] for name in names])) for model in MODELS},
        },
    }


def report_lines(rows: Sequence[SegInWRow]) -> Iterator[str]:
    """The same as lines of one width: AP x 100 of masks with its interval, of boxes, then the published mask AP."""
    facts = report_to_json(rows)
    ours = facts["rows"]
    yield (
        f"{'mask AP [95 %]':<20}{'images':>7}"
        + "".join(f"  {row['prompts'][-16:]:^22}{'box':>6}" for row in ours)
        + _columns(MODELS)
    )
    for name in rows[0].figures:
        cells = "".join(_cell(row["per_dataset"][name]) for row in ours)
        images = ours[0]["per_dataset"][name]["images"]
        yield f"{name:<20}{images:>7}{cells}{_columns(PUBLISHED[name])}"
    count = f"mean of {facts['datasets']}" + ("" if facts["datasets"] == facts["of"] else f" of {facts['of']}")
    images = sum(rows[0].images.values())
    cells = "".join(_cell(row["mean"]) for row in ours)
    yield f"{count:<20}{images:>7}{cells}{_columns([100 * facts['published']['mean'][model] for model in MODELS])}"


def _row(row: SegInWRow) -> dict[str, Any]:
    per_dataset = {
        name: {
            "images": row.images[name],
            "mask": {key: _plain(value) for key, value in figures.mask.items()},
            "box": {key: _plain(value) for key, value in figures.box.items()},
            **_interval(figures.draws),
        }
        for name, figures in row.figures.items()
    }
    every = list(row.figures.values())
    means = {
        kind: {key: _plain(float(np.mean([getattr(one, kind)[key] for one in every]))) for key in ("AP", "AP50", "AP75")}
        for kind in ("mask", "box")
    }
    draws = np.array([one.draws for one in every])
    known = np.isfinite(draws)
    mean_draws = np.where(known, draws, 0).sum(axis=0)[known.any(axis=0)] / known.sum(axis=0)[known.any(axis=0)]
    return {
        "prompts": row.prompts,
        "mean": {**means, **_interval(mean_draws)},
        "per_dataset": per_dataset,
        "notes": list(row.notes),
    }


def _interval(draws: npt.ArrayLike) -> dict[str, float | None]:
    values = np.asarray(draws, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return {"low": None, "high": None}
    return dict(zip(("low", "high"), np.percentile(values, [2.5, 97.5]).tolist(), strict=True))


def _cell(facts: dict[str, Any]) -> str:
    interval = f"[{_hundred(facts['low'])}, {_hundred(facts['high'])}]"
    return f"  {_hundred(facts['mask']['AP']):>6} {interval:<15}{_hundred(facts['box']['AP']):>6}"


def _columns(cells: Sequence[object]) -> str:
    return "".join(f"{cell if isinstance(cell, str) else format(cell, '.1f'):>11}" for cell in cells)


def _hundred(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
