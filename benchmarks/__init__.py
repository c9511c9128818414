"""Measurements. One harness for all networks, so that every number in the project was taken in the same way."""
