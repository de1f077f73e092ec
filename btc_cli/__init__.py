"""The command btc: what a person can type, what each command does, and what it prints."""
