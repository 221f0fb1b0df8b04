"""Audit a model: test for shortcuts, domain shift, leakage and unknown classes."""
