"""Labels for the scarce OARs: released contours carried over to other scans, where two scans can be laid on each other.

`scans` reads, `coarse` asks a shipped model where the organs are, `eyes` finds the eyes' centres, `registration` lays one scan on
another, `votes` fuses what several atlases say, `make` runs it all, and `judge` measures it on scans whose contours are known.
"""
