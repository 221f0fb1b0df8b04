"""Audit a model: does it use anything besides the leaf, and does it generalize to other data?"""
