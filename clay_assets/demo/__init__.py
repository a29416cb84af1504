"""The miniature planet: a small synthetic world on which the unmodified pipeline runs offline and in seconds.

All data are synthetic, so the correct result for every pixel is known. `planet` is the entry point; `grid` and
`landcover` define the tiles and the land cover, `sites` and `calendar` which optical scenes exist; `weather` draws
their quality rasters, `ground` the surface seen by satellites and `aerial` the one seen from aircraft, both from
`materials`; `imagery` writes bands, `items` STAC items, and `optical` combines them. `sentinel_1`, `naip`, `modis` and
`linz` each make the scenes of a platform, `natural_earth` the layers that NAIP is sampled from; `stac` and `truth`
contain what they share. `recipe.toml` is the demo's recipe. The planet's modules import no stage; only `run` does.
"""
