"""Data and files."""
