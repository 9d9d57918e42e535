"""DICOM bytes: elements, tags, encodings, codestreams, patient attributes. May not know what a CT or an RTSTRUCT means."""
