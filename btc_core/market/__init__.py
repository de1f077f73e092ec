"""Market data: frames, the events in them, messages of the log, the order book, trade continuity and minute bars."""
