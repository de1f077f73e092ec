"""Models of the league that ship with the package: `btc models add --builtin NAME` copies one into the user's folder."""
