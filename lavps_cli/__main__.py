"""python -m lavps_cli."""

from lavps_cli.cli.main import main

main()
