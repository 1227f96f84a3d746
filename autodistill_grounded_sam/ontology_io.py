"""Where an ontology comes from: our YAML schema, {prompt: class}, COCO, YOLO, autodistill's CaptionOntology, the shipped files.

Our schema, version 1; only `version` and `classes` are needed, unknown keys are refused:

    version: 1
    name: drinks
    description: Bottles and cups on a table
    classes:
      bottle: {prompts: [a bottle, plastic bottle], box_threshold: 0.3, min_size_px: 12}
      cup: [cup, mug]            # prompts alone
      plate:                     # the name is the prompt
      logo: {examples: [{image: logo.jpg, box: [10, 20, 90, 80]}]}  # paths begin where this file lies
    negatives: [reflection]
    exclusive: [[bottle, cup]]   # or: all
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.example_images import read_example
from autodistill_grounded_sam.ontology import (
    LIMITS,
    ClassSpec,
    Ontology,
    as_texts,
    class_problems,
    did_you_mean,
    ontology_problems,
)

VERSION = 1
_KEYS = ("version", "name", "description", "classes", "negatives", "exclusive")
_CLASS_KEYS = ("prompts", "examples", *LIMITS)
_FORMS = 'a shipped name, a .yaml or .json file, or {"prompt": "class"}'


class ShippedOntology(NamedTuple):
    """A line of `grounded-sam ontologies`."""

    name: str
    classes: int
    description: str
    path: Path


def shipped() -> dict[str, Path]:
    """The ontologies that come with the package, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def shipped_folder() -> Path:
    installed = Path(str(resources.files("autodistill_grounded_sam") / "ontologies"))
    # An editable install and a plain checkout do not see the folder that a wheel maps into the package.
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "ontologies"


def shipped_summary() -> list[ShippedOntology]:
    """Name, number of classes, description and path of every shipped ontology."""
    read = {name: (Ontology.from_yaml(path), path) for name, path in shipped().items()}
    return [ShippedOntology(name, len(o.classes), o.description, path) for name, (o, path) in read.items()]


def load(spec: Any) -> Ontology:
    """See `Ontology.load`. Files and mappings are told apart by what they hold."""
    if isinstance(spec, Ontology):
        return spec
    if isinstance(spec, Mapping):
        return _by_content(spec, "the ontology mapping")
    if isinstance(spec, Path):
        return _by_content(*content_of(spec))
    if isinstance(spec, str):
        if spec.lstrip().startswith("{"):
            source = "the ontology given as JSON"
            return _by_content(_parse_json(spec, source), source)
        if Path(spec).suffix or "/" in spec or "\\" in spec:
            return _by_content(*content_of(spec))
        known = shipped()
        if spec not in known:
            raise OntologyError(f"no ontology is called {spec!r}{_shipped_hint(spec, known)}; expected {_FORMS}")
        return Ontology.from_yaml(known[spec])
    return Ontology.from_caption_ontology(spec)


def content_of(source: str | Path | Mapping[str, Any]) -> tuple[Any, str]:
    """The plain data of a .yaml, .yml or .json file (or the mapping itself), and what to call it in an error."""
    if isinstance(source, Mapping):
        return source, "the mapping"
    path = Path(source)
    parse = {".yaml": parse_yaml, ".yml": parse_yaml, ".json": _parse_json}.get(path.suffix.lower())
    if parse is None:
        raise OntologyError(f"ontology {path} must be a .yaml, .yml or .json file")
    try:
        return parse(path.read_text(encoding="utf-8-sig"), str(path)), str(path)
    except FileNotFoundError as error:
        raise OntologyError(f"ontology file {path} does not exist{_shipped_hint(path.stem, shipped())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise OntologyError(f"ontology file {path} cannot be read: {error}") from error


def parse_yaml(text: str, source: str) -> Any:
    """YAML text as plain data by the safe loader; a key given twice is refused, with its line."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = _keys_given_twice(root)
        if twice:
            raise _refusal(source, twice)
        return None if root is None else loader.construct_document(root)
    except OntologyError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OntologyError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error


def from_document(document: Any, source: str) -> Ontology:
    """Our schema. Every fault is one line of one `OntologyError`."""
    if not isinstance(document, Mapping):
        raise OntologyError(f"{source} must hold a mapping with version and classes, got {short_repr(document)}")
    problems = _unknown_keys("the ontology", document, _KEYS)
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        problems.append(f"version must be {VERSION}, got {document.get('version')!r}; write version: {VERSION}")
    for key in ("name", "description"):
        if not isinstance(document.get(key) or "", str):
            problems.append(f"{key} must be text, got {short_repr(document[key])}")
    classes = document.get("classes")
    if not isinstance(classes, Mapping):
        problems.append(f"classes must map each class name to its prompts, got {short_repr(classes)}")
        raise _refusal(source, problems)
    folder = Path(source).absolute().parent if Path(source).suffix else Path.cwd()
    specs = [_class_parts(name, value, folder, problems) for name, value in classes.items()]
    negatives = () if document.get("negatives") is None else as_texts(document["negatives"])
    exclusive = _groups(document.get("exclusive"), tuple(classes), problems)
    problems += ontology_problems(
        [(name, (*prompts, *(one.prompt for one in parts["examples"]))) for name, prompts, parts in specs], negatives, exclusive
    )
    if problems:
        raise _refusal(source, problems)
    return Ontology(
        tuple(ClassSpec(name, prompts, **parts) for name, prompts, parts in specs),
        negatives,
        exclusive,
        document.get("name") or "",
        document.get("description") or "",
    )


def to_document(ontology: Ontology) -> dict[str, Any]:
    """The inverse of `from_document`, in the shortest form that says the same."""
    document: dict[str, Any] = {"version": VERSION}
    if ontology.name:
        document["name"] = ontology.name
    if ontology.description:
        document["description"] = ontology.description
    document["classes"] = {c.name: _class_value(c) for c in ontology.classes}
    if ontology.negatives:
        document["negatives"] = list(ontology.negatives)
    if ontology.exclusive == (ontology.class_names,):
        document["exclusive"] = "all"
    elif ontology.exclusive:
        document["exclusive"] = [list(group) for group in ontology.exclusive]
    return document


def to_yaml_text(ontology: Ontology) -> str:
    """See `Ontology.to_yaml_text`."""
    import yaml

    document = to_document(ontology)
    # PyYAML 6 writes some line separators raw and reads them back as a blank; escaped they survive.
    readable = all(c.isprintable() for c in json.dumps(document, ensure_ascii=False))
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=readable, default_flow_style=None, width=120)
    return text


def from_pairs(pairs: Iterable[tuple[object, object]], source: str) -> Ontology:
    """(prompt, class) pairs; class ids by first appearance."""
    prompts_of: dict[Any, list[object]] = {}
    problems = []
    for prompt, name in pairs:
        if isinstance(name, str):
            prompts_of.setdefault(name, []).append(prompt)
        else:
            problems.append(f"prompt {prompt!r} must stand for a class name, got {short_repr(name)}")
    return _checked(prompts_of, source, problems)


def caption_pairs(caption_ontology: Any) -> list[tuple[object, object]]:
    """The (prompt, class) pairs of autodistill's `CaptionOntology` or of its like, told by shape."""
    if hasattr(caption_ontology, "promptMap"):
        return [(prompt, name) for prompt, name in caption_ontology.promptMap]
    if callable(getattr(caption_ontology, "prompts", None)) and callable(getattr(caption_ontology, "classes", None)):
        return list(zip(caption_ontology.prompts(), caption_ontology.classes(), strict=True))
    kind = type(caption_ontology).__name__
    raise OntologyError(f"an ontology cannot be made from a {kind}; expected {_FORMS}, or a CaptionOntology")


def from_coco(content: Any, source: str) -> Ontology:
    """See `Ontology.from_coco`."""
    categories = content.get("categories") if isinstance(content, Mapping) else None
    if not isinstance(categories, list) or not all(isinstance(c, Mapping) and "name" in c for c in categories):
        raise OntologyError(f"{source} must be a COCO json with a list of categories that have names")
    return _from_names([c["name"] for c in categories], source)


def from_yolo(content: Any, source: str) -> Ontology:
    """See `Ontology.from_yolo`."""
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise OntologyError(f"{source}: the ids of names must be 0..{len(names) - 1}, got {short_repr(list(names))}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise OntologyError(f"{source} must be a YOLO data.yaml with names, a list or a mapping of ids, got {short_repr(names)}")
    # Ultralytics takes numbers for names (digits, sizes), so we do; yes and no come as bool and stay refused.
    return _from_names([str(n) if isinstance(n, (int, float)) and not isinstance(n, bool) else n for n in names], source)


def _from_names(names: list[Any], source: str) -> Ontology:
    texts = [name for name in names if isinstance(name, str)]
    problems = [line for name in names if not isinstance(name, str) for line in class_problems(name, ("x",), {})]
    problems += [f"class {name!r} is given twice" for name, count in Counter(texts).items() if count > 1]
    return _checked({name: [name] for name in texts}, source, problems)


def _checked(prompts_of: Mapping[Any, list[object]], source: str, problems: list[str]) -> Ontology:
    """An ontology of classes with nothing but prompts, or one error with every fault."""
    problems += [line for name, prompts in prompts_of.items() for line in class_problems(name, prompts, {})]
    problems += ontology_problems(list(prompts_of.items()), (), ())
    if problems:
        raise _refusal(source, problems)
    return Ontology(tuple(ClassSpec(name, as_texts(prompts)) for name, prompts in prompts_of.items()))


def _by_content(content: Any, source: str) -> Ontology:
    if not isinstance(content, Mapping):
        raise OntologyError(f"{source} must hold a mapping, got {short_repr(content)}")
    if isinstance(content.get("categories"), list):
        return from_coco(content, source)
    if isinstance(content.get("names"), (list, Mapping)) and "classes" not in content:
        return from_yolo(content, source)
    if any(key in content and not isinstance(content[key], str) for key in ("version", "classes")):
        return from_document(content, source)
    return from_pairs(content.items(), source)


def _class_parts(name: Any, value: Any, folder: Path, problems: list[str]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Name, prompts, and limits with examples of one class of our schema; what is wrong goes to `problems`."""
    settings = value if isinstance(value, Mapping) else {"prompts": value}
    problems += _unknown_keys(f"class {name!r}", settings, _CLASS_KEYS)
    examples = []
    for one in as_texts(settings.get("examples") or ()):
        try:
            examples.append(read_example(one, folder))
        except OntologyError as error:
            problems.append(f"class {name!r}: {error}")
    unnamed = () if settings.get("examples") else (name,)
    prompts = unnamed if settings.get("prompts") is None else as_texts(settings["prompts"])
    limits = {key: settings[key] for key in LIMITS if settings.get(key) is not None}
    words = prompts if not settings.get("examples") else (*prompts, "x")  # an example is a prompt, too
    problems += class_problems(name, words if isinstance(name, str) else ("x",), limits)
    return name, prompts, {**limits, "examples": tuple(examples)}


def _class_value(spec: ClassSpec) -> Any:
    if spec.limits or spec.examples:
        words = {"prompts": list(spec.prompts)} if spec.prompts else {}
        examples = {"examples": [example.document() for example in spec.examples]} if spec.examples else {}
        return {**words, **examples, **spec.limits}
    return None if spec.prompts == (spec.name,) else list(spec.prompts)


def _groups(value: Any, names: tuple[Any, ...], problems: list[str]) -> tuple[tuple[Any, ...], ...]:
    if value is None:
        return ()
    if value in ("all", "*"):
        return (names,)
    if not isinstance(value, list) or not all(isinstance(group, list) for group in value):
        problems.append(f"exclusive must be all, or a list of groups such as [[car, truck]], got {short_repr(value)}")
        return ()
    return tuple(tuple(group) for group in value)


def _unknown_keys(what: str, mapping: Mapping[Any, Any], known: tuple[str, ...]) -> list[str]:
    return [
        f"{what} has an unknown key {key!r}{did_you_mean(str(key), known)} (known: {', '.join(known)})"
        for key in mapping
        if key not in known
    ]


def _keys_given_twice(root: Any) -> list[str]:
    """One line for each key that a mapping of the YAML tree holds twice; the loader would keep the last without a word."""
    twice: list[tuple[int, str, int]] = []
    waiting, met = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in met or not isinstance(getattr(node, "value", None), list):
            continue
        met.add(id(node))  # aliases may make the tree a graph
        first: dict[str, int] = {}
        for item in node.value:
            key, child = item if isinstance(item, tuple) else (None, item)
            waiting.append(child)
            if key is not None and isinstance(key.value, str):
                line = key.start_mark.line + 1
                if key.value in first:
                    twice.append((line, key.value, first[key.value]))
                first.setdefault(key.value, line)
    return [f"line {line}: key {key!r} is given twice, first on line {before}" for line, key, before in sorted(twice)]


def _parse_json(text: str, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise OntologyError(f"{source}: key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise OntologyError(f"{source} is not valid JSON: {error}") from error


def _shipped_hint(name: str, known: Mapping[str, Path]) -> str:
    return f"{did_you_mean(name, list(known))} (shipped: {', '.join(known) or 'none'})"


def _refusal(source: str, problems: list[str]) -> OntologyError:
    count = f"{len(problems)} faults" if len(problems) > 1 else "1 fault"
    return OntologyError(f"{source}: {count} in the ontology\n" + "\n".join(f"  {line}" for line in problems))
