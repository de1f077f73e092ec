"""WebSocket v2: the text of each frame, the channels of a symbol, clients and their queues, and the ledger."""
