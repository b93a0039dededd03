"""Wait rules, one file each. To add one, write its file and its line here; no other code knows their names."""

from __future__ import annotations

from typing import Any

from consensus.protocol.decision import Rule
from consensus.rules.construct import construct
from consensus.rules.deadline import Deadline
from consensus.rules.dtur import Dtur
from consensus.rules.full import Full
from consensus.rules.gap import Gap
from consensus.rules.pathsearch import Pathsearch
from consensus.rules.patience import Patience
from consensus.rules.run_free import RunFree
from consensus.rules.static_backup import StaticBackup

_RULES = (Dtur, Full, StaticBackup, Pathsearch, Gap, Patience, Deadline, RunFree)

RULES: dict[str, type[Any]] = {rule.name: rule for rule in _RULES}
"""Rule classes by name."""


def build(name: str, **parameters: Any) -> Rule:
    """Return the rule called ``name``.

    Parameters
    ----------
    name : str
        One of :data:`RULES`.
    **parameters
        Its parameters, as in its class.

    Raises
    ------
    ConfigError
        For an unknown name, an unknown parameter, or a value of the wrong type or range.

    Examples
    --------
    >>> build("static_backup", b=2)
    StaticBackup(b=2)
    """
    return construct("rule", name, RULES, parameters)  # type: ignore[no-any-return]
