"""A group of hospitals on one machine: several services behind the composition's proxy, workers, sites with keys of their own."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from oarlock.scopes import Scope
from oarlock.store.keys import KeyStore
from tests.fixtures.certificates import Authority
from tests.fixtures.processes import eventually, free_port, listens
from tests.system.department import LINGER, PATIENCE_S, ROOT, Department

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a metric and its labels."""


class Group(Department):
    """Several services, a worker, and the proxy in front of the services.

    :param services: how many.
    :param linger: how long the model takes.
    """

    def __init__(self, folder: Path, *, services: int = 2, linger: int = LINGER, **settings: str) -> None:
        super().__init__(folder, linger=linger, OARLOCK_TRUSTED_PROXIES="127.0.0.1", **settings)
        self.ports = [free_port() for _ in range(services)]
        self.services = [self.program("service", name=f"service-{port}", OARLOCK_PORT=str(port)) for port in self.ports]
        self.authority = Authority(folder, "house")
        self.proxy = Proxy(self)

    def begin(self) -> None:
        """Start everything."""
        self.start_redis()
        for service in self.services:
            self.start_service(service)
        self.start_worker()
        self.proxy.start()
        self.url = self.proxy.url

    def close(self) -> None:
        self.proxy.kill()
        super().close()

    def client(self, token: str | None = None) -> httpx.Client:
        """A caller who comes through the proxy."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.proxy.url, timeout=PATIENCE_S, verify=self.authority.trusted_by_client(), headers=headers
        )

    def key_of(self, site: str) -> str:
        """A new key of a site."""
        return KeyStore(self.database).create(site or "operator", [Scope.JOBS_WRITE, Scope.JOBS_READ], site=site)[1]

    def counted(self, port: int) -> dict[Sample, float]:
        """What one service says that it counted: by name and labels."""
        said = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).raise_for_status().text
        families = text_string_to_metric_families(said)
        return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


class Proxy:
    """nginx with ``docker/proxy/nginx.conf``; the services' own addresses stand for what the engine's name server says."""

    def __init__(self, group: Group) -> None:
        self.port, self._folder = free_port(), group.folder
        pair = group.authority.vouch("server", server=True)
        servers = " ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in group.ports)
        replaced = {
            "worker_processes auto": "worker_processes 1",  # each asks the services in turn by itself
            "/tmp/": f"{self._folder}/nginx-",  # what is replaced first, as the others bring paths below it
            "listen 8443": f"listen 127.0.0.1:{self.port}",
            "/tls/server.pem": str(pair.certificate),
            "/tls/server.key": str(pair.key),
            "resolver 127.0.0.11 valid=5s ipv6=off;": f"upstream services {{ {servers} }}",
            "set $services service;": "",
            "http://$services:8000": "http://services",
            "/tls/": f"{self._folder}/none/",
        }
        text = (ROOT / "docker" / "proxy" / "nginx.conf").read_text()
        for word, other in replaced.items():
            assert word in text
            text = text.replace(word, other)
        (self._folder / "nginx.conf").write_text(f"{'user root;' if os.getuid() == 0 else ''}\n{text}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens; skips the test where there is no nginx."""
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("nginx is not installed (apt-get install nginx-light)")
        command = [program, "-c", self._folder / "nginx.conf", "-g", "daemon off;"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        process = self._process
        assert eventually(lambda: process.poll() is not None or listens(self.port), within_s=60)
        assert process.poll() is None, "nginx does not start"

    def kill(self) -> None:
        """End it; its workers end with it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
