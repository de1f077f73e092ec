"""A client of the HTTP API of btc-forecast. It needs only httpx, msgspec and pyarrow.

```
from btc_client import Client

client = Client("http://127.0.0.1:5050")
bars = client.bars("BTC/USD", "2026-10-01", "2026-11-01").to_pandas()
```

What does not belong here: anything that needs a package of the servers.
"""

from btc_client.answers import (
    HorizonForecast,
    LiveForecast,
    LoadedModels,
    Market,
    Markets,
    ModelCard,
    Quality,
    QualityReason,
)
from btc_client.client import Client
from btc_client.dataset import Dataset, Split
from btc_client.errors import ApiError, ClientError, NoConnection
from btc_client.events import Event
from btc_client.score_answers import ForecastProof, League, LeagueRow, Root, Roots, Skill, SkillRow

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "Dataset",
    "Event",
    "ForecastProof",
    "HorizonForecast",
    "League",
    "LeagueRow",
    "LiveForecast",
    "LoadedModels",
    "Market",
    "Markets",
    "ModelCard",
    "NoConnection",
    "Quality",
    "QualityReason",
    "Root",
    "Roots",
    "Skill",
    "SkillRow",
    "Split",
]
