"""Names that no code uses; uses in tests do not count.

python -m tools.dead_names

vulture finds them. Two kinds of its findings say nothing here and are left out: attributes (DICOM keywords, options of
libraries) and lower-case variables (members of documents that other programs read).
"""

import sys
from collections.abc import Iterator

from vulture.core import Item, Vulture

SEARCHED = ("oarlock", "service", "worker", "gateway", "model_export", "benchmarks", "tools")
CALLED_BY_DECORATOR = ["@reads", "@*.post", "@*.delete", "@*validator", "@*.connect", "@*.task", "@compiles"]
KEPT = [
    "process_bind_param",  # SQLAlchemy calls it
    "process_result_value",
    "settings_customise_sources",  # pydantic calls it
    "redirect_request",  # urllib calls it
    "http_open",
    "https_open",
    "mutation_positions",  # cosmic-ray calls it
    "mutate",
    "pytest_*",  # pytest calls them
    "_Body",  # an annotation in quotes
    "exec_module",  # the import system calls it
    "upload_file",  # uvicorn is told its name, benchmarks/upload.py
    "oarlock",
    "loss_of_sample",  # the definition that the fast loss is held against
    "put",  # tests place organs with it
]


def dead_names() -> Iterator[Item]:
    search = Vulture(ignore_decorators=CALLED_BY_DECORATOR, ignore_names=KEPT)
    search.scavenge(SEARCHED, exclude=["*/migrations/versions/*"])
    return (item for item in search.get_unused_code() if _tells(item))


def _tells(item: Item) -> bool:
    return bool(item.typ != "attribute" and (item.typ != "variable" or item.name.isupper()))


def main() -> int:
    found = list(dead_names())
    for item in found:
        print(f"{item.filename}:{item.first_lineno}: {item.typ} {item.name} is used nowhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
