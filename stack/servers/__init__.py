"""How each server is configured, started and checked: one module per server, and one for our own programs.

What does not belong here: the order of starting, supervision, tables and topics.
"""
