"""The command line `btc`: its commands, their options, and what they print."""
