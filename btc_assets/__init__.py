"""The Dagster code location: assets from live tables to models, checks of them, and the runs that make them.

What does not belong here: anything that a worker or the API needs; that is in `btc_core`.

A library that takes more than 50 ms to import (numba, scipy, pandas, XGBoost, matplotlib, Redis' client) is imported in the
function that needs it. Dagster loads the definitions in every process that it starts, and most runs need few of them.
"""

import warnings

from dagster import BetaWarning

warnings.filterwarnings("ignore", category=BetaWarning)  # a hundred lines in each log; the versions are locked
