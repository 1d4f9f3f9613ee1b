"""Programs that print a figure and the reference it is compared with."""
