"""Audit: what else than the leaf could tell the label, and does it hold elsewhere?"""
