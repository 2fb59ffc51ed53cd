"""What an HTTP request is refused for: one table, of which docs/HTTP.md shows every row and the tests try every row.

Where a specification leaves a choice, the choice is to refuse: what two parsers may read in two ways is how a request
is smuggled past the one that checks it.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    status: int
    section: str  # of RFC 9110 or 9112 that it follows from
    reason: str  # sent to the client: with the limit that it names filled in, never with what the client sent


RULES = {
    # ---- the lines of the head
    "line-end": Rule(400, "9112 2.2", "a line ends with CR LF, and neither stands anywhere else"),
    "request-line-size": Rule(414, "9112 3", "the request line has more than {line} bytes (http.max_line)"),
    "field-size": Rule(431, "9110 5.4", "a header field has more than {line} bytes (http.max_line)"),
    "head-size": Rule(431, "9110 5.4", "the head has more than {head} bytes (http.max_head)"),
    "field-count": Rule(431, "9110 5.4", "there are more than {headers} header fields (http.max_headers)"),
    "control": Rule(400, "9110 5.5", "a control character stands in the head"),
    "non-ascii": Rule(400, "9110 5.5", "a byte that is not ASCII stands in the head"),
    "head-end": Rule(400, "9112 8", "the connection ended within the head"),
    # ---- the request line
    "request-line": Rule(400, "9112 3", "the request line is not: method, space, target, space, HTTP/1.1"),
    "version": Rule(505, "9112 2.3", "over this connection only HTTP/1 is spoken"),
    "method": Rule(400, "9110 9.1", "the method is not a token"),
    "unknown-method": Rule(501, "9110 9.1", "a method is up to 20 capital letters; CONNECT is not served"),
    "target": Rule(400, "9112 3.2", "the target is neither a path, nor an http address, nor the * of OPTIONS"),
    # ---- header fields
    "folded": Rule(400, "9112 5.2", "a header field goes on in a second line"),
    "no-colon": Rule(400, "9112 5", "a header line has no colon"),
    "no-name": Rule(400, "9112 5", "a header field has no name"),
    "space-before-colon": Rule(400, "9112 5.1", "there is space between a header's name and its colon"),
    "name": Rule(400, "9110 5.1", "a header's name is not a token"),
    # ---- whom it is for
    "no-host": Rule(400, "9112 3.2", "an HTTP/1.1 request has a Host field"),
    "two-hosts": Rule(400, "9112 3.2", "there is more than one Host field"),
    "host": Rule(400, "9112 3.2", "the Host field is not a name or an address, with or without a port"),
    "other-host": Rule(400, "9112 3.2.2", "target and Host field name different hosts"),
    # ---- where its body ends
    "two-framings": Rule(400, "9112 6.1", "there are both Transfer-Encoding and Content-Length"),
    "two-lengths": Rule(400, "9112 6.3", "there is more than one Content-Length"),
    "length": Rule(400, "9110 8.6", "the Content-Length is not a decimal number of up to 19 digits"),
    "two-codings": Rule(400, "9112 6.1", "there is more than one Transfer-Encoding field"),
    "coding": Rule(400, "9112 6.1", "chunked is not the last transfer coding, or not written as one plain word"),
    "unknown-coding": Rule(501, "9112 6.1", "the only transfer coding that is known is chunked"),
    "coding-of-1.0": Rule(400, "9112 6.1", "an HTTP/1.0 request has no Transfer-Encoding"),
    "framing-space": Rule(
        400, "9112 5.1", "there is a tab in a field that says for whom a request is or where it ends"
    ),
    "body-size": Rule(413, "9110 15.5.14", "the body has more than {body} bytes (http.max_body)"),
    "no-room": Rule(503, "9110 15.6.4", "there is no room for a body of this size right now; try again shortly"),
    "expect": Rule(417, "9110 10.1.1", "the only expectation that is known is 100-continue"),
    # ---- the body itself
    "body-end": Rule(400, "9112 8", "the connection ended within the body"),
    "chunk-size": Rule(400, "9112 7.1", "the size of a chunk is not a hexadecimal number of up to 16 digits"),
    "chunk-extension": Rule(400, "9112 7.1.1", "an extension of a chunk is malformed, or there are too many"),
    "chunk-end": Rule(400, "9112 7.1", "a chunk does not end where its size says"),
    "chunk-count": Rule(400, "9112 7.1", "the body comes in too many small chunks"),
    "trailer": Rule(400, "9112 7.1.2", "a trailer field is malformed, or too long, or belongs into the head"),
    # ---- time
    "head-time": Rule(408, "9110 15.5.9", "the head took too long"),
    "body-rate": Rule(408, "9110 15.5.9", "the body comes too slowly"),
}

OF_HTTP_2 = {  # besides those above
    "pseudo": Rule(
        400, "9113 8.3", "the pseudo-header fields are not :method, :scheme, :path, :authority, once and first"
    ),
    "upper-case": Rule(400, "9113 8.2", "a header's name has capital letters"),
    "of-http-1": Rule(400, "9113 8.2.2", "a header field is one of connections of HTTP/1"),
    "field-space": Rule(400, "9113 8.2.1", "a header's value begins or ends with white space"),
    "other-length": Rule(400, "9113 8.1.1", "the Content-Length is not the length of the body"),
}
_ALL = RULES | OF_HTTP_2


class Limits(NamedTuple):
    line: int  # bytes of one line
    head: int  # bytes of all lines, with their ends
    headers: int  # count
    body: int  # bytes, without chunk sizes


class Rejected(Exception):
    """A request that breaks a rule. It is answered with `status` and `sentence`, and its connection closes: where the
    next request would begin is not known.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.status, _, self._reason = _ALL[rule]

    def sentence(self, limits: Limits) -> str:
        return self._reason.format_map(limits._asdict())
