"""Access to hosts: addresses (`locations`), access to sources (`access`, `signing`), HTTP (`http`), S3 (`s3`, the only
client factory), and the retry policy (`retries`). Formats are handled in `sources` and `storage`.
"""
