"""Keeps the bundle of every model that the forecast worker serves, so that its forecasts can be verified later.

What does not belong here: the form and the place of the kept bundles (`btc_core.registry.served_models`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from btc_core.errors import StoreError
from btc_core.models.bundle import bundle_files
from btc_core.registry.served_models import digest_of, put_bundle
from btc_core.stores.s3 import ObjectStore

if TYPE_CHECKING:
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.service_settings import StoreSettings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 1.0, 5.0
"""The writes of forecasts wait for the object store at most this long."""


class ServedModels:
    """The hashes of served models, and the bundles that the object store does not have yet."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._digests: WeakKeyDictionary[BidModel | VolatilityModel, str] = WeakKeyDictionary()
        """By model, as long as it is in use: one with a user's model may hold many megabytes."""
        self._missing: dict[str, dict[str, bytes]] = {}

    def digest(self, model: BidModel | VolatilityModel) -> str:
        """The hash of the bundle of a model, which is stored at the next call of `store`."""
        known = self._digests.get(model)
        if known is None:
            files = bundle_files(model)
            known = self._digests[model] = digest_of(files)
            self._missing[known] = files
        return known

    def store(self) -> None:
        """Store what is missing. While the object store does not answer, the bundles wait for the next call."""
        if not self._missing:
            return
        try:
            with ObjectStore(self._settings, "", CONNECT_TIMEOUT_S, READ_TIMEOUT_S) as store:
                for digest, files in list(self._missing.items()):
                    put_bundle(store, files)
                    del self._missing[digest]
        except StoreError as error:
            log.warning("the bundles of %d served models are not stored yet: %s", len(self._missing), error)
