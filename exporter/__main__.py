"""`python -m exporter` is `export-mobile`."""

import sys
from pathlib import Path


def _leave_current_directory_for_main() -> None:
    """Python puts the current folder first on the path for -m: nothing in it may be imported.

    Where the package itself is there, it comes last, after the installed packages.
    """
    here = {"", str(Path.cwd())}
    sys.path[:] = [entry for entry in sys.path if entry not in here]
    home = str(Path(__file__).parents[1])
    if home not in sys.path:
        sys.path.append(home)


if __name__ == "__main__":
    _leave_current_directory_for_main()
    from exporter.cli import main

    main()
