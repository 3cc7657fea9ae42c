"""Data sets of image files: what lists the files, and what decodes them once and keeps the pixels."""
