"""HTTP to the API server: one session with TLS and credentials, bounded retries, answers as decoded JSON.

Built on ``kubernetes.aio`` for what is hard there (kubeconfig in all its forms, exec plugins, service-account
token refresh, TLS) and nothing of its models or API classes, which cost 27 MiB and 1.3 s to import.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse

from controller.kube.credentials import Credentials
from controller.kube.errors import Forbidden, Unauthorized, Unavailable
from controller.kube.kinds import Raw
from controller.kube.scan import ListScanner, NotAList
from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML; the API server wants the type spelled so

Body: TypeAlias = Raw | list[Raw]
"""An object, or the operations of a JSON patch."""

BACKOFF = (0.1, 0.4, 1.6)
"""Seconds before the second, third and fourth attempt, each times 0.5 to 1.5."""

KEEP_ALIVE = 60.0
"""Seconds an idle connection is kept: a new one costs a TLS handshake; the API server closes after 90 s."""

CONNECTIONS = 16
"""Connections at most; requests beyond wait for one. A hundred cost 25 MiB and are not faster."""

WATCH_SECONDS = 290
"""How long one watch is asked to last; the API server ends it then, and who goes on begins another."""

PIECE = 2**16
"""Bytes of a list that are decoded in one go, unless one object has more: a millisecond or two."""

RETRY_AFTER_LIMIT = 5.0
"""Seconds that a server's Retry-After can make one attempt wait."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server answered; ``retry_after`` in seconds, 0 when it did not say."""

    status: int
    body: Raw
    retry_after: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the request was carried out."""
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """What the server says about a refusal."""
        return str(self.body.get("message") or self.body.get("reason") or f"HTTP {self.status}")


class Transport:
    """One API server, one session. Use from one event loop."""

    def __init__(
        self,
        credentials: Credentials,
        metrics: Metrics,
        *,
        timeout: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Credentials are read at the first request, not here. ``timeout`` is in seconds per attempt, from
        when a connection is free for it: aiohttp would count the wait for one, too."""
        self._credentials = credentials
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 5.0))
        self._sleep = sleep
        self._session: _Session | None = None
        self._retired: _Session | None = None
        self._opening = asyncio.Lock()
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        """End all connections and remove what the credentials left on disk."""
        for session in (self._session, self._retired):
            if session:
                await session.rest.close()
        self._session = self._retired = None
        self._credentials.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
        retry: bool = True,
        keep: Callable[[Raw], Raw] | None = None,
    ) -> Answer:
        """Send one request and read its answer, trying again what did not decide when ``retry`` is set.

        With ``keep`` the answer is a list, which is read item by item: what it returns of each is kept.

        Retried are connection errors, timeouts, 429 and 5xx; credentials are read anew once after a 401.
        Raises Unavailable, Unauthorized or Forbidden; every other status is for the caller to judge.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        request = _Request(method, url, body, content_type, keep)
        delays = iter(BACKOFF if retry else ())
        refused: _Session | None = None
        while True:
            answer, problem, wait = None, "", 0.0
            session = await self._open(refused)
            try:
                async with self._free:
                    answer = await self._attempt(session, request)
            except (aiohttp.ClientError, TimeoutError, OSError, NotAList) as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            if answer is not None:
                if answer.status == 401 and refused is None:
                    refused = session
                    continue
                if answer.status != 429 and answer.status < 500:
                    return _decided(answer, method, path)
                problem, wait = f"HTTP {answer.status}: {answer.message}", answer.retry_after
            delay = next(delays, None)
            if delay is None:
                raise Unavailable(f"the Kubernetes API server does not answer {method} {path}: {problem}")
            log.debug("a request is tried again", extra={"method": method, "path": path, "problem": problem})
            await self._sleep(max(delay * random.uniform(0.5, 1.5), wait))  # noqa: S311  # jitter, not a secret

    async def watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[Raw]:
        """The events of one watch as they come, until the API server ends it, for which there is always a
        reason: begin another where it ended.

        One attempt, on no budget of connections. Raises Unavailable, Unauthorized or Forbidden.
        """
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            **query,
        }
        limit = aiohttp.ClientTimeout(sock_connect=self._timeout.sock_connect, sock_read=WATCH_SECONDS + 30)
        request = _Request("GET", f"{path}?{urlencode(asked)}")
        session = await self._open()
        try:
            response = await self._send(session, request, limit)
            try:
                if response.status != 200:
                    answer = _decided(Answer(response.status, _decode(await response.read())), "GET", path)
                    raise Unavailable(f"the API server refuses to watch {path}: {answer.message}")
                async for line in _lines(response.content.iter_any()):
                    yield _decode(line)
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
            raise Unavailable(f"the watch of {path} broke: {problem}") from error

    async def _attempt(self, session: "_Session", request: "_Request") -> Answer:
        """Send once. Raises what aiohttp raises."""
        began, code = perf_counter(), "error"
        try:
            response = await self._send(session, request, self._limit(request))
            if request.keep is not None and response.status == 200:
                body = await _listed(response, request.keep)
            else:
                body = _decode(await response.read())
            code = str(response.status)
        finally:
            self._metrics.api_request_seconds.labels(request.method, code).observe(perf_counter() - began)
        return Answer(response.status, body, _retry_after(response.headers.get("Retry-After")))

    def _limit(self, request: "_Request") -> aiohttp.ClientTimeout:
        """A list takes as long as it is; between two pieces of it no more time may pass than for others."""
        if request.keep is None:
            return self._timeout
        return aiohttp.ClientTimeout(sock_connect=self._timeout.sock_connect, sock_read=self._timeout.total)

    @staticmethod
    async def _send(
        session: "_Session", request: "_Request", limit: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": request.content_type, "Accept": JSON, "User-Agent": "varve"}
        token = await session.configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        answer: RESTResponse = await session.rest.request(  # type: ignore[no-untyped-call]  # has no annotations
            request.method,
            session.configuration.host + request.url,
            headers=headers,
            body=request.body,
            _request_timeout=limit,
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _open(self, refused: "_Session | None" = None) -> "_Session":
        """The session; a new one, with credentials read anew, when there is none or it was just ``refused``.

        Requests that still run on a refused session finish there; it is closed when the next one is retired.
        """
        async with self._opening:
            if self._session is None or self._session is refused:
                if refused:
                    log.info("the API server refused the credentials; reading them anew")
                fresh = await self._credentials.load()
                if self._retired:
                    await self._retired.rest.close()
                self._retired, self._session = self._session, _Session(fresh, _Rest(fresh))
            return self._session


class _Rest(RESTClientObject):
    """The session of kubernetes.aio with a longer keep-alive and without per-request look-ups.

    ``trust_env`` makes aiohttp look for proxies and a netrc file in a thread for each request, so it is
    on only where a proxy is configured in the environment.
    """

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self.ssl_context, keepalive_timeout=KEEP_ALIVE)

    def _create_pool_manager(self) -> aiohttp.ClientSession:
        proxied = any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ)
        return aiohttp.ClientSession(
            connector=self._create_connector(),
            trust_env=proxied,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        )


def _decided(answer: Answer, method: str, path: str) -> Answer:
    if answer.status == 401:
        raise Unauthorized(f"the API server refuses the credentials for {method} {path}: {answer.message}")
    if answer.status == 403:
        raise Forbidden(f"the API server refuses {method} {path}: {answer.message}")
    return answer


async def _listed(response: aiohttp.ClientResponse, keep: Callable[[Raw], Raw]) -> Raw:
    """The list, with what is kept of each item. Raises NotAList, and what aiohttp raises."""
    scanner = ListScanner()
    try:
        items = [item async for item in kept_items(response.content.iter_any(), scanner, keep)]
    except BaseException:
        response.close()  # what has not been read would be taken for the answer to the next request
        raise
    return {**scanner.rest, "items": items}


async def kept_items(
    chunks: AsyncIterator[bytes], scanner: ListScanner, keep: Callable[[Raw], Raw]
) -> AsyncIterator[Raw]:
    """What is kept of each item of a list, as it comes; others have a turn after each piece."""
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            for item in scanner.feed(chunk[start : start + PIECE]):
                yield keep(item)
            await asyncio.sleep(0)
    for item in scanner.end():
        yield keep(item)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of any length (aiohttp's own reader refuses those of large objects)."""
    rest: list[bytes] = []
    async for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*rest, line))
            rest = []
        if last:
            rest.append(last)


def _decode(payload: bytes) -> Raw:
    """A JSON object as it is; anything else (a proxy's HTML page) as its text under ``message``."""
    try:
        value = json.loads(payload) if payload else {}
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"message": payload[:200].decode(errors="replace")}


def _retry_after(header: str | None) -> float:
    """Seconds asked for by ``Retry-After``; 0 for none, or a date, which the API server never sends."""
    return min(float(header), RETRY_AFTER_LIMIT) if header and header.isdecimal() else 0.0


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    body: Body | None = None
    content_type: str = JSON
    keep: Callable[[Raw], Raw] | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    configuration: Configuration
    rest: _Rest
