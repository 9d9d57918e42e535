"""Aliases of array types, one for each dtype."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Int16Array = npt.NDArray[np.int16]
IndexArray = npt.NDArray[np.intp]
"""Whole numbers that index other arrays."""

Mask = npt.NDArray[np.bool_]
