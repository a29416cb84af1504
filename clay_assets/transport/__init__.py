"""Reaching hosts: addresses (`locations`), how a source is accessed (`access`, `signing`), HTTP (`http`), S3 (`s3`, the
one client factory), and the one retry policy (`retries`). What the bytes mean belongs to `sources` and `storage`.
"""
