"""python -m model_export prepare | train | calibrate | evaluate | look | export | import."""

from model_export.cli import main

main()
