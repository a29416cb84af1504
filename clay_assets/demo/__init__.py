"""The miniature planet: a small made-up world that the unchanged pipeline runs on, offline and in seconds.

Everything here is drawn, nothing is observed, and the right answer for every pixel is known. `planet` is the entry
point; `grid` and `landcover` say what lies where, `sites` and `calendar` which optical scenes exist; `weather` draws
their quality rasters, `ground` what satellites see below the clouds and `aerial` what aeroplanes see, both from
`materials`; `imagery` writes bands, `items` STAC items, `optical` puts them together. `sentinel_1`, `naip`, `modis` and
`linz` make the scenes of a platform each, `natural_earth` what NAIP is sampled from, `stac` and `truth` what all of
them have in common. `recipe.toml` is what the demo samples. Nothing here reads or imports a stage of the pipeline.
"""
