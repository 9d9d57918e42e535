"""python -m model_export prepare | train | evaluate | export."""

from model_export.cli import main

main()
