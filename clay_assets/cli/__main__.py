"""`python -m clay_assets.cli`."""

from clay_assets.cli import main

main(prog_name="clay-assets")
