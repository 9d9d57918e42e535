"""Data sets as documents.

DICOM JSON (PS3.18 F) and, of small ones, native DICOM XML (PS3.19 A.1).
"""

import warnings
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from service.dicomweb.kept import BULK

JSON: Final = "application/dicom+json"
XML: Final = "application/dicom+xml"


def to_json(dataset: Dataset, bulk_address: str | None = None) -> dict[str, Any]:
    """A data set as an object of DICOM JSON.

    A value that is not valid for its VR is left out.

    :param bulk_address: where the bulk data of the instance are, but for the tag; without it they are left out.
    """
    found = {tag: dataset.pop(tag) for tag in BULK if tag in dataset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a sender wrote is handed on as far as it can be told
        document: dict[str, Any] = dataset.to_json_dict(suppress_invalid_tags=True)
    if bulk_address is not None:
        document |= {
            f"{tag:08X}": {"vr": "OB" if element.VR == "OB or OW" else element.VR, "BulkDataURI": f"{bulk_address}/{tag:08X}"}
            for tag, element in found.items()
        }
    return document


def to_xml(dataset: Dataset) -> bytes:
    """A data set in the Native DICOM Model.

    It holds strings, numbers and sequences.
    """
    body = _attributes(dataset)
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">{body}</NativeDicomModel>'.encode()


def _attributes(dataset: Dataset) -> str:
    texts = []
    for element in dataset:
        tag = f"{int(element.tag):08X}"
        if element.VR == "SQ":
            items = [f'<Item number="{i}">{_attributes(item)}</Item>' for i, item in enumerate(element.value, start=1)]
        else:
            values = element.value if element.VM > 1 else [element.value]
            items = [f'<Value number="{i}">{escape(str(value))}</Value>' for i, value in enumerate(values, start=1)]
        keyword = quoteattr(keyword_for_tag(element.tag))
        texts.append(f'<DicomAttribute tag="{tag}" vr="{element.VR}" keyword={keyword}>{"".join(items)}</DicomAttribute>')
    return "".join(texts)
