"""A SeaweedFS with what Amazon's store has and the packaged stack does not need: buckets in host names, encryption, and roles.

What does not belong here: the store of the native stack (`stack.servers.seaweedfs`), whose arguments it has besides its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import httpx

from stack.ports import InternalPorts, free_ports
from stack.servers import seaweedfs
from tests.waiting import wait_for

ROLE = "arn:aws:iam::role/LakeRole"
_KEYS = {"access_key": "btc", "secret_key": "a secret of the full store"}
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_IDENTITIES = {
    "identities": [
        {
            "name": "btc",
            "credentials": [{"accessKey": _KEYS["access_key"], "secretKey": _KEYS["secret_key"]}],
            "actions": _ACTIONS,
        }
    ],
    "kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}},
}
_POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]}
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}],
}
_ROLES = {
    "sts": {
        "tokenDuration": "1h",
        "maxSessionLength": "12h",
        "issuer": "btc-test",
        "signingKey": "dGVzdC1zaWduaW5nLWtleS0zMi1jaGFyYWN0ZXJzLWxvbmc=",
    },
    "policy": {"defaultEffect": "Deny", "storeType": "memory"},
    "policies": [{"name": "Lake", "document": _POLICY}],
    "roles": [{"roleName": "LakeRole", "roleArn": ROLE, "trustPolicy": _TRUST, "attachedPolicies": ["Lake"]}],
}


class FullStore:
    """Runs on ports of its own for the length of a block; `keys` are those that it takes."""

    keys = _KEYS

    def __init__(self) -> None:
        ports = free_ports()
        self.port: int = ports["store"]
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = Path(tempfile.mkdtemp(prefix="btc-store-"))
        internal = InternalPorts(**{name: port for name, port in ports.items() if name in InternalPorts.model_fields})
        (self._home / "data").mkdir()
        (self._home / "s3.json").write_text(json.dumps(_IDENTITIES))
        (self._home / "iam.json").write_text(json.dumps(_ROLES))
        self._command = [
            seaweedfs._weed(),
            *seaweedfs._arguments(self._home, self._home / "s3.json", self._home, self.port, internal),
            "-s3.domainName=localhost",
            f"-s3.iam.config={self._home / 'iam.json'}",
        ]

    def __enter__(self) -> Self:
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, "HOME": str(self._home), "WEED_S3_SSE_KEK": os.urandom(32).hex()},
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, "the store with roles and encryption")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def has_on_disk(self, words: bytes) -> bool:
        """Whether a volume of the store holds these bytes as they are."""
        return any(words in file.read_bytes() for file in (self._home / "data").rglob("*.dat"))

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "log").read_text(errors="replace")[-2000:]
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5.0).is_success
        except httpx.HTTPError:
            return False
