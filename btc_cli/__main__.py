"""`python -m btc_cli`: the same as `btc`."""

from __future__ import annotations

from btc_cli.app import main

if __name__ == "__main__":
    main()
