"""Runs the command line as `python -m btc_cli`."""

from __future__ import annotations

from btc_cli.app import main

if __name__ == "__main__":
    main()
