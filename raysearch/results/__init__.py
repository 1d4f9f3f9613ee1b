"""What was measured, as a frame, a page, tables and pictures."""
