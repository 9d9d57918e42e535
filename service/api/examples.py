"""Examples of the documents that several calls answer with."""

from typing import Any, Final

from oarlock import errors
from service.api.openapi import JOB_ID

_HERE: Final = f"/v1/jobs/{JOB_ID}"

QUEUED: Final[dict[str, Any]] = {
    "id": JOB_ID,
    "state": "queued",
    "stage": None,
    "progress": 0.0,
    "queue_position": 3,
    "priority": "normal",
    "label": "plan-4711",
    "attempts": 0,
    "series": {
        "study_instance_uid": "2.25.1001",
        "series_instance_uid": "2.25.1002",
        "frame_of_reference_uid": "2.25.1003",
        "slices": 156,
        "spacing_mm": [2.5, 0.977, 0.977],
    },
    "model": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
    "created_at": "2026-03-05T12:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "warnings": [],
    "error": None,
    "superseded_by": None,
    "reviews": [],
    "deliveries": [],
    "links": {
        "self": _HERE,
        "rtstruct": f"{_HERE}/rtstruct",
        "seg": f"{_HERE}/seg",
        "qa": f"{_HERE}/qa",
        "report": f"{_HERE}/report.html",
        "report_pdf": f"{_HERE}/report.pdf",
        "preview": f"{_HERE}/preview.png",
        "review": f"{_HERE}/review",
        "reviews": f"{_HERE}/reviews",
        "events": f"{_HERE}/events",
        "reference": f"{_HERE}/reference",
        "cancel": f"{_HERE}/cancel",
        "retry": f"{_HERE}/retry",
    },
}
RUNNING: Final = QUEUED | {
    "state": "running",
    "stage": "inferring",
    "progress": 0.42,
    "queue_position": None,
    "attempts": 1,
    "started_at": "2026-03-05T12:00:01.000Z",
}
SUCCEEDED: Final = RUNNING | {
    "state": "succeeded",
    "stage": None,
    "progress": 1.0,
    "finished_at": "2026-03-05T12:00:31.000Z",
    "deliveries": [
        {
            "place": "eclipse",
            "result": "rtstruct",
            "state": "delivered",
            "attempts": 1,
            "note": None,
            "at": "2026-03-05T12:00:33.000Z",
        }
    ],
}
CANCELLED: Final = SUCCEEDED | {"state": "cancelled", "progress": 0.42, "deliveries": []}
COMPARISON: Final[dict[str, Any]] = {
    "definition": "surface-dsc/1",
    "series_instance_uid": "2.25.1002",
    "predicted": {"sop_instance_uid": "2.25.2001", "label": "OARLOCK"},
    "reference": {"sop_instance_uid": "2.25.2002", "label": "CLINICAL"},
    "passed": True,
    "oars": [
        {
            "oar": "Parotid_L",
            "matched_roi": "LT PAROTID",
            "predicted_roi": "Parotid_L",
            "presence": "both",
            "tolerance_mm": 2.85,
            "tolerance_rounded_mm": 2.856,
            "surface_dsc": 0.94,
            "surface_dsc_unrounded": 0.94,
            "volumetric_dsc": 0.87,
            "hausdorff_95_mm": 3.3,
            "hausdorff_mm": 6.1,
            "mean_surface_distance_mm": 0.8,
            "mean_distance_predicted_to_reference_mm": 0.7,
            "mean_distance_reference_to_predicted_mm": 0.9,
            "added_path_length_mm": 120.0,
            "predicted_volume_ml": 30.1,
            "reference_volume_ml": 29.4,
            "volume_ratio": 1.024,
            "centre_distance_mm": 1.2,
            "predicted_slices": 18,
            "reference_slices": 17,
            "one_sided_slice_share": 0.056,
            "reason": None,
            "tolerance_source": "paper",
            "predicted_cut_by_scan": False,
            "reference_cut_by_scan": False,
            "action_levels": {"surface_dsc": 0.85},
            "passed": True,
            "failed": [],
        }
    ],
    "unmatched_reference_rois": ["PTV70"],
    "ambiguous_reference_rois": [],
    "unmatched_predicted_rois": [],
    "ambiguous_predicted_rois": [],
    "warnings": [{"code": "structure_set.roi_partly_used", "detail": "Reference RTSTRUCT: ROI number 7: it has no contours."}],
}
QA_REPORT: Final[dict[str, Any]] = {
    "definition": "surface-dsc/1",
    "series_instance_uid": "2.25.1002",
    "made": {
        "job_id": JOB_ID,
        "created_at": "2026-03-05T12:00:00.000Z",
        "started_at": "2026-03-05T12:00:01.000Z",
        "finished_at": "2026-03-05T12:00:31.000Z",
        "model": {"name": "a-model", "version": "1.0", "sha256": "9f" * 32},
        "software": "Oarlock 0.1.0",
    },
    "grid": {"slices": 186, "rows": 512, "columns": 512, "spacing_mm": {"slices": 2.0, "rows": 0.976562, "columns": 0.976562}},
    "site": "Radiotherapy, St Elsewhere",
    "verdict": "red",
    "organs": [
        {
            "oar": "Brain",
            "verdict": "red",
            "code": "organ.volume",
            "reason": "Brain: too small. 33.8 ml drawn; 1110 ml to 1740 ml is usual, by 19 patients.",
            "other_codes": ["organ.flat_face"],
            "slices": {"best": 141, "first": 132, "last": 150},
        }
    ],
    "tolerances": [{"oar": "Parotid_L", "tolerance_mm": 2.85, "tolerance_rounded_mm": 2.856, "tolerance_source": "paper"}],
    "comparisons": [
        {
            "origin": "supplied",
            "position": 1,
            "returned_at": None,
            "superseded": False,
            "file": f"{_HERE}/references/supplied/1",
            **COMPARISON,
        }
    ],
    "checks": [
        {
            "code": "organ.volume",
            "oar": "Brain",
            "level": "red",
            "reason": "Brain: too small. 33.8 ml drawn; 1110 ml to 1740 ml is usual, by 19 patients.",
            "value": 33.8,
            "low": 1138.0,
            "high": 1697.7,
            "unit": "ml",
            "slices": {"best": 141, "first": 132, "last": 150},
        }
    ],
    "observers": [
        {
            "oar": "Parotid_L",
            "observers": 2,
            "pairs": 1,
            "surface_dsc": {
                "ours": {"lowest": 0.91, "median": 0.925, "highest": 0.94},
                "between": {"lowest": 0.9, "median": 0.9, "highest": 0.9},
            },
            "volumetric_dsc": {
                "ours": {"lowest": 0.85, "median": 0.86, "highest": 0.87},
                "between": {"lowest": 0.84, "median": 0.84, "highest": 0.84},
            },
            "hausdorff_95_mm": {
                "ours": {"lowest": 3.3, "median": 3.6, "highest": 3.9},
                "between": {"lowest": 4.1, "median": 4.1, "highest": 4.1},
            },
            "mean_surface_distance_mm": {
                "ours": {"lowest": 0.8, "median": 0.85, "highest": 0.9},
                "between": {"lowest": 1.0, "median": 1.0, "highest": 1.0},
            },
            "within_observers": True,
            "reason": None,
        }
    ],
    "not_compared": [
        {
            "position": 2,
            "code": errors.FrameOfReferenceMismatch.code,
            "detail": errors.FrameOfReferenceMismatch().detail,
        }
    ],
}

REVIEW: Final = {
    "version": 1,
    "model": "oarlock-hn 1.0.0 (9f9f9f9f9f9f)",
    "hu": [-1016, 40],
    "slices": 2,
    "slice_numbers": [1, 2],
    "z_mm": [0.0, 2.5],
    "drift_mm": None,
    "spacing_mm": [0.977, 0.977],
    "window": {"y": [90, 420], "x": [60, 450], "step": 1},
    "organs": [
        {
            "name": "Parotid_L",
            "colour": "#ffa03c",
            "volume_ml": 30.1,
            "box": [[0, 2], [200, 240], [300, 330]],
            "areas": [800, 760],
            "part": [0, 310],
        }
    ],
    "overlays": [
        {
            "origin": "supplied",
            "position": None,
            "returned_at": None,
            "superseded": False,
            "data": None,
            "organs": [
                {
                    "name": "Parotid_L",
                    "volume_ml": 29.4,
                    "box": [[0, 2], [201, 240], [300, 331]],
                    "areas": [790, 750],
                    "part": [310, 305],
                }
            ],
            "beyond": {
                "Parotid_L": {"predicted": {"count": 12, "part": [615, 60]}, "reference": {"count": 9, "part": [675, 50]}}
            },
        }
    ],
    "images": [[725, 60000], [60725, 61000]],
}
