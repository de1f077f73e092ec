"""Market data: frames and their checks, events, the order book, the continuity of trade ids, and minute bars."""
