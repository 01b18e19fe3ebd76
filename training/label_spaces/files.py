"""Label spaces as files: ``NAME.yaml`` beside this module, or a file of your own, named by its path.

```yaml
labels: [other, chair, table, wall]     # index = class id
palette: ["#000000", ...]               # optional; PASCAL VOC's colours
people_only: false                      # optional; see LabelSpace
mappings:                               # optional: spaces whose labels this one understands
  voc:
    classes: {background: rest, diningtable: table}
    others: other
    contexts:
      - {shows: [car, boat], classes: {background: other}}
```

``classes`` says which classes here a class there may be: a name, a list of names, ``any``, or ``rest``, that
is, whatever no other class there is. A class that is not listed is its namesake here, else ``others``.
``contexts`` narrow sets down in images that show one of some classes. Together the sets must cover all the
classes here, or a class would be taught to be nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from training.label_spaces.space import LabelSpace, bit_palette
from training.label_spaces.targets import Mapped, Narrowed
from training.strict import Strict

_REST, _ANY = "rest", "any"
_SHIPPED = Path(str(resources.files("training"))) / "label_spaces"
_ENDING = ".yaml"


class LabelSpaceError(ValueError):
    """A label space that cannot be used; names the file, the class and what to do."""


_Names = str | list[str]


class _Context(Strict):
    shows: list[str]
    classes: dict[str, _Names]


class _Mapping(Strict):
    classes: dict[str, _Names] = Field(default_factory=dict)
    others: _Names | None = None
    contexts: list[_Context] = Field(default_factory=list)


class _File(Strict):
    labels: list[str]
    palette: list[str] | None = None
    people_only: bool = False
    mappings: dict[str, _Mapping] = Field(default_factory=dict)


def _read(path: Path) -> _File:
    try:
        file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabelSpaceError(f"{path.name}: not a readable label space ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise LabelSpaceError(f"{path.name}: {where}: {first['msg']}") from error
    twice = sorted({name for name in file.labels if file.labels.count(name) > 1})
    if twice or not file.labels:
        raise LabelSpaceError(f"{path.name}: labels {f'name {twice[0]!r} twice' if twice else 'are empty'}")
    if reserved := {_REST, _ANY} & set(file.labels):
        raise LabelSpaceError(
            f"{path.name}: {min(reserved)!r} is not a name for a class, mappings use the word"
        )
    if file.palette is not None and len(file.palette) != len(file.labels):
        raise LabelSpaceError(
            f"{path.name}: palette has {len(file.palette)} colours for {len(file.labels)} labels"
        )
    return file


def read_label_space(path: Path) -> LabelSpace:
    """The label space in ``path``; spaces it maps are files beside it, or shipped ones.

    Raises:
        LabelSpaceError: what is wrong with the file.
    """
    file = _read(path)
    mapped = []
    for name, mapping in file.mappings.items():
        places = (folder / f"{name}{_ENDING}" for folder in (path.parent, _SHIPPED))
        beside = next((place for place in places if place.is_file()), None)
        if name == path.stem or beside is None:
            files = {*path.parent.glob(f"*{_ENDING}"), *_SHIPPED.glob(f"*{_ENDING}")} - {path}
            known = ", ".join(sorted({other.stem for other in files}))
            raise LabelSpaceError(
                f"{path.name}: mappings.{name} is not another label space; there are {known}"
            )
        where = f"{path.name}: mappings.{name}"
        mapped.append(_Resolver(where, file.labels, _read(beside).labels).mapped(name, mapping))
    palette = bit_palette(len(file.labels)) if file.palette is None else tuple(file.palette)
    space = LabelSpace(path.stem, tuple(file.labels), palette, file.people_only, tuple(mapped), str(path))
    try:
        assert space.targets is not None
    except ValueError as error:
        raise LabelSpaceError(f"{path.name}: {error}") from error
    return space


class _Resolver:
    """Names of two spaces as ids; ``where`` begins every message."""

    def __init__(self, where: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
        self._where, self._ours, self._theirs = where, list(ours), list(theirs)

    def mapped(self, space: str, mapping: _Mapping) -> Mapped:
        listed = {self._their_id(name): names for name, names in mapping.classes.items()}
        sets: list[tuple[int, ...] | None] = []
        rest: int | None = None
        for index, label in enumerate(self._theirs):
            names = listed.get(index, label if label in self._ours else mapping.others)
            if names is None:
                raise LabelSpaceError(
                    f"{self._where}: says nothing about {label!r}; list it under classes, or set others"
                )
            if names == _REST:
                if rest is not None:
                    raise LabelSpaceError(f"{self._where}: {_REST} can be one class only")
                rest = index
                sets.append(None)
            else:
                sets.append(self._our_ids(names))
        named = {class_id for ids in sets if ids is not None for class_id in ids}
        left = tuple(index for index in range(len(self._ours)) if index not in named)
        if rest is None and left:
            missing = ", ".join(self._ours[index] for index in left[:5])
            raise LabelSpaceError(
                f"{self._where}: its classes do not cover {len(left)} of ours ({missing}); say which class "
                f"they belong to, e.g. {self._theirs[-1]}: {_REST}"
            )
        if rest is not None and not left:
            raise LabelSpaceError(f"{self._where}: nothing is left for {self._theirs[rest]!r}: {_REST}")
        narrowed = tuple(self._narrowed(context) for context in mapping.contexts)
        return Mapped(
            space, tuple(self._theirs), tuple(left if ids is None else ids for ids in sets), narrowed
        )

    def _narrowed(self, context: _Context) -> Narrowed:
        shows = tuple(self._their_id(name) for name in context.shows)
        if not shows:
            raise LabelSpaceError(f"{self._where}: a context shows nothing; name classes under shows")
        return Narrowed(
            shows, {self._their_id(name): self._our_ids(names) for name, names in context.classes.items()}
        )

    def _their_id(self, name: str) -> int:
        return self._id(name, self._theirs, "there")

    def _our_ids(self, names: _Names) -> tuple[int, ...]:
        if names == _ANY:
            return tuple(range(len(self._ours)))
        listed = [names] if isinstance(names, str) else names
        if not listed:
            raise LabelSpaceError(f"{self._where}: a class stands for no class here; name one, or {_ANY}")
        return tuple(sorted({self._id(name, self._ours, "here") for name in listed}))

    def _id(self, name: str, names: Sequence[str], place: str) -> int:
        if name not in names:
            raise LabelSpaceError(
                f"{self._where}: unknown class {name!r}; the classes {place} are {', '.join(names)}"
            )
        return names.index(name)


def plain_name(space: str) -> str:
    """The name of a label space that may be given by the path of its file."""
    return Path(space).stem if space.endswith(_ENDING) else space


class _Spaces(Mapping[str, LabelSpace]):
    """The shipped spaces by name, each read when it is first asked for, and any other by its path."""

    def __init__(self) -> None:
        self._names = tuple(sorted(path.stem for path in _SHIPPED.glob(f"*{_ENDING}")))
        self._space = cache(read_label_space)

    def __getitem__(self, name: Any) -> LabelSpace:
        if name in self._names:
            return self._space(_SHIPPED / f"{name}{_ENDING}")
        if not isinstance(name, str) or not name.endswith(_ENDING):
            raise KeyError(name)
        if plain_name(name) in self._names:
            raise LabelSpaceError(f"{name}: a label space that ships has this name; call yours another")
        return self._space(Path(name).expanduser().absolute())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


LABEL_SPACES: Mapping[str, LabelSpace] = _Spaces()
"""Every label space by name, or by the path of a file; a new one is one file."""
