"""What stops a way back.

A module of its own, as the steps import it.
"""


class RollBackRefused(RuntimeError):
    """An older version would misread what the database holds.

    :param schema: the last step that it cannot go back to.
    :param why: what it holds.
    """

    def __init__(self, schema: str, why: str) -> None:
        super().__init__(f"the database cannot go back to schema {schema}: {why}; restore the backup of that time instead")
