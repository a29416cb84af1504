"""Real servers on loopback for the tests: a STAC API, S3, static files, and a proxy that injects faults.

No server is mocked; the programs are those that run in production. `clay_assets` does not import this package.
"""
