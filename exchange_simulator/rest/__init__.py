"""The public REST API and the published history.

The order to read: `candles`, `api`. What does not belong here: WebSocket (`websocket`), HTTP routes (`http_routes`).
"""
