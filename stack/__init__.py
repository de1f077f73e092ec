"""The native stack: it starts and supervises the servers, the workers and the API on one machine.

What does not belong here: anything that the workers, the API or the assets import. The stack starts them as processes.
"""
