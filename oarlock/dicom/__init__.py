"""DICOM bytes: elements, codestreams, patient attributes. Knows no CT and no RTSTRUCT."""
