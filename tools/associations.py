"""Write what the gateway offers on associations into docs/gateway.md, from the code.

python -m tools.associations
"""

import sys
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from gateway.dimse.contexts import offered
from tools import marked

PAGE: Final = Path(__file__).parents[1] / "docs" / "gateway.md"
NAME: Final = "associations"


def table() -> str:
    """A table of services, SOP classes, roles and transfer syntaxes.

    As in PS3.2, "AE Specifications".
    """
    rows = ["| service | SOP class | UID | role | transfer syntaxes |", "| --- | --- | --- | --- | --- |"]
    syntaxes: dict[tuple[str, ...], str] = {}
    for one in offered():
        uids = tuple(str(uid) for uid in one.transfer_syntaxes)
        named = syntaxes.setdefault(uids, chr(ord("A") + len(syntaxes)))
        name = one.sop_class.name.removesuffix(" SOP Class")
        rows.append(f"| {one.service} | {name} | `{one.sop_class}` | {one.role} | {named} |")
    lists = ["| | transfer syntaxes |", "| --- | --- |"]
    lists += [f"| {named} | {'<br/>'.join(f'{UID(uid).name} `{uid}`' for uid in uids)} |" for uids, named in syntaxes.items()]
    return "\n".join([*rows, "", *lists])


def main() -> int:
    marked.write(PAGE, NAME, table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
