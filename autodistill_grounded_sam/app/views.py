"""What the page shows, as HTML: a look with its labels and scores, a folder's progress, a fault. Every text is escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from markupsafe import Markup

from autodistill_grounded_sam.app.folder import Standing
from autodistill_grounded_sam.app.playground import Look, Settings
from autodistill_grounded_sam.decide.scores import ClassScores, score_classes
from autodistill_grounded_sam.drawing import PALETTE
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.review.outlines import outline
from autodistill_grounded_sam.types import REASONS, Labels, Reason

SCORES_SHOWN = 6  # of the prompts of a candidate, the best ones
LEAST_SCORE_SHOWN = 0.05
MOST_DROPPED_SHOWN = 60
_PLAIN_REASONS: dict[Reason, str] = {
    Reason.KEPT: "",
    Reason.MASK: "nothing is left of its mask",
    Reason.HERD: "one box around many",
    Reason.SIZE: "outside the size limits of its class",
    Reason.REJECTED: "a person said no",
}


def show_picture(look: Look, labels: Labels, picture_url: str, *, dropped: bool) -> Markup:
    """The image with its labels; with `dropped`, the other candidates as well."""
    lost = _lost(look, labels)
    return Markup('<figure class="look">{stage}<figcaption>{said}</figcaption></figure>').format(
        stage=_stage(look, labels, lost if dropped else [], picture_url), said=_said(look, labels, len(lost))
    )


def show_scores(look: Look, labels: Labels, settings: Settings, *, dropped: bool) -> Markup:
    """Each label with the scores of its best prompts; with `dropped` each other candidate as well, and why it is none."""
    scored = score_classes(look.candidates.scores, settings.applied(look.ontology))
    rows = [_kept_row(look, labels, place) for place in range(len(labels))]
    if dropped:
        rows += [_lost_row(look, labels, scored, settings, number) for number in _lost(look, labels)]
    return _table(look.name, rows) if rows else Markup('<p class="soft">No label at this score.</p>')


def show_fault(text: str) -> Markup:
    return Markup('<div class="fault" role="alert">{lines}</div>').format(lines=_lines(text))


def show_note(text: str) -> Markup:
    return Markup('<div class="note" role="status">{lines}</div>').format(lines=_lines(text))


def show_title(run: str) -> Markup:
    return Markup('<header class="gs-head"><h1>Playground</h1><p>{run}</p></header>').format(run=run)


def show_welcome(has_run: bool) -> Markup:
    what = "Choose an image of the run, or drop one of yours." if has_run else "Drop an image, say what to look for, press Look."
    return Markup('<div class="welcome"><p>{what}</p></div>').format(what=what)


def show_standing(standing: Standing, report_url: str) -> Markup:
    """A folder's progress, or what became of it."""
    if standing.phase == "idle":
        return Markup("")
    if standing.phase == "failed":
        return show_fault(standing.message)
    counts = ", ".join(f"{count} {name}" for name, count in Counter(standing.counts or {}).most_common(8))
    if standing.phase == "stopped":
        told = f"Stopped after {standing.done} of {standing.images} images."
        return show_note(f"{told} What was looked at is kept: press Label again to go on.")
    if standing.phase == "done":
        return _summary(standing, report_url)
    stage = "stopping after this batch" if standing.phase == "stopping" else standing.message
    bar = Markup('<progress max="{max}" value="{value}" aria-label="images looked at"></progress>').format(
        max=max(1, standing.images), value=standing.done
    )
    told = f"{standing.done} of {standing.images} images" if standing.images else ""
    return Markup('<div class="working" role="status"><p>{stage}</p>{bar}<p>{told}</p><p>{counts}</p></div>').format(
        stage=stage,
        bar=bar if standing.images else Markup("<progress aria-label='getting ready'></progress>"),
        told=told,
        counts=counts,
    )


def show_decided(summary: object) -> Markup:
    """What became of a run that was decided anew."""
    return _told_of_run("The run is decided with these settings.", summary, ())


def colour_of(class_id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[class_id % len(PALETTE)])


def show_own_scores(settings: Settings, ontology: Ontology) -> Markup:
    """The score that each class must reach, where it has its own."""
    own = [(spec.name, settings.of_class[spec.name]) for spec in ontology.classes if spec.name in settings.of_class]
    if not own:
        return Markup("")
    told = ", ".join(f"{name} {value:.2f}" for name, value in own)
    return Markup('<p class="soft">{told}; every other class {score}</p>').format(told=told, score=f"{settings.score:.2f}")


def _stage(look: Look, labels: Labels, lost: Iterable[int], picture_url: str) -> Markup:
    width, height = look.size_wh
    marks, plates = [], []
    for number in lost:
        marks.append(_mark(look.candidates.xyxy[number], None, "#fff", f"c{number}", lost=True))
    for place in range(len(labels)):
        class_id = int(labels.class_id[place])
        rle = None if labels.rle is None else labels.rle[place]
        marks.append(_mark(labels.xyxy[place], rle, colour_of(class_id), f"l{place}"))
        plates.append(_plate(labels.xyxy[place], place, look.ontology.class_names[class_id], class_id, (width, height)))
    return Markup(
        '<div class="stage" style="--w:{width};--h:{height}"><img src="{url}" alt="{alt}" width="{width}" height="{height}">'
        '<svg viewBox="0 0 {width} {height}" aria-hidden="true" preserveAspectRatio="none">{marks}</svg>{plates}</div>'
    ).format(
        width=width, height=height, url=picture_url, alt=look.name, marks=Markup("").join(marks), plates=Markup("").join(plates)
    )


def _mark(xyxy: object, rle: object, colour: str, key: str, *, lost: bool = False) -> Markup:
    x1, y1, x2, y2 = (round(float(edge), 1) for edge in np.asarray(xyxy))
    shape = Markup('<path class="area" fill-rule="evenodd" d="{path}"/>').format(path=outline(rle)) if rle else Markup("")  # type: ignore[arg-type]
    box = Markup('<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}"/>')
    boxes = Markup("").join(box.format(kind=kind, x=x1, y=y1, w=x2 - x1, h=y2 - y1) for kind in ("case", "box"))
    return Markup('<g class="mark{lost}" style="--own:{colour}" data-mark="{key}">{shape}{boxes}</g>').format(
        lost=" lost" if lost else "", colour=colour, key=key, shape=shape, boxes=boxes
    )


def _plate(xyxy: object, place: int, name: str, class_id: int, size_wh: tuple[int, int]) -> Markup:
    """The number and name of a label, on its box; no higher than the picture."""
    x1, y1, x2, _ = (float(edge) for edge in np.asarray(xyxy))
    left, right, top = 100 * x1 / size_wh[0], 100 - 100 * x2 / size_wh[0], 100 * y1 / size_wh[1]
    across = f"right:{right:.2f}%" if left > 60 else f"left:{left:.2f}%"  # a long name stays on the picture
    return Markup(
        '<span class="plate" style="--own:{colour};--ink:{ink};{across};--top:{top:.2f}%" data-mark="l{place}" '
        'aria-hidden="true"><b>{number}</b> {name}</span>'
    ).format(colour=colour_of(class_id), ink=_ink(class_id), across=across, top=top, place=place, number=place + 1, name=name)


def _ink(class_id: int) -> str:
    """Black or white, whichever is read better on the colour of the class."""
    light = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in PALETTE[class_id % len(PALETTE)]]
    luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
    return "#fff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000"


def _said(look: Look, labels: Labels, lost: int) -> Markup:
    counts = Counter(look.ontology.class_names[class_id] for class_id in labels.class_id.tolist())
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    how = (
        "from the run, no model asked"
        if look.seconds is None
        else f"{look.see.detector}, {_segmenter(look)}: {look.seconds:.1f} s"
    )
    rest = f"{lost} other candidate{'' if lost == 1 else 's'}"
    warned = Markup("").join(Markup('<span class="warned">{text}</span>').format(text=text) for text in look.warnings)
    return Markup('<b>{found}</b> <span class="soft">{name} · {how} · {rest}</span>{warned}').format(
        found=found, name=look.name, how=how, rest=rest, warned=warned
    )


def _segmenter(look: Look) -> str:
    return "boxes only" if look.see.masks == "none" else look.see.segmenter


def _table(name: str, rows: Iterable[Markup]) -> Markup:
    return Markup(
        '<div class="scores" tabindex="0" role="group" aria-label="labels of {name} and their scores"><table><thead><tr>'
        '<th scope="col">#</th><th scope="col">label</th><th scope="col">its best prompts</th></tr></thead>'
        "<tbody>{rows}</tbody></table></div>"
    ).format(name=name, rows=Markup("").join(rows))


def _kept_row(look: Look, labels: Labels, place: int) -> Markup:
    class_id, candidate = int(labels.class_id[place]), int(labels.candidate[place])
    name, score = look.ontology.class_names[class_id], float(labels.score[place])
    scores = _scores(look, candidate) if candidate >= 0 else Markup('<span class="soft">drawn by a person</span>')
    return _row(f"l{place}", str(place + 1), name, f"{score:.2f}", colour_of(class_id), scores)


def _lost(look: Look, labels: Labels) -> list[int]:
    """The candidates that are no labels, best first."""
    lost = np.flatnonzero(labels.reasons != REASONS.index(Reason.KEPT))
    order = np.argsort(-look.candidates.scores[lost].max(axis=1, initial=0), kind="stable")
    return [int(number) for number in lost[order][:MOST_DROPPED_SHOWN]]


def _lost_row(look: Look, labels: Labels, scored: ClassScores, settings: Settings, number: int) -> Markup:
    name = look.ontology.class_names[int(scored.class_id[number])]
    why = _why(look, labels, scored, settings, number)
    return _row(f"c{number}", "–", name, why, "transparent", _scores(look, number), lost=True)


def _why(look: Look, labels: Labels, scored: ClassScores, settings: Settings, number: int) -> str:
    reason, name = REASONS[labels.reasons[number]], look.ontology.class_names[int(scored.class_id[number])]
    if reason is Reason.THRESHOLD:
        return f"{scored.score[number]:.2f}, below {settings.of_class.get(name, settings.score):.2f}"
    if reason is Reason.NEGATIVE:
        return f"{scored.score[number]:.2f}, a negative scored {scored.negative[number]:.2f}"
    if reason is Reason.DUPLICATE:
        rival = int(labels.rival[number])
        places: list[int] = np.flatnonzero(labels.candidate == rival).tolist() if rival >= 0 else []
        return f"same object as {places[0] + 1}" if places else "same object as another"
    return _PLAIN_REASONS[reason]


def _row(key: str, number: str, name: str, told: str, colour: str, scores: Markup, *, lost: bool = False) -> Markup:
    return Markup(
        '<tr data-mark="{key}"{lost}><td>{number}</td><th scope="row"><i class="dot" style="--own:{colour}"></i>{name} '
        '<span class="told">{told}</span></th><td><div class="prompts">{scores}</div></td></tr>'
    ).format(
        key=key, lost=Markup(' class="lost"') if lost else "", number=number, colour=colour, name=name, told=told, scores=scores
    )


def _scores(look: Look, number: int) -> Markup:
    """The prompts that say most of a candidate, each with its score and a bar of it."""
    scores, prompts, owner = look.candidates.scores[number], look.ontology.prompts, look.ontology.prompt_class
    best = [int(k) for k in np.argsort(-scores, kind="stable")[:SCORES_SHOWN] if scores[k] >= LEAST_SCORE_SHOWN]
    part = Markup('<span class="prompt{kind}" style="--share:{share:.0f}%">{word} <b>{score}</b></span>')
    return Markup("").join(
        part.format(
            kind=" negative" if owner[k] < 0 else "", share=100 * float(scores[k]),
            word=f"not: {prompts[k]}" if owner[k] < 0 else prompts[k], score=f"{scores[k]:.2f}",
        )
        for k in best
    )  # fmt: skip


def _summary(standing: Standing, report_url: str) -> Markup:
    places = [(dataset.format, str(dataset.path)) for dataset in standing.summary.datasets]
    report = Markup('<li><a href="{url}" target="_blank" rel="noopener">Open the report</a></li>').format(url=report_url)
    return _told_of_run("Done.", standing.summary, places, report if standing.summary.report is not None else Markup(""))


def _told_of_run(title: str, summary: object, places: Iterable[tuple[str, str]], report: Markup | str = "") -> Markup:
    per_class: dict[str, int] = dict(getattr(summary, "per_class", {}))
    images: dict[str, int] = dict(getattr(summary, "images", {}))
    row = Markup("<tr><th scope='row'>{name}</th><td>{count}</td></tr>")
    rows = Markup("").join(
        row.format(name=name, count=count) for name, count in sorted(per_class.items(), key=lambda one: -one[1])
    )
    states = ", ".join(f"{count} {state}" for state, count in images.items() if count)
    where = Markup("").join(Markup("<li>{name}: <code>{path}</code></li>").format(name=name, path=path) for name, path in places)
    notes = Markup("").join(Markup("<li>{note}</li>").format(note=note) for note in getattr(summary, "notes", ()))
    return Markup(
        '<div class="note done" role="status"><p><b>{title}</b> Images: {states}.</p>'
        "<table class='counts'><thead><tr><th scope='col'>class</th><th scope='col'>labels</th></tr></thead><tbody>{rows}</tbody>"
        "</table><ul>{where}{report}{notes}</ul></div>"
    ).format(title=title, states=states, rows=rows, where=where, report=report, notes=notes)


def _lines(text: str) -> Markup:
    return Markup("").join(Markup("<p>{line}</p>").format(line=line) for line in text.splitlines() if line.strip())
