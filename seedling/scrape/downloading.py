"""The connections themselves, as parts of Scrapy: to judged addresses alone, with limits on what comes back, and secrets for one site alone."""

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

from seedling.scrape.addresses import PRIVATE, JudgedHosts, judged_hosts, proxy_hosts
from seedling.scrape.limits import SOURCE_TOO_LARGE, LimitExceeded, ReceivedBytes
from seedling.scrape.secret_values import SecretValues

MAX_HEADER_BYTES = 65_536  # of one answer, with its status line and the 1xx answers before it
HEADERS_TOO_LARGE = "too_many_header_bytes"


class Refused(IgnoreRequest):  # type: ignore[misc]
    """A request that is not made, or not made again; the message is the reason code."""


@implementer(IHostResolution)
class Resolution:
    """One resolution of a name, for Twisted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """The answer is ignored then."""


@implementer(IHostnameResolver)
class JudgingResolver:
    """Twisted's resolver: gives the one address that was judged, and none for a host that may not be asked."""

    def __init__(self, hosts: JudgedHosts, proxies: Iterable[str], reactor: Any) -> None:
        self._hosts, self._proxies, self._reactor = hosts, JudgedHosts(proxies), reactor

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> JudgingResolver:
        """Scrapy's own way of making a resolver."""
        return cls(judged_hosts(crawler.settings["SEEDLING_PRIVATE_HOSTS"]), proxy_hosts(), reactor)

    def install_on_reactor(self) -> None:
        """Every connection to a name goes through it."""
        self._reactor.installNameResolver(self)

    def resolveHostName(  # noqa: N802  (Twisted names it so)
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Tells the receiver of the address, if there is one."""
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        async def judge() -> None:
            hosts = self._proxies if self._proxies.allows(hostName.lower()) else self._hosts
            try:
                address = (await hosts.judge(hostName)).address
                if address is not None:
                    kind = IPv6Address if ":" in address else IPv4Address
                    resolutionReceiver.addressResolved(kind(transportSemantics, address, portNumber))
            finally:
                resolutionReceiver.resolutionComplete()

        Deferred.fromCoroutine(_awaited(judge))
        return resolution


async def _awaited(judge: Callable[[], Any]) -> None:
    """A coroutine of asyncio's within one of Twisted's."""
    await Deferred.fromFuture(asyncio.ensure_future(judge()))


class Limited:
    """What Scrapy's handlers get on top. Requests carry the names of variables until they leave, and answers when they are back, so that no
    log, no error and no file of the crawl has a value.
    """

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)  # type: ignore[call-arg]  # of Scrapy's handler, beside which this class stands
        spider = crawler.spider
        self._secrets: SecretValues = spider.secrets
        self._received: ReceivedBytes = spider.received
        self._hosts = judged_hosts(crawler.settings["SEEDLING_PRIVATE_HOSTS"])
        pool: Any = self._pool  # type: ignore[attr-defined]
        pool._factory = limited_factory(pool._factory, self._received)

    async def download_request(self, request: Request) -> Response:
        """Raises Refused for what is over a limit, and for a host that turned out to be private as the connection was made."""
        if self._received.exhausted:
            raise Refused(SOURCE_TOO_LARGE)
        sent = self._with_values(request)
        try:
            response = await super().download_request(sent)  # type: ignore[misc]
        except CannotResolveHostError as error:
            if (await self._hosts.judge(urlsplit(sent.url).hostname or "")).reason == PRIVATE:
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
    """Scrapy's own handler of HTTP, with the limits."""


class MaskAnswers:
    """Downloader middleware outside of decompression and inside of the cache: sites repeat a token in their answers, as in the next page's address."""

    def __init__(self, crawler: Any) -> None:
        self._secrets: SecretValues = crawler.spider.secrets

    @classmethod
    def from_crawler(cls, crawler: Any) -> MaskAnswers:
        """Scrapy's own way of making a middleware."""
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        """The answer without the values, where it is a text."""
        if not self._secrets or not isinstance(response, TextResponse) or "cached" in response.flags:
            return response
        body = self._secrets.masked_bytes(response.body)
        return response if body == response.body else response.replace(body=body)


def limited_factory(factory: Any, received: ReceivedBytes) -> Any:
    """A factory of connections as the given one, which end where a head is too large or the source has brought too much."""

    class Limits(factory):  # type: ignore[misc]
        def buildProtocol(self, address: Any) -> Any:  # noqa: N802  (Twisted names it so)
            protocol = super().buildProtocol(address)
            _limit(protocol, received)
            return protocol

    return Limits


def _limit(protocol: Any, received: ReceivedBytes) -> None:
    take_data, ask = protocol.dataReceived, protocol.request

    def request(asked: Any) -> Any:
        answer = ask(asked)
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
    """Counts a head's lines as they come. The parser's error, raised within it, ends the connection."""
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
    """The limit that an error tells of, somewhere among its causes."""
    while error is not None:
        if isinstance(error, LimitExceeded):
            return error
        for reason in getattr(error, "reasons", None) or ():
            if isinstance(getattr(reason, "value", None), LimitExceeded):
                return reason.value  # type: ignore[no-any-return]
        error = error.__cause__
    return None
