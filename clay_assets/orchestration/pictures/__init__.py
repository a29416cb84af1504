"""One or two small pictures per dataset: what a person looks at first, drawn without a display.

`style` says how all of them look, the other modules draw them: `maps` places, `bars` amounts, `chips` the chip indexes,
`contact_sheet` the chips themselves; `reasons` is a table beside them. Each function returns the bytes of an image,
small enough for the event log. They are called by assets, which import them when they run.
"""
