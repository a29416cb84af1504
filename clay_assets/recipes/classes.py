"""The land-cover classes that a recipe's rules can name."""

import re

# Code → name. Codes: ESA WorldCover 10 m 2021 v200 product user manual, table 1. Names: the published MGRS samples.
WORLDCOVER_CLASSES = {
    10: "Tree cover",
    20: "Shrubland",
    30: "Grassland",
    40: "Cropland",
    50: "Built-up",
    60: "Bare / sparse vegetation",
    70: "Snow and Ice",
    80: "Permanent water bodies",
    90: "Herbaceous wetland",
    95: "Mangroves",
    100: "Moss and lichen",
}
# Code → name in snake case, for columns and fields such as those of the chip index.
WORLDCOVER_FIELDS = {code: "_".join(re.findall("[a-z]+", name.lower())) for code, name in WORLDCOVER_CLASSES.items()}
DIVERSITY = "Diversity"  # not a class: tiles are ranked by the number of classes present
