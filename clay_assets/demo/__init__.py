"""The miniature planet: a small made-up world that the unchanged pipeline runs on, offline and in seconds.

Everything here is drawn, nothing is observed, and the right answer for every pixel is known. `planet` is the entry
point; `grid` and `landcover` draw the ground, `sites` and `calendar` say which scenes exist, `weather` draws their
quality rasters, `items` writes their STAC items. Nothing here reads or imports a stage of the pipeline.
"""
