"""Reading what others wrote: rasters, single files and folders of them, static STAC catalogues.

How hosts are reached is in `transport`; what we write ourselves is in `storage`.
"""
