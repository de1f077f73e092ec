"""What must run around us: the native servers, the exchange simulator and the `btc` command.

What does not belong here: anything the workers, the API or the assets import. They are started as processes.
"""
