"""Server rules, one file each. To add one, write its file and its line here; no other code knows their names.

Importing this loads NumPy and SciPy, which dynamic backup workers need; the package of wait rules does not.
"""

from __future__ import annotations

from typing import Any

from consensus.protocol.service import ServerRule
from consensus.rules.asp import Asp
from consensus.rules.backup import Backup
from consensus.rules.bsp import Bsp
from consensus.rules.construct import construct
from consensus.rules.dbw.rule import Dbw
from consensus.rules.elastic import Elastic
from consensus.rules.ssp import Ssp

_RULES = (Bsp, Backup, Asp, Ssp, Dbw, Elastic)

SERVER_RULES: dict[str, type[Any]] = {rule.name: rule for rule in _RULES}
"""Server rule classes by name."""


def build_server(name: str, **parameters: Any) -> ServerRule:
    """Return the server rule called ``name``.

    Parameters
    ----------
    name : str
        One of :data:`SERVER_RULES`.
    **parameters
        Its parameters, as in its class.

    Returns
    -------
    ServerRule
        The rule.

    Raises
    ------
    ConfigError
        For an unknown name, an unknown parameter, or a value of the wrong type or range.

    Examples
    --------
    >>> build_server("backup", b=2)
    Backup(b=2)
    >>> build_server("elastic", objective="rat")
    Traceback (most recent call last):
        ...
    consensus.errors.ConfigError: server rule 'elastic': objective = 'rat', expected 'spread' or 'rate'; did you mean 'rate'?
    Known: spread, rate
    """
    return construct("server rule", name, SERVER_RULES, parameters)  # type: ignore[no-any-return]
