"""``python -m sagescale`` is the ``sagescale`` command."""

from sagescale.cli.app import main

if __name__ == "__main__":
    main()
