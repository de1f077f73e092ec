"""The tree of errors that this project raises on purpose.

```
BtcError
├── ConfigError          a setting is missing, malformed or contradicts another
│   └── OtherHorizons    the settings have other horizons than this process
├── BadFrame             a frame of the exchange cannot be used; it becomes a dead letter with a reason
│   └── RefusedTrade     a trade whose id can be read, but which cannot be used
├── SchemaError          a row, table or bundle belongs to another feature set or layout
├── ServiceError         a server that we depend on refused a request or did not answer
│   ├── QuestDBError
│   │   └── RowsRefused            QuestDB will never take one of these rows
│   ├── ExchangeError
│   │   ├── SubscriptionRefused   the exchange streams nothing of what the settings ask for
│   │   ├── SubscriptionSilent    a subscription brings nothing on this connection, however often it is made
│   │   ├── NotOffered            the exchange does not offer what was asked for
│   │   └── RateLimited           the exchange refuses requests for a while because there were too many
│   └── StoreError       the object store or the model registry
├── NotReady             there is no forecast yet, or only one from stale features
├── InvalidInput         a request or a file of a user is wrong; the message names the field
└── StackError           the native stack cannot start or does not answer
```

What does not belong here: exceptions of libraries. They are translated where they can be acted on, and only there.
"""

from __future__ import annotations


class BtcError(Exception):
    """The root of the tree: `except BtcError` catches what this project raises on purpose, and nothing else."""


class ConfigError(BtcError):
    """A setting is missing, malformed or contradicts another."""


class OtherHorizons(ConfigError):
    """Settings have other horizons than this process, which keeps those that it began with.

    `environment` has the variables with which a process gets the horizons of these settings.
    """

    def __init__(self, message: str, environment: dict[str, str]) -> None:
        super().__init__(message)
        self.environment = environment


class BadFrame(BtcError):
    """A frame of the exchange, or an entry of one, cannot be used.

    `reason` is a short, stable code for counting; the message says which field was wrong, and how.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class RefusedTrade(BadFrame):
    """A trade that cannot be used, with its id, so that nobody waits for it."""

    def __init__(self, cause: BadFrame, symbol: str, trade_id: int) -> None:
        super().__init__(cause.reason, cause.message)
        self.symbol = symbol
        self.trade_id = trade_id


class SchemaError(BtcError):
    """A row, table or model bundle belongs to another feature set or layout."""


class ServiceError(BtcError):
    """A server that we depend on refused a request or did not answer."""


class QuestDBError(ServiceError):
    """QuestDB refused a statement or a batch of rows."""


class RowsRefused(QuestDBError):
    """QuestDB refused a batch because of a value in it; the same batch will be refused again."""


class ExchangeError(ServiceError):
    """The exchange refused a request or did not answer."""


class SubscriptionRefused(ExchangeError):
    """The exchange streams nothing of what the settings ask for; a setting must be fixed, waiting does not help."""


class SubscriptionSilent(ExchangeError):
    """A subscription brings nothing on this connection, however often it is made; a new connection may help."""


class NotOffered(ExchangeError):
    """The exchange does not offer what was asked for; the caller needs another source, waiting does not help."""


class RateLimited(ExchangeError):
    """The exchange refuses requests for a while because there were too many; the same request works later."""


class StoreError(ServiceError):
    """The object store or the model registry refused a request."""


class NotReady(BtcError):
    """There is no live result yet, or only one from features that are too old."""


class InvalidInput(BtcError):
    """A request or a file of a user is wrong; the message names the field and the fix."""


class StackError(BtcError):
    """The native stack cannot start or does not answer; the message names the part and says what to do."""
