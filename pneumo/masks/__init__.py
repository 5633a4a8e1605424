"""Masks and probability maps as arrays: run lengths, overlap, rules, components.

Numpy and OpenCV alone.
"""
