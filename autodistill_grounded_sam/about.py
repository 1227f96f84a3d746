"""What a class tells of what it runs: a row of the table that `grounded-sam plugins` prints and docs/plugins.md shows.

The facts stand beside the code that they are of, in the class attribute `about`; ids and licences of checkpoints come from
`weights.known_models`, where they are downloaded from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from autodistill_grounded_sam.plugins import BUILT_IN, OURS, WEIGHTS_OF, Plugin, list_plugins
from autodistill_grounded_sam.weights import known_models

LICENCE = "Apache-2.0"  # of this package, and so of what comes with it


@dataclass(frozen=True)
class About:
    """`name` is the plugin's, or that of a family of weights. `proven` says what was shown here and how, with the test's path.

    `checkpoints` is a pattern of names in `known_models`, or such names in words where none is known there; `licence` is needed
    only then. `needs` is what else must be installed.
    """

    name: str
    proven: str = ""
    checkpoints: str = ""
    licence: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the table. `problem` is "" where the class loads."""

    plugin: Plugin
    name: str
    checkpoints: tuple[str, ...]
    licence: str
    needs: str
    proven: str
    problem: str

    def facts(self) -> dict[str, Any]:
        """As plain data for `json.dumps`, None for what is not told."""
        return {
            "role": self.plugin.role,
            "name": self.name,
            "checkpoints": list(self.checkpoints),
            "licence": self.licence or None,
            "needs": self.needs or None,
            "proven": self.proven or None,
            "target": self.plugin.target,
            "from": self.plugin.distribution,
            "problem": self.problem or None,
        }


def table() -> list[Row]:
    """Every plugin of every role and, after those of a role, every family of weights that can be named instead. Imports them."""
    return [row for role in BUILT_IN for row in _rows(role)]


def _rows(role: str) -> Iterator[Row]:
    plugins = list_plugins(role)
    for plugin in plugins:
        problem = plugin.problem()
        own = [] if problem else [about for about in _told(plugin) if about.name == plugin.name]
        yield _row(plugin, own[0] if own else About(plugin.name), problem)
    if role in WEIGHTS_OF:
        weights = Plugin(role, "", WEIGHTS_OF[role], OURS)
        for about in _told(weights):
            if about.name not in [plugin.name for plugin in plugins]:
                yield _row(weights, about, "")


def _told(plugin: Plugin) -> tuple[About, ...]:
    told = getattr(plugin.load_class(), "about", ())
    return tuple(one for one in told if isinstance(one, About)) if isinstance(told, tuple) else ()


def _row(plugin: Plugin, about: About, problem: str) -> Row:
    known = [
        model
        for model in known_models()
        if model.role == plugin.role[:-1] and about.checkpoints and fnmatchcase(model.name, about.checkpoints)
    ]
    ids = tuple(model.name for model in known) or ((about.checkpoints,) if about.checkpoints else ())
    licence = about.licence or ", ".join(dict.fromkeys(model.licence for model in known)) or (LICENCE if plugin.built_in else "")
    return Row(plugin, about.name, ids, licence, about.needs, about.proven, problem)
