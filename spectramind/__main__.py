"""`python -m spectramind` and the `spectramind` command: hands over to the command line in `flows`."""

from __future__ import annotations

from flows.cli import main

if __name__ == "__main__":
    main()
