"""Reads external data: rasters, files, folders and static STAC catalogues.

Access to hosts is in `transport`; our own files are in `storage`.
"""
