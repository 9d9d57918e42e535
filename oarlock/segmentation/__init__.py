"""From Hounsfield units to masks: the model's manifest, resampling, slabs, clean-up. Knows no runtime."""
