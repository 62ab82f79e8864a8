"""`python -m exporter` is `export-mobile`."""

from exporter.cli import main

main()
