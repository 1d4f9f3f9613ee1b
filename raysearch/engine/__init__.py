"""Carries searches out."""
