"""Real servers on loopback for the tests: a STAC API, S3, static files, and a proxy that makes them fail.

Nothing here imitates a server's behaviour; the programs are the ones that run in production. Nothing here is
imported by `clay_assets`.
"""
