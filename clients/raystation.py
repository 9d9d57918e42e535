"""RayStation: contour the current examination and import the RTSTRUCT as new ROIs. Not tried in a planning system.

Exports the examination's CT to a folder, posts it, waits, and imports what comes back. Review and approve as any other contours.
"""

import os
import tempfile
import time
from pathlib import Path

import requests
from connect import get_current

SERVER = os.environ["OARLOCK_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ.get('OARLOCK_KEY', '')}"}

patient, case, examination = get_current("Patient"), get_current("Case"), get_current("Examination")

with tempfile.TemporaryDirectory() as folder:
    patient.Save()
    case.ScriptableDicomExport(ExportFolderPath=folder, Examinations=[examination.Name], IgnorePreConditionWarnings=True)
    files = [("files", (f"{i}", path.read_bytes())) for i, path in enumerate(Path(folder).rglob("*.dcm"))]
    answer = requests.post(f"{SERVER}/v1/jobs", files=files, headers=HEADERS, timeout=600)
    answer.raise_for_status()
    job = answer.json()
    while job["state"] in {"queued", "running"}:
        time.sleep(2)
        job = requests.get(SERVER + job["links"]["self"], headers=HEADERS, timeout=60).json()
    if job["state"] != "succeeded":
        raise RuntimeError(job["error"]["detail"] if job["error"] else job["state"])
    incoming = Path(folder, "incoming")
    incoming.mkdir()
    content = requests.get(SERVER + job["links"]["rtstruct"], headers=HEADERS, timeout=60).content
    incoming.joinpath("rtstruct.dcm").write_bytes(content)
    study = {"PatientID": patient.PatientID, "StudyInstanceUID": job["series"]["study_instance_uid"]}
    found = patient.QuerySeriesFromPath(Path=str(incoming), SearchCriterias=study)
    patient.ImportDataFromPath(Path=str(incoming), SeriesOrInstances=found, CaseName=case.CaseName)
