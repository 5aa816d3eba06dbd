"""The report of a checkpoint: what was measured of it and some of what it draws, on one page of HTML."""
