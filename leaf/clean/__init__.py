"""Which images are copies of which: hashes, distances, near copies, groups, and what becomes of each image.

Pure functions over the memory map of all images; nothing here ever holds them all in memory.
"""
