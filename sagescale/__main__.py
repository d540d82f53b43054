"""``python -m sagescale`` is the ``sagescale`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interruption is one word, while it is still being imported as well."""
    try:
        from sagescale.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
