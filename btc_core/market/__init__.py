"""Market data: frames and their checks, the events they hold, the order book, trade continuity and minute bars."""
