"""Callbacks of the Kafka client whose errors are kept until the client has returned.

```
callbacks = Callbacks()
consumer.subscribe([topic], on_assign=callbacks.keeping(assign))
message = consumer.poll(1.0)
callbacks.raise_kept()
```

The client (confluent-kafka 2.16) raises an error of Kafka that leaves a callback as an object that is no exception: no `except` catches
it, so the process would end. What does not belong here: what follows from an error (`worker`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, TopicPartition

    Callback = Callable[[Consumer, list[TopicPartition]], None]


class Callbacks:
    """The callbacks of one consumer after the other, and the error of the last one that failed."""

    def __init__(self) -> None:
        self._error: KafkaException | ServiceError | None = None

    def keeping(self, callback: Callback) -> Callback:
        """A callback that keeps an error of the given one."""

        def call(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                callback(consumer, partitions)
            except (KafkaException, ServiceError) as error:
                self._error = error

        return call

    def raise_kept(self) -> None:
        """Raise the kept error, if there is one."""
        error, self._error = self._error, None
        if error is not None:
            raise error
