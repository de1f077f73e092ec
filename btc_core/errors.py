"""Every error this project raises on purpose, as one tree.

```
BtcError
├── ConfigError          a setting is missing, malformed or contradicts another
├── BadFrame             an exchange frame that cannot be used; goes to the dead letters with its reason
├── ContinuityError      a worker met something about its own state that it cannot explain; it stops
├── SchemaError          a row, table or bundle of another feature set or layout
├── ServiceError         a server we depend on refused or did not answer
│   ├── QuestDBError
│   ├── ExchangeError    the exchange refused or did not answer
│   │   ├── SubscriptionRefused   it will not stream what the settings ask for
│   │   └── NotOffered            it has no such thing
│   └── StoreError       the object store or the model registry
├── NotReady             asked for a forecast before there is one, or with stale features
├── InvalidInput         a request or file given by a person; the message names the field
└── StackError           the native stack cannot start: port, download, disk, memory
```

What does not belong here: exceptions of libraries. They are translated where they can be acted on, and only there.
"""

from __future__ import annotations


class BtcError(Exception):
    """The root: `except BtcError` catches what this project raises on purpose and nothing else."""


class ConfigError(BtcError):
    """A setting is missing, malformed or contradicts another."""


class BadFrame(BtcError):
    """An exchange frame that cannot be used.

    `reason` is a short stable code for counting, the message says what was wrong with which field.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class ContinuityError(BtcError):
    """A worker met something about its own state that it cannot explain; it stops instead of guessing."""


class SchemaError(BtcError):
    """A row, table or model bundle that belongs to another feature set or layout."""


class ServiceError(BtcError):
    """A server we depend on refused a request or did not answer."""


class QuestDBError(ServiceError):
    """QuestDB refused a statement or a batch of rows."""


class ExchangeError(ServiceError):
    """The exchange refused a request or a subscription."""


class SubscriptionRefused(ExchangeError):
    """The exchange will not stream what the settings ask for; a setting must change, waiting does not help."""


class NotOffered(ExchangeError):
    """The exchange has no such thing; another way must be taken, waiting does not help."""


class StoreError(ServiceError):
    """The object store or the model registry refused a request."""


class NotReady(BtcError):
    """Asked for something live before there is any, or with features that are too old."""


class InvalidInput(BtcError):
    """A request or a file given by a person is wrong; the message names the field and the fix."""


class StackError(BtcError):
    """The native stack cannot start or answer; the message names the part and says what to do."""
