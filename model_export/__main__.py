"""python -m model_export COMMAND.

The commands are prepare, train, calibrate, evaluate, look, export and import.
"""

from model_export.cli import main

main()
