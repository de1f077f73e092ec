"""The command btc: what a person can type, what each command does, and what it prints.

It imports `stack` and `exchange_simulator`. A checkout has these folders beside this package; an installed wheel keeps
them in `btc_programs`, because other distributions use such names too. Importing this package puts that folder first on
the search path.
"""

import sys
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[1]
_INSTALLED = _BESIDE / "btc_programs"

sys.path.insert(0, str(_INSTALLED if _INSTALLED.is_dir() else _BESIDE))
