"""The Exp of a compression as its stages take it, and the words that name it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from yolox.exp import Exp
from yolox.exp.fields import write_names
from yolox.exp.load import find_exp_file
from yolox.utils.checkpoint import file_digest

# Fields that change no result, or that every stage sets itself.
_IRRELEVANT_FIELDS = frozenset(
    ("data_num_workers", "print_interval", "save_history_ckpt", "output_dir", "exp_name")
)
_STAGE_FIELDS = ("max_epoch", "no_aug_epochs", "finetune_epochs", "sparsity")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """An Exp, and how a command line names it.

    Attributes:
        exp: not changed: stages take copies.
        named: words that name it.
        given: names and values of the fields that a person set for this run, in their order.
    """

    exp: Exp
    named: tuple[str, ...]
    given: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, exp: Exp) -> Recipe:
        """The recipe of an Exp that was made in Python, which may be that of another training.

        Of how long that is and of its penalty nothing counts as given: the settings say it.
        """
        exp = copy.copy(exp)
        exp.overlook(_STAGE_FIELDS)
        given = {name: write_value(getattr(exp, name)) for name in sorted(exp.given)}
        return cls(exp=exp, named=_named(exp), given=tuple(given.items()))

    def words(self) -> tuple[str, ...]:
        """As they stand on a command line."""
        return (*self.named, *(word for pair in self.given for word in pair))

    @property
    def origin(self) -> Path | str:
        """What a resumed run has to agree in: the Exp file, or the name of another Exp."""
        name = self.named[-1]
        return Path(name) if self.named[0] == "-f" and name.endswith(".py") else name

    def only(self, is_read: Callable[[str], bool]) -> Recipe:
        """With those alone of the given fields that a stage reads: no other counts as given."""
        exp = copy.copy(self.exp)
        exp.overlook([name for name in exp.given if not is_read(name)])
        return replace(self, exp=exp, given=tuple(p for p in self.given if is_read(p[0])))

    def giving(self, *words: str) -> Recipe:
        """With more fields, ``name, value, name, value, …``."""
        exp = copy.copy(self.exp)
        exp.merge(words)
        pairs = zip(words[::2], words[1::2], strict=True)
        return replace(self, exp=exp, given=(*self.given, *pairs))

    def make(self, *words: object) -> Exp:
        """A copy of the Exp with the fields of one stage.

        Raises:
            ExpError: fields that do not go together.
        """
        exp = copy.copy(self.exp)
        exp.merge(list(map(str, words)))
        exp.check()
        return exp


def _named(exp: Exp) -> tuple[str, ...]:
    """Words that name an Exp; of one that no file or built-in model is, its class."""
    named: tuple[str, ...] = vars(exp).get("_named", ())
    if not named:
        return "-f", f"{type(exp).__module__}.{type(exp).__qualname__}"
    if named[0] == "-n" and exp.data_dir:
        return ("--data", str(exp.data_dir), *named)
    return named


def write_value(value: object) -> str:
    """A field's value as `merge` reads it."""
    if isinstance(value, (tuple, list)):
        return write_names(list(map(str, value)))
    return str(value)


def origin_of(exp: Exp, source: Path, recipe: Path | str) -> str:
    """A digest of what everything follows from: the checkpoint and the recipe.

    Args:
        exp: its plain values count.
        source: the checkpoint.
        recipe: the Exp file, in which methods may be overridden, or the name of another Exp.
    """
    content = recipe if isinstance(recipe, str) else file_digest(find_exp_file(recipe))
    fields = {
        name: _plain(Path(value) if value and name == "data_dir" else value)
        for name, value in ((name, getattr(exp, name)) for name in exp.field_types())
        if name not in _IRRELEVANT_FIELDS
    }
    text = json.dumps([file_digest(source), content, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """A value that is the same in every process, for JSON; of what is no plain value its type."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return type(value).__qualname__
