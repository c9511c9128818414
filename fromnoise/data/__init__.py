"""Recordings: reading and writing files, data sets, mixtures and synthetic sounds."""
