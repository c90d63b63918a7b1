"""Scrapy's connections: only to checked addresses, with limits on what is received, and secrets for one site only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import CannotResolveHostError, IgnoreRequest
from scrapy.http import Headers, Request, Response, TextResponse
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.python.failure import Failure
from twisted.web._newclient import HEADER, STATUS
from zope.interface import implementer

from seedling.scrape.addresses import PRIVATE, HostChecker, host_checker, proxy_hosts
from seedling.scrape.limits import SOURCE_TOO_LARGE, LimitExceeded, ReceivedBytes
from seedling.scrape.secret_values import SecretValues

MAX_HEADER_BYTES = 65_536  # of one answer, with its status line and the 1xx answers before it
HEADERS_TOO_LARGE = "too_many_header_bytes"


class Refused(IgnoreRequest):  # type: ignore[misc]
    """A request that is not sent, or not sent again; the message is the reason code."""


@implementer(IHostResolution)
class Resolution:
    """One resolution of a host name, for Twisted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: the answer is ignored."""


@implementer(IHostnameResolver)
class CheckingResolver:
    """Twisted's resolver: resolves a host to its checked address, and forbidden hosts to no address."""

    def __init__(self, hosts: HostChecker, proxies: Iterable[str], reactor: Any) -> None:
        self._hosts, self._proxies, self._reactor = hosts, HostChecker(proxies), reactor

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> CheckingResolver:
        """Create the resolver. Scrapy calls it."""
        return cls(host_checker(crawler.settings["SEEDLING_PRIVATE_HOSTS"]), proxy_hosts(), reactor)

    def install_on_reactor(self) -> None:
        """Resolve the host names of all connections with this resolver."""
        self._reactor.installNameResolver(self)

    def resolveHostName(  # noqa: N802  (Twisted names it so)
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Tell the receiver the checked address, if there is one."""
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        async def check() -> None:
            hosts = self._proxies if self._proxies.allows(hostName.lower()) else self._hosts
            try:
                address = (await hosts.check(hostName)).address
                if address is not None:
                    kind = IPv6Address if ":" in address else IPv4Address
                    resolutionReceiver.addressResolved(kind(transportSemantics, address, portNumber))
            finally:
                resolutionReceiver.resolutionComplete()

        Deferred.fromCoroutine(_awaited(check))
        return resolution


async def _awaited(check: Callable[[], Any]) -> None:
    """Await an asyncio coroutine within a coroutine of Twisted."""
    await Deferred.fromFuture(asyncio.ensure_future(check()))


class Limited:
    """Adds limits and secrets to Scrapy's download handlers.

    Requests carry the names of environment variables until they are sent, and answers are masked on arrival, so that no
    log, error or file of the crawl has a secret's value.
    """

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)  # type: ignore[call-arg]  # of Scrapy's handler, the other base class
        spider = crawler.spider
        self._secrets: SecretValues = spider.secrets
        self._received: ReceivedBytes = spider.received
        self._hosts = host_checker(crawler.settings["SEEDLING_PRIVATE_HOSTS"])
        pool: Any = self._pool  # type: ignore[attr-defined]
        pool._factory = limited_factory(pool._factory, self._received)

    async def download_request(self, request: Request) -> Response:
        """Send a request. Raises Refused when a limit is exceeded, and for a host whose address is private."""
        if self._received.exhausted:
            raise Refused(SOURCE_TOO_LARGE)
        sent = self._with_values(request)
        try:
            response = await super().download_request(sent)  # type: ignore[misc]
        except CannotResolveHostError as error:
            if (await self._hosts.check(urlsplit(sent.url).hostname or "")).reason == PRIVATE:
                raise Refused(PRIVATE) from error
            raise
        except Exception as error:
            if (limit := _limit_of(error)) is not None:
                raise Refused(str(limit)) from error
            raise
        return self._masked(request, sent, response)

    def _with_values(self, request: Request) -> Request:
        if not self._secrets.sent_to(request.url):
            return request
        headers = {
            name: [self._secrets.in_header(value.decode("utf-8")) if b"${" in value else value for value in values]
            for name, values in request.headers.items()
        }
        body = self._secrets.in_json(request.body) if request.body else request.body
        return request.replace(url=self._secrets.in_address(request.url), headers=headers, body=body)

    def _masked(self, request: Request, sent: Request, response: Response) -> Response:
        if not self._secrets:
            return response
        request.meta.update(sent.meta)
        headers = Headers(
            {name: [self._masked_header(value) for value in values] for name, values in response.headers.items()}
        )
        url = request.url if response.url == sent.url else self._secrets.masked_address(response.url)
        return response.replace(url=url, headers=headers, request=request)

    def _masked_header(self, value: bytes) -> bytes:
        return self._secrets.masked_address(self._secrets.masked_bytes(value).decode("latin-1")).encode("latin-1")


class Downloads(Limited, HTTP11DownloadHandler):  # type: ignore[misc]
    """Scrapy's HTTP handler, with the limits."""


class MaskAnswers:
    """Downloader middleware between decompression and cache that masks secrets in answers.

    Sites repeat a token in their answers, for example in the next page's address.
    """

    def __init__(self, crawler: Any) -> None:
        self._secrets: SecretValues = crawler.spider.secrets

    @classmethod
    def from_crawler(cls, crawler: Any) -> MaskAnswers:
        """Create the middleware. Scrapy calls it."""
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        """Return the answer with secrets masked, if it is text."""
        if not self._secrets or not isinstance(response, TextResponse) or "cached" in response.flags:
            return response
        body = self._secrets.masked_bytes(response.body)
        return response if body == response.body else response.replace(body=body)


def limited_factory(factory: Any, received: ReceivedBytes) -> Any:
    """Return a connection factory whose connections end at a head that is too large, or at the source's byte limit."""

    class Limits(factory):  # type: ignore[misc]
        def buildProtocol(self, address: Any) -> Any:  # noqa: N802  (Twisted names it so)
            protocol = super().buildProtocol(address)
            _limit(protocol, received)
            return protocol

    return Limits


def _limit(protocol: Any, received: ReceivedBytes) -> None:
    take_data, send = protocol.dataReceived, protocol.request

    def request(outgoing: Any) -> Any:
        answer = send(outgoing)
        _limit_head(protocol._parser)
        return answer

    def data_received(data: bytes) -> None:
        try:
            received.add(len(data))
        except LimitExceeded:
            protocol._giveUp(Failure())
            return
        take_data(data)

    protocol.request, protocol.dataReceived = request, data_received


def _limit_head(parser: Any) -> None:
    """Count the bytes of a head's lines as they arrive. An error raised within the parser ends the connection."""
    take_line, count = parser.lineReceived, 0

    def line_received(line: bytes) -> None:
        nonlocal count
        if parser.state in {STATUS, HEADER}:
            count += len(line) + 1
            if count > MAX_HEADER_BYTES:
                raise LimitExceeded(HEADERS_TOO_LARGE)
        take_line(line)

    parser.lineReceived = line_received


def _limit_of(error: BaseException | None) -> LimitExceeded | None:
    """Return the LimitExceeded among an error's causes, if there is one."""
    while error is not None:
        if isinstance(error, LimitExceeded):
            return error
        for reason in getattr(error, "reasons", None) or ():
            if isinstance(getattr(reason, "value", None), LimitExceeded):
                return reason.value  # type: ignore[no-any-return]
        error = error.__cause__
    return None
