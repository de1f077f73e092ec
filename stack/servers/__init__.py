"""How each server is installed, configured, started and asked whether it is healthy: one module a server.

What does not belong here: the order of starting, supervision, tables and topics.
"""
