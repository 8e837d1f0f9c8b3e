"""Fetching `{"url": …}` before the 202: only public addresses (or listed ranges), few redirects, little time, counted bytes."""

import asyncio

import aiohttp
from yarl import URL

from eyeline.core.errors import InputError, TooLarge
from eyeline.core.netguard import check_url, guarded_session, refusal

TOTAL = 5.0  # seconds for everything, redirects included
REDIRECTS = 3
AT_ONCE = 16
CHUNK = 65_536


class Fetcher:
    """Fetches pictures from URLs that callers give. `allow` lists CIDR ranges that may be reached although private."""

    def __init__(self, allow: list[str], max_bytes: int) -> None:
        self._allow = allow
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str) -> bytes:
        """The bytes behind `url`. Raises InputError (`url_refused`, the same for all refusals; `fetch_failed`) and TooLarge."""
        check_url(url, allow=self._allow)
        if self._session is None:
            self._session = guarded_session(self._allow, total=TOTAL)
        try:
            async with self._places, asyncio.timeout(TOTAL):
                return await self._follow(self._session, url)
        except TimeoutError as error:
            raise _failed(f"it took more than {TOTAL:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise refusal() from error  # refused or dead: the same words, so that nothing inside can be mapped
        except (aiohttp.ClientError, OSError) as error:
            raise _failed(f"the transfer broke ({type(error).__name__})") from error

    async def close(self) -> None:
        """Give back connections."""
        if self._session is not None:
            await self._session.close()

    async def _follow(self, session: aiohttp.ClientSession, url: str) -> bytes:
        for _ in range(REDIRECTS + 1):
            async with session.get(URL(url), allow_redirects=False) as answer:
                if answer.status not in {301, 302, 303, 307, 308}:
                    return await self._read(answer)
                url = str(answer.url.join(URL(answer.headers.get("Location", ""))))
            check_url(url, allow=self._allow)
        raise _failed(f"it redirects more than {REDIRECTS} times")

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status != 200:
            raise _failed(f"it answers {answer.status}")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _failed("it answers compressed although asked not to")
        chunks: list[bytes] = []
        size = 0
        async for chunk in answer.content.iter_chunked(CHUNK):
            size += len(chunk)
            if size > self._max_bytes:
                raise TooLarge(f"the picture behind the URL is over {self._max_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


def _failed(why: str) -> InputError:
    return InputError(f"the URL could not be fetched: {why}", code="fetch_failed")
