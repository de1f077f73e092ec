"""The sentence about an encrypted connection that failed, for every server that is reached by TLS.

What does not belong here: how a client notices that (`kafka_connection`, `questdb_connection`, `redis_connection`, `s3`).
"""

from __future__ import annotations


def tls_failure(where: str, ca_file: str, variable: str, error: object) -> str:
    """What went wrong and which authority is expected; `variable` is the setting of the authority's file."""
    authority = f"the authority in {ca_file}" if ca_file else "an authority that this machine knows"
    return (
        f"the encrypted connection to {where} failed; its certificate must come from {authority} ({variable}) "
        f"and name the host: {error}"
    )
