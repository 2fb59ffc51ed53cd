"""The books of an HTTP/2 connection, which h2 keeps: state, windows, header compression. Pure.

h2 is not asked whether a request is proper: it would end the connection for one that is not, and behind a proxy that
connection is everybody's. So it is shown no field of any head.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError

from .http2_frames import FRAME_MAX, GOAWAY, PREFACE, Broken

STREAM_WINDOW = 256 * 1024  # bytes of a body that may be on their way
CONNECTION_WINDOW = 1024 * 1024  # of all
TABLE_MAX = 4096  # bytes of the headers that we remember for a client, whatever it wishes

_SETTING = Struct(">HI")
_UNINDEXED = frozenset([b"set-cookie", b"x-request-id"])  # secret, or never the same twice
_AS_THEY_ARE = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _Decoder:
    """Between h2 and header compression."""

    def __init__(self, most: int) -> None:
        self._decoder = Decoder(most)
        self.fields: list[HeaderTuple] = []

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        try:
            self.fields = list(self._decoder.decode(data, raw=True))
        except OversizedHeaderListError:
            raise Broken(ErrorCodes.ENHANCE_YOUR_CALM) from None
        except HPACKError:
            raise Broken(ErrorCodes.COMPRESSION_ERROR) from None
        return []


class Books(H2Connection):
    """Fed with whole frames, behind the preface."""

    MAX_CLOSED_STREAMS = 256  # that are known to be closed: what comes late for others is an error

    def __init__(self, head_max: int, streams_max: int) -> None:
        """`head_max`: bytes of a head, as a client is told; of twice as many its table of fields is not filled."""
        super().__init__(_AS_THEY_ARE)
        self.decoder = self._heads = _Decoder(2 * head_max)  # type: ignore[assignment]
        self._own = bytearray()  # frames that h2 knows nothing of
        said = {
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_FRAME_SIZE: FRAME_MAX,
            SettingCodes.MAX_HEADER_LIST_SIZE: head_max,
            SettingCodes.MAX_CONCURRENT_STREAMS: streams_max,
        }
        self.local_settings = Settings(client=False, initial_values=said)
        self.initiate_connection()
        # The same, but for the streams: one too many is refused here, it does not end the connection.
        more = {SettingCodes.MAX_CONCURRENT_STREAMS: 2**31 - 1}
        self.local_settings = Settings(client=False, initial_values=said | more)
        self.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self.receive_data(PREFACE)

    @property
    def fields(self) -> list[HeaderTuple]:
        """Of the head that came last."""
        return self._heads.fields

    def table_sizes(self, settings: bytes) -> None:
        """What a SETTINGS frame carries, before h2 reads it: of a setting that is there several times that keeps the
        last value only, and the smallest is to be told, too.
        """
        whole = len(settings) - len(settings) % _SETTING.size
        wished = [
            size for code, size in _SETTING.iter_unpack(settings[:whole]) if code == SettingCodes.HEADER_TABLE_SIZE
        ]
        for size in wished[:-1]:
            self.encoder.header_table_size = size

    def keep_table_small(self) -> None:
        """Of changes in a row the smallest and the last one are told (RFC 7541 4.2). hpack would tell all of them, or
        none if the last was none.
        """
        encoder = self.encoder
        if encoder.header_table_size > TABLE_MAX:
            encoder.header_table_size = TABLE_MAX
        if changes := encoder.table_size_changes:
            encoder.table_size_changes = [min(changes), changes[-1]]
            encoder.header_table.resized = True

    def send_fields(self, number: int, found: Iterable[tuple[bytes, bytes]], end: bool = False) -> None:
        """`send_headers`, of an answer."""
        marked = [NeverIndexedHeaderTuple(*field) if field[0] in _UNINDEXED else HeaderTuple(*field) for field in found]
        self.send_headers(number, marked, end_stream=end)

    def _terminate_connection(self, error_code: ErrorCodes | int) -> None:
        """h2's own goodbye may name a later stream than the one before (RFC 9113 6.8)."""

    def goaway(self, last: int, code: ErrorCodes | int) -> None:
        """h2's own would be the last that it sends."""
        payload = last.to_bytes(4, "big") + int(code).to_bytes(4, "big")
        self._own += len(payload).to_bytes(3, "big") + bytes([GOAWAY, 0, 0, 0, 0, 0]) + payload

    def said(self) -> bytes:
        """All that is to be sent."""
        data, self._own = self.data_to_send() + bytes(self._own), bytearray()
        return data
