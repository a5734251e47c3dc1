"""Names that stand for code: built in, an entry point of an installed package, or ``package.module:name``.

Every part that takes such names has a `Plugins`, so names are resolved and explained in the same way everywhere.
`load` imports what a name stands for without calling it, so a name can be checked without making anything.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from se_nas.errors import ConfigError, SeNasError, blamed, not_allowed


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """The names that one option takes.

    Attributes:
        option: the option, for messages.
        built_in: name → what it stands for.
        group: group of the entry points that add names; None if none do.
        form: how messages write ``package.module:name``, such as "package.module:Class"; None if the option
            does not take it.
        error: raised for a name that leads nowhere.
    """

    option: str
    built_in: Mapping[str, Any]
    group: str | None = None
    form: str | None = None
    error: type[SeNasError] = ConfigError

    def installed(self) -> dict[str, EntryPoint]:
        """The entry points by name, sorted; none is imported. A built-in name is never replaced."""
        points = [] if self.group is None else entry_points(group=self.group)
        found = {point.name: point for point in points if point.name not in self.built_in}
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """All names, the built-in ones first; nothing is imported."""
        return [*self.built_in, *self.installed()]

    def load(self, name: str) -> Any:
        """What the name stands for, imported and not called.

        Raises:
            SeNasError (of the kind ``error``): the name is unknown, or what it stands for cannot be imported.
        """
        if name in self.built_in:
            return self.built_in[name]
        point = self.installed().get(name)
        module, _, attribute = name.partition(":")
        if point is None and not (self.form and module and attribute):
            raise self.unknown(name)
        begin = f"{self.option} {name!r}" + (f" ({point.value})" if point else "")
        with blamed(begin, self.error):
            try:
                return pkgutil.resolve_name(name) if point is None else point.load()
            except (ImportError, AttributeError) as error:
                raise self.error(f"{begin} cannot be imported: {type(error).__name__}: {error}.") from error

    def unknown(self, name: str) -> SeNasError:
        """The error that says which names there are."""
        if not self.names() and self.form is None:
            return self.error(
                f"{self.option} is {name!r}; allowed: none, as no package that adds one is installed."
            )
        return self.error(not_allowed(self.option, name, self.names(), self.form or ""))
