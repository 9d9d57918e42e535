"""DICOMweb (PS3.18): series are stored here to be contoured, and what is kept of finished jobs is found and retrieved."""
