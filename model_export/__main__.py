"""python -m model_export COMMAND.

``docs/model.md`` has the commands in the order in which a model is made; ``--help`` lists them all.
"""

from model_export.cli import main

main()
