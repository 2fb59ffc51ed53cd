"""Raw bytes of hostile and of odd requests: what is refused, for which rule, and what is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from http_rig import LIMITS, Held, Verdict, cut, one_by_one, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.gateway.core.chunks import CHUNK_BYTES, CHUNKS_MAX, EXTENSIONS_MAX, LINE_MAX, TRAILERS_MAX, Chunks
from rota.gateway.core.head import Head, end_of_head, end_to_end, is_host, read
from rota.gateway.core.rules import OF_HTTP_2, RULES, Limits, Rejected
from rota.gateway.core.upload import Upload

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*fields: bytes, line: bytes = GET) -> bytes:
    return line + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def with_host(*fields: bytes) -> bytes:
    return get(b"Host: a", *fields)


def target(text: bytes, method: bytes = b"GET", host: bytes = b"a") -> bytes:
    return method + b" " + text + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def coded(*codings: bytes, body: bytes = WHOLE) -> bytes:
    return POST + b"".join(b"Transfer-Encoding:" + coding + b"\r\n" for coding in codings) + b"\r\n" + body


def measured(*lengths: bytes, body: bytes = b"hello") -> bytes:
    return POST + b"".join(b"Content-Length:" + length + b"\r\n" for length in lengths) + b"\r\n" + body


def sized(size: bytes, rest: bytes = b"\r\nhello\r\n0\r\n\r\n") -> bytes:
    return CHUNKED + size + rest


REFUSED: dict[str, list[bytes]] = {
    "line-end": [
        GET + b"Host: a\n\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET /\rX HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\rX",  # and nothing more: it is not waited for the end of the head
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        GET + b"Host: a\rX: b\r\n\r\n",
        GET + b"Host: a\nX: b\r\n\r\n",
        GET + b"Host: a\r\nX: b\n\r\n",
        GET + b"Host: a\r\n\n",
        GET + b"Host: a\r\n\r\r\n",
        GET + b"Host: a\r\r\n\r\n",
        GET + b"Host: a\r\nX: b\rTransfer-Encoding: chunked\r\n\r\n",
        GET + b"Host: a\r\nX: b\nContent-Length: 5\r\n\r\nhello",
        GET + b"\nHost: a\r\n\r\n",
        b"\rX",  # this is no empty line: nor is it waited for
        b"GET / HTTP/1.1\n" + b"a" * LIMITS.line + b"\r\n\r\n",  # however long what is behind it
        b"GET / HTTP/9.9\r\nFolded\r\n here: b\n\n",  # the line end is what both parsers must agree on: it goes first
    ],
    "request-line-size": [
        b"GET /" + b"a" * (LIMITS.line - 13) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * LIMITS.line,
        b"A" * (LIMITS.line + 1),
        b" " * 100_000,
    ],
    "field-size": [
        with_host(b"X: " + b"a" * (LIMITS.line - 2)),
        GET + b"a" * (LIMITS.line + 1),
        GET + HOST + b"X: " + b"a" * 100_000,
        POST + b"Content-Length: " + b"0" * LIMITS.line + b"1\r\n\r\nh",
    ],
    "head-size": [
        with_host(*[b"X: " + b"a" * 8000] * 5),
        GET + HOST + (b"X: " + b"y" * 400 + b"\r\n") * 1000,
        with_host(*[b"X: " + b"a" * 8000] * 4, b"X: " + b"a" * (LIMITS.head - len(GET + HOST) - 4 * 8005 - 6)),
    ],
    "field-count": [
        with_host(*[b"X: y"] * LIMITS.headers),
        with_host(*[b"X%d:" % at for at in range(1000)]),
        GET + b"X: y\r\n" * 100_000,
    ],
    "control": [
        with_host(b"X: a\0b"),
        with_host(b"X\0: a"),
        with_host(b"X: \x1b[2J"),
        with_host(b"X: \x7f"),
        with_host(b"X: \x0b"),
        with_host(b"X: a\x0c"),
        get(b"Host: a\0"),
        get(b"Host: a\0.evil"),
        target(b"/\0"),
        target(b"/\x01"),
        target(b"/a\x0bb"),
        target(b"/\x7f"),
        b"GET\0/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\0\r\nHost: a\r\n\r\n",
        b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        coded(b" \x0bchunked"),
        coded(b" chunked\x0c"),
        coded(b"\0chunked"),
        coded(b" chunked\x1f"),
        measured(b" \x0b5"),
        measured(b" 5\x00"),
        POST + b"Transfer-Encoding\x1f: chunked\r\n\r\n" + WHOLE,
        POST + b"Content-Length\x0b: 5\r\n\r\nhello",
    ],
    "non-ascii": [
        with_host(b"X: \xff"),
        with_host(b"X: caf\xc3\xa9"),
        with_host(b"X\xc3\xa9: a"),
        with_host(b"\xa0X: a"),
        get(b"Host: \xe4.example"),
        get(b"Host: a\x85"),
        target(b"/caf\xc3\xa9"),
        target(b"/\xa0"),
        target(b"/?q=\xff"),
        b"G\xc3\x8bT / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\xa0/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/\xd9\xa1.1\r\nHost: a\r\n\r\n",
        coded(b" chunked\xa0"),
        coded(b" ch\xc5\xafnked"),
        coded(b" \xc4\xb0dentity"),
        measured(b" \xb2"),
        measured(b" \xd9\xa5"),
        measured(b" 5\x85"),
    ],
    "head-end": [
        b"G",
        b"GET / HTTP/1.1",
        GET,
        GET + b"Host: a",
        GET + b"Host: a\r",
        GET + HOST,
        GET + HOST + b"\r",
        b"\r\nGET",
        b"\r\n\r\n",
        b"GET /\r\n",  # HTTP/0.9
    ],
    "request-line": [
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"GET / \r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET / Http/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.\r\nHost: a\r\n\r\n",
        b"GET / HTTP/.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/11\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        b"GET / HTTP /1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP\\1.1\r\nHost: a\r\n\r\n",
        b"GET / ICY/1.1\r\nHost: a\r\n\r\n",
        b"Host: a\r\n" + GET + b"\r\n",
        b"{}\r\n\r\n",
        b"EHLO a\r\n\r\n",
    ],
    "version": [
        b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version for version in (b"0.9", b"0.1", b"2.0", b"2.1", b"3.0", b"0.0")
    ]
    + [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "method": [
        b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method
        for method in (b"G(T", b"GET:", b'"GET"', b"GE,T", b"{GET}", b"/", b"GET/", b"[", b"G@T", b"G=T")
    ],
    "unknown-method": [
        b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method
        for method in (b"get", b"Get", b"gET", b"G|T", b"-GET", b"1GET", b"A" * 21, b"CONNECT", b"$")
    ]
    + [
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    "target": [
        target(text)
        for text in (
            b"a", b"a:80", b"index.html", b"?", b"?q=1", b"#", b"/#", b"/a#b", b"\\", b"*", b"**", b"*/", b"http:",
            b"http:/a", b"http://", b"http:///", b"http:///x", b"http://?q", b"HTTP://a/", b"ftp://a/", b"file:///etc",
            b"javascript:alert(1)", b"http://user@a/", b"http://user:pw@a/", b"http://a:/", b"http://a:99999/",
            b"http://a\\b/", b"http://[::1/", b"http://a/#x", b"ws://a/", b"../..", b"%2f", b"@a", b":80",
        )
    ] + [target(b"*", b"POST"), target(b"*", b"GET"), target(b"a:443", b"OPTIONS")],
    "folded": [
        with_host(b"X: a", b" b"),
        with_host(b"X: a", b"\tb"),
        with_host(b"X: a", b" "),
        with_host(b"X: a", b"\tContent-Length: 5"),
        with_host(b"X:", b" a"),
        get(b" Host: a"),
        get(b"\tHost: a"),
        get(b" ", b"Host: a"),
        get(b"Host:", b" a"),
        coded(b"\r\n chunked"),
        coded(b" chunked\r\n , identity"),
        measured(b"\r\n 5"),
        measured(b" 5\r\n\t0"),
        POST + b" Transfer-Encoding: chunked\r\n\r\n" + WHOLE,
    ],
    "no-colon": [with_host(b"X"), with_host(b"X a"), get(b"Host"), get(b"Host a"), with_host(b"X=a"), with_host(b"(")],
    "no-name": [with_host(b":"), with_host(b": a"), get(b":Host: a"), get(b":",
    b"Host: a"), with_host(b":status: 200")],
    "space-before-colon": [
        with_host(b"X : a"),
        with_host(b"X\t: a"),
        with_host(b"X  \t : a"),
        get(b"Host : a"),
        POST + b"Content-Length : 5\r\n\r\nhello",
        POST + b"Content-Length\t: 5\r\n\r\nhello",
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + WHOLE,
        POST + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n" + WHOLE,
    ],
    "name": [
        with_host(b"%b: a" % name)
        for name in (b"X Y", b"(X)", b'"X"', b"X,Y", b"X/Y", b"X;Y", b"X[0]", b"X{", b"<X>", b"X@Y", b"X\\Y", b"X?",
        b"X=")
    ]
    + [POST + b"Transfer-Encoding chunked: x\r\n\r\n", POST + b"X Content-Length: 5\r\n\r\nhello"],
    "no-host": [GET + b"\r\n", get(b"X: a"), get(b"X-Host: a"), get(b"Hos: a"), get(b"Hostt: a"),
    target(b"/")[:-11] + b"\r\n"],
    "two-hosts": [
        with_host(b"Host: a"),
        with_host(b"Host: b"),
        with_host(b"HOST: a"),
        with_host(b"host:"),
        get(b"Host:", b"Host: a"),
        with_host(b"X: a", b"hOST:a"),
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    ],
    "host": [
        get(b"Host:" + host)
        for host in (
            b"", b" ", b" a b", b" a,b", b" a, b", b" a/b", b" a/", b" /", b" a@b", b" user:pw@a", b" a#b", b" a?b",
            b" a\\b", b" http://a", b" a:", b" a:b", b" a:80:80", b" a:+80", b" a:-1", b" a:65536", b" a:99999",
            b" a:123456", b" a: 80", b" :80", b" :", b" [", b" []", b" [::1", b" ::1", b" [::1]x", b" [::1]:",
            b" [::g]",
            b" [::1]:x", b" [v1.a]", b" [fe80::1%25eth0]", b" a%2eb", b" 'a'", b' "a"', b" <a>", b" a;b", b" *",
            b" {a}",
            b" " + b"a" * 256, b" a:80 ,b", b" (a)", b" a=b", b" a|b",
        )
    ] + [b"GET / HTTP/1.0\r\nHost:\r\n\r\n", b"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n"],
    "other-host": [
        target(b"http://b/"),
        target(b"http://a:80/"),
        target(b"http://b?x"),
        target(b"https://a.b/"),
        target(b"http://a/", host=b"a:80"),
        b"GET http://a/ HTTP/1.0\r\n\r\n",
    ],
    "two-framings": [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + WHOLE,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + WHOLE,
        POST + b"transfer-encoding: identity\r\ncontent-length: 5\r\n\r\nhello",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\nhello",
        POST + b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello",
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + SMUGGLED + b"\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
        POST + b"Content-Length:\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
    ],
    "two-lengths": [
        measured(b" 5", b" 5"),
        measured(b" 5", b" 6"),
        measured(b" 0", b" 5"),
        measured(b" 5", b""),
        measured(b" 5", b" 05"),
        POST + b"Content-Length: 5\r\nX: y\r\ncONTENT-lENGTH: 5\r\n\r\nhello",
        with_host(b"Content-Length: 0", b"Content-Length: 0"),
    ],
    "length": [
        measured(b" " + length)
        for length in (
            b"", b"-5", b"+5", b"5, 5", b"5,5", b"5,6", b",5", b"5,", b"5 5", b"5;", b"0x5", b"0b1", b"0o5", b"5h",
            b"5.0",
            b"5e0", b"1_0", b"'5'", b'"5"', b"five", b"5 ,5", b"-0", b"- 5", b"5-", b"NaN", b"inf",
            b"99999999999999999999",
            b"18446744073709551616", b"18446744073709551621", b"36893488147419103237", b"1" * 100, b"0" * 19 + b"5",
        )
    ],
    "two-codings": [
        coded(b" chunked", b" chunked"),
        coded(b" chunked", b" identity"),
        coded(b" identity", b" chunked"),
        coded(b" gzip", b" chunked"),
        coded(b" chunked", b""),
        coded(b" x", b" chunked"),
        POST + b"Transfer-Encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n" + WHOLE,
    ],
    "coding": [
        coded(b" " + coding)
        for coding in (
            b"", b"identity", b"gzip", b"deflate", b"compress", b"br", b"xchunked", b"chunkedx", b"x-chunked",
            b"chunke",
            b"chunked, chunked", b"chunked,chunked", b"chunked, gzip", b"chunked, identity", b"identity, identity",
            b",chunked", b", chunked", b"chunked,", b"chunked, ", b"chunked ,", b",", b", ,", b"chunked;",
            b"chunked;q=1",
            b'"chunked"', b"'chunked'", b"chunked chunked", b"identity chunked", b"gzip;chunked", b"[chunked]",
            b"chun ked",
            b"chunked gzip", b"chunked=1", b"gzip, chunked, gzip", b"gzip,,chunked", b"0", b"chunked, x",
            b"x y, chunked",
            b"chunked, gzip, chunked",
        )
    ],
    "unknown-coding": [
        coded(b" " + coding)
        for coding in (b"gzip, chunked", b"gzip,chunked", b"identity, chunked", b"x, Chunked", b"deflate , chunked")
    ],
    "coding-of-1.0": [
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
        b"POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + WHOLE,
    ],
    "framing-space": [
        coded(b"\tchunked"),
        coded(b" chunked\t"),
        coded(b" \t chunked"),
        coded(b"\tidentity,\tchunked"),
        measured(b"\t5"),
        measured(b" 5\t"),
        get(b"Host:\ta"),
        get(b"Host: a\t"),
        get(b"Host: a\tb"),
        POST + b"tRANSFER-eNCODING:\tchunked\r\n\r\n" + WHOLE,
    ],
    "body-size": [
        measured(b" %d" % (LIMITS.body + 1)),
        measured(b" 9999999999999999999"),
        measured(b" 9223372036854775808"),
        POST + b"Expect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n",
        sized(b"%x" % (LIMITS.body + 1)),
        sized(b"ffffffffffffffff"),
        sized(b"8000000000000000"),
        sized(b"7FFFFFFFFFFFFFFF"),
        sized(b"5", b"\r\nhello\r\n%x\r\n" % (LIMITS.body - 4)),
    ],
    "no-room": [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + b"x" * (Held.room + 1),
        CHUNKED + b"fffff\r\n" + b"x" * (Held.room + 1),
    ],
    "expect": [
        POST + b"Expect: %b\r\nContent-Length: 5\r\n\r\nhello" % value
        for value in (b"200-ok", b"100", b"100-continue, x", b"100-continue;q=1", b"101-continue", b'"100-continue"')
    ],
    "body-end": [
        measured(b" 6"),
        measured(b" 5", body=b""),
        measured(b" 5", body=b"hell"),
        CHUNKED,
        *[CHUNKED + WHOLE[:size] for size in range(1, len(WHOLE))],
        sized(b"5", b"\r\nhello\r\n0\r\nX: y\r\n"),
        sized(b"5", b"\r\nhello\r\n0\r\nX: y\r\n\r"),
        sized(b"6", b"\r\nhello"),
        sized(b"5\nhello\n0\n\n", b""),
        sized(b"5", b"\nhello"),
    ],
    "chunk-size": [
        sized(size)
        for size in (
            b"", b"-5", b"+5", b" 5", b"\t5", b"x5", b"X5", b"g", b"_5", b".5", b",5", b"h5", b"G", b"=5", b";a",
            b"$5", b"\\5",
            b"\x005", b"\xb5", b"'5'", b'"5"', b"#5", b"1" * 17, b"0" * 17, b"0" * 16 + b"5",
            b"10000000000000005", b"fffffffffffffffff", b"\r5", b"\n5", b"-", b"hello", b"-0", b"+0",
        )
    ]
    + [
        sized(b"", b"\nhello\n0\n\n\r\n"),
        sized(b"5", b"\r\nhello\r\n\r\n0\r\n\r\n"),  # one end of line too many
        CHUNKED + b"\r\n" + WHOLE,
        CHUNKED + SMUGGLED,
        CHUNKED + b"Z" * (LINE_MAX + 3),
    ],
    "chunk-extension": [
        sized(size)
        for size in (
            b"5;", b"5 ;a", b"5; a", b"5;a ", b"5 ", b"5\t", b"5;a=", b"5;a= b", b"5;a =b", b"5;=b", b"5;;",
            b"5;a;;b", b"5;\0",
            b"5;a=\0", b"5;a\xff", b'5;a="', b'5;a="b', b'5;a="\\"', b'5;a="\x01"', b"5;a=b c", b"5;a\n", b"5;\na",
            b"5;a\rb",
            b"5;a=b\n", b"5;\n", b"5\r", b"5 5", b"5x", b"5h", b"5.0", b"5,5", b"5_0", b"5\x00", b"5-", b"0x5", b"0-",
            b"0 ",
            b"5;" + b"a" * LINE_MAX, b"5\x0b", b"5=a", b"5,a", b'5;a="\x7f"',
        )
    ]
    + [
        sized(b"5;a\nhello", b"\r\n0\r\n\r\n"),
        sized(b"5\nhello\n0", b"\r\n\r\n"),
        sized(b"5;" + b"a" * LINE_MAX, b""),
        CHUNKED + b"1;aaaa\r\nx\r\n" * (EXTENSIONS_MAX // 5 + 1) + b"0\r\n\r\n",
    ],
    "chunk-end": [
        sized(b"5", b"\r\nhelloX0\r\n\r\n"),
        sized(b"5", b"\r\nhello\n0\r\n\r\n"),
        sized(b"5", b"\r\nhello\r0\r\n\r\n"),
        sized(b"5", b"\r\nhello0\r\n\r\n"),
        sized(b"4", b"\r\nhello\r\n0\r\n\r\n"),
        sized(b"2", b"\r\nhello\r\n0\r\n\r\n"),
        sized(b"6", b"\r\nhello\r\n0\r\n\r\n"),
        sized(b"7", b"\r\nhello\r\n0\r\n\r\n"),
        sized(b"5", b"\r\nhello\n\r0\r\n\r\n"),
        sized(b"5", b"\r\nhello\0\r\n0\r\n\r\n"),
    ],
    "chunk-count": [CHUNKED + b"1\r\nx\r\n" * (CHUNKS_MAX + 1)],
    "trailer": [
        sized(b"0", b"\r\n" + trailer + b"\r\n\r\n")
        for trailer in (
            b"X", b"X : y", b" X: y", b"\tX: y", b": y", b"X: \0", b"X: \xff", b"X: y\r\n z", b"X: y\nZ: z",
            b"X Y: z", b"X: y\rz",
            b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: b", b"host: a", b"X: y\r\ncontent-length: 5",
            b"Connection: close", b"Expect: 100-continue", b"GET / HTTP/1.1", b"X: " + b"y" * TRAILERS_MAX, b"\n",
            b"x\n",
        )
    ]
    + [
        sized(b"0", b"\r\n" + b"X: y\r\n" * TRAILERS_MAX),
        sized(b"0", b"\r\n" + SMUGGLED),
        sized(b"0", b"\r\n\n\r\n\r\n"),
        CHUNKED + b"0\r\n0\r\n\r\n",
    ],
}  # fmt: skip
OF_TIME = {"head-time", "body-rate"}  # in test_http_connection.py


def test_every_rule_is_tried() -> None:
    assert {*REFUSED, *OF_TIME} == set(RULES)
    assert all(REFUSED.values())


def test_every_rule_stands_in_the_documentation_with_its_section() -> None:
    page = (Path(__file__).parent.parent / "docs" / "HTTP.md").read_text(encoding="utf-8")
    rows = [
        f"| `{name}` | {rule.status} | {rule.section} | {rule.reason} |" for name, rule in (RULES | OF_HTTP_2).items()
    ]
    assert [line for line in page.splitlines() if re.match(r"\| `[a-z0-9.-]+` \| \d{3} \|", line)] == rows


# A test a rule: each of its examples one, and pytest itself would take longer than all of them.
@pytest.mark.parametrize("rule", REFUSED)
def test_what_breaks_a_rule_is_refused_before_anything_is_dispatched(rule: str) -> None:
    for data in REFUSED[rule]:
        assert verdict([data]) == Verdict([], rule, True), data


@pytest.mark.parametrize("rule", REFUSED)
def test_byte_by_byte_the_verdict_is_the_same(rule: str) -> None:
    for data in REFUSED[rule]:
        pieces = one_by_one(data) if len(data) < 20_000 else cut(data, range(0, len(data), 997))
        assert verdict(pieces) == Verdict([], rule, True), data


@given(st.sampled_from([data for examples in REFUSED.values() for data in examples]), st.data())
@settings(max_examples=150)
def test_in_any_pieces_the_verdict_is_the_same(data: bytes, draw: st.DataObject) -> None:
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=6))
    assert verdict(cut(data, places)) == verdict([data])


IN_A_ROW = {  # with something in front or behind, the others are other requests
    rule: [data for data in examples if not data.startswith(b"\r\n") and len(data) < 1000]
    for rule, examples in REFUSED.items()
    if rule not in ("head-end", "body-end")
}


@pytest.mark.parametrize("rule", [rule for rule, examples in IN_A_ROW.items() if examples])
def test_what_was_sent_before_is_answered_and_what_comes_behind_is_not_read(rule: str) -> None:
    for data in IN_A_ROW[rule]:
        found = verdict([SMUGGLED + data + SMUGGLED])
        assert (len(found.dispatched), found.rule, found.closed) == (1, rule, True), data


# ---- what is served --------------------------------------------------------------------------------------------------


def served(data: bytes) -> tuple[Head, bytes]:
    """The one request in it, whole and byte by byte."""
    found = verdict([data])
    assert found == verdict(one_by_one(data))
    assert (len(found.dispatched), found.rule) == (1, None)
    return found.dispatched[0]


def test_a_head_says_what_was_sent() -> None:
    data = b"POST /a?b=c HTTP/1.1\r\nhOst: a.example:8080\r\nX-One:  1 \t\r\nx-one:\r\nContent-Length: 2\r\n\r\nhi"
    fields = [(b"host", b"a.example:8080"), (b"x-one", b"1"), (b"x-one", b""), (b"content-length", b"2")]
    expected = Head("POST", b"/a?b=c", "1.1", fields, b"a.example:8080", 2, False, True, False)
    assert served(data) == (expected, b"hi")


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"//",
        b"/?",
        b"/a//b",
        b"/../..",
        b"/%00",
        b"/%zz",
        b'/?a=[1]|{x}^`"<>\\',
        b"/:80",
        b"/@a",
        b"/*",
        b"/http://b/",
    ],
)
def test_any_visible_path_is_for_the_application_to_judge(path: bytes) -> None:
    assert served(target(path))[0].target == path


@pytest.mark.parametrize(
    "method",
    [
        b"GET",
        b"HEAD",
        b"POST",
        b"DELETE",
        b"PROPFIND",
        b"M-SEARCH",
        b"VERSION-CONTROL",
        b"A",
        b"B" * 20,
        b"X_Y",
        b"CONNECTED",
    ],
)
def test_a_method_of_capitals_is_for_the_application_to_judge(method: bytes) -> None:
    assert served(target(b"/", method))[0].method == method.decode()


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.b.example", b"A.B", b"a_b", b"127.0.0.1", b"a:0", b"a:80", b"a:65535", b"a:00080", b"[::1]", b"[::1]:80",
     b"[::ffff:1.2.3.4]", b"a.", b"xn--4ca.example", b"a" * 255],
)  # fmt: skip
def test_names_and_addresses_are_hosts(host: bytes) -> None:
    assert served(get(b"Host: " + host))[0].host == host
    assert served(target(b"http://" + host + b"/x", host=host))[0].target == b"/x"


@pytest.mark.parametrize("name", [b"x-host", b"Hosts", b"X-Content-Length", b"Content-Length-X", b"TE"])
def test_a_tab_frames_nothing_in_other_fields(name: bytes) -> None:
    assert served(with_host(name + b":\ta\tb"))[0].headers[1] == (name.lower(), b"a\tb")


def test_a_port_is_a_number_of_16_bits() -> None:
    assert [port for port in range(100_000) if is_host(b"a:%d" % port)] == list(range(1 << 16))


@pytest.mark.parametrize("size, proper", [(1, False), (2, True), (45, True), (46, False)])
def test_an_address_in_brackets_has_the_length_of_one(size: int, proper: bool) -> None:
    assert is_host(b"[" + b":" * size + b"]") is proper


@pytest.mark.parametrize(
    "address, path",
    [
        (b"http://A", b"/"),
        (b"http://a/", b"/"),
        (b"http://a/x?y", b"/x?y"),
        (b"http://a?y", b"/?y"),
        (b"https://a//", b"//"),
    ],
)
def test_an_address_of_the_same_host_is_a_path(address: bytes, path: bytes) -> None:
    assert served(target(address))[0].target == path


def test_options_may_ask_about_the_server_or_about_a_path() -> None:
    assert served(target(b"*", b"OPTIONS"))[0].target == b"*"
    assert served(target(b"http://a", b"OPTIONS"))[0].target == b"*"
    assert served(target(b"http://a/x", b"OPTIONS"))[0].target == b"/x"


def test_one_empty_line_before_a_request_is_skipped() -> None:
    assert served(b"\r\n" + SMUGGLED)[0].target == b"/admin"
    assert len(verdict([(b"\r\n" + SMUGGLED) * 2 + b"\r\n"]).dispatched) == 2
    assert len(verdict([CHUNKED + WHOLE + b"\r\n" + SMUGGLED]).dispatched) == 2


@pytest.mark.parametrize("space", [b"", b" ", b"   "])
@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"TRANSFER-ENCODING", b"transfer-encoding"])
@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_chunked_in_any_case(space: bytes, name: bytes, coding: bytes) -> None:
    head, body = served(POST + name + b":" + space + coding + space + b"\r\n\r\n" + WHOLE)
    assert (head.chunked, head.length, body) == (True, None, b"hello")


@pytest.mark.parametrize(
    "chunks, body",
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (b'5;a;b=c;d="e f,;"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
        (b'5;a=""\r\nhello\r\n0\r\n\r\n', b"hello"),
        (b"5\r\nhello\r\n0\r\nX: y\r\nETag:\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\nX-Host: y\r\nExpected: y\r\n\r\n", b"hello"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ],
)
def test_chunks_are_put_together(chunks: bytes, body: bytes) -> None:
    assert served(CHUNKED + chunks)[1] == body
    _, behind = verdict([CHUNKED + chunks + SMUGGLED]).dispatched
    assert (behind.head.method, behind.head.target) == ("GET", b"/admin")


@pytest.mark.parametrize("length", [b"5", b"05", b"0" * 18 + b"5"])
def test_a_length_may_begin_with_zeros(length: bytes) -> None:
    assert served(measured(b" " + length))[1] == b"hello"


@pytest.mark.parametrize("version", [b"1.2", b"1.9"])
def test_a_higher_minor_version_is_read_as_1_1(version: bytes) -> None:
    fields = b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert served(b"POST / HTTP/" + version + b"\r\n" + fields)[0] == served(b"POST / HTTP/1.1\r\n" + fields)[0]
    assert verdict([b"GET / HTTP/" + version + b"\r\n\r\n"]).rule == "no-host"


@pytest.mark.parametrize(
    "version, field, keeps",
    [
        (b"1.1", b"X: y", True), (b"1.1", b"Connection: close", False), (b"1.1",
        b"connection: Keep-Alive, CLOSE", False),
        (b"1.1", b"Connection: x,,", True), (b"1.1", b"Connection: x\r\nConnection: close", False),
        (b"1.0", b"X: y", False), (b"1.0", b"Connection: x", False), (b"1.0", b"Connection: Keep-Alive", True), (b"1.0",
        b"Connection: keep-alive, close", False),
    ],
)  # fmt: skip
def test_who_keeps_a_connection_open(version: bytes, field: bytes, keeps: bool) -> None:
    head, _ = served(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + field + b"\r\n\r\n")
    assert head.keep_alive is keeps


def test_http_1_0_needs_no_host_and_expects_nothing() -> None:
    head, _ = served(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
    assert (head.version, head.host, head.expects_continue) == ("1.0", b"", False)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0, HTTP/2.0", b"x"])
def test_an_upgrade_that_is_not_served_is_a_plain_request(upgrade: bytes) -> None:
    head, _ = served(
        with_host(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABk")
    )
    assert end_to_end(head.headers) == [[b"host", b"a"]]


@pytest.mark.parametrize(
    "field",
    [
        b"X_Y: a", b"Content_Length: 5", b"Transfer_Encoding: chunked", b"_: a", b"X_Forwarded_For: 1.2.3.4",
        b"Proxy: http://b",
        b"Proxy-Authorization: x", b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5", b"TE: trailers",
        b"Trailer: X",
        b"Connection: keep-alive", b"Connection: X-Named\r\nX-Named: a", b"X-Named: a\r\nConnection: a, x-NAMED ,b",
        b"X-Named: a\r\nConnection: a\r\nConnection: close,X-Named", b"Expect: 100-continue", b"Connection: host",
        b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", b"Proxy-Authenticate: x",
    ],
)  # fmt: skip
def test_what_concerns_the_hop_or_may_be_confused_is_no_refusal_but_not_passed_on(field: bytes) -> None:
    head, _ = served(with_host(field))
    assert end_to_end(head.headers) == [[b"host", b"a"]]


def test_an_application_sees_no_coding_and_always_the_length() -> None:
    assert end_to_end(served(CHUNKED + WHOLE)[0].headers) == [[b"host", b"a"]]
    head, _ = served(POST + b"Connection: content-length\r\nContent-Length: 5\r\n\r\nhello")
    assert end_to_end(head.headers) == [[b"host", b"a"], [b"content-length", b"5"]]


def test_what_concerns_the_application_is_passed_on_in_order() -> None:
    fields = [
        (b"host", b"a"),
        (b"cookie", b"a=b"),
        (b"accept", b"*/*"),
        (b"cookie", b"c=d"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-named", b"cookie"),  # only Connection names what is dropped
    ]
    head, _ = served(get(*[name + b": " + value for name, value in fields]))
    assert end_to_end(head.headers) == [list(field) for field in fields]


# ---- every byte at every place ---------------------------------------------------------------------------------------

DIGIT = frozenset(b"0123456789")
UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
HEX = DIGIT | frozenset(b"abcdefABCDEF")
VISIBLE = frozenset(range(0x21, 0x7F))
TOKEN = VISIBLE - frozenset(b'"(),/:;<=>?@[\\]{}')  # RFC 9110 5.6.2
VALUE = VISIBLE | frozenset(b"\t ")
LAST = CHUNKED + b"0"
END = b"\r\n\r\n"


@pytest.mark.parametrize(
    "before, behind, allowed",
    [
        (b"", b"ET / HTTP/1.1\r\n" + HOST + b"\r\n", UPPER),
        (b"A", b" / HTTP/1.1\r\n" + HOST + b"\r\n", UPPER | DIGIT | frozenset(b"-_")),
        (b"GET / HTTP/1.", b"\r\n" + HOST + b"\r\n", DIGIT),
        (b"GET /", b" HTTP/1.1\r\n" + HOST + b"\r\n", VISIBLE - frozenset(b"#")),
        (b"GET http://a/", b" HTTP/1.1\r\n" + HOST + b"\r\n", VISIBLE - frozenset(b"#")),
        (GET + b"Host: a", b"b" + END, HEX | UPPER | frozenset(b"ghijklmnopqrstuvwxyz._-")),
        (GET + b"Host: a:1", b"1" + END, DIGIT),
        (GET + b"Host: [::", b"1]" + END, HEX | frozenset(b":.")),
        (GET + HOST + b"X", b": y" + END, TOKEN | frozenset(b":")),
        (GET + HOST + b"X: a", b"b" + END, VALUE),
        (POST + b"Content-Length: 0", b"0" + END + b"x" * 90, DIGIT),
        (LAST + b";a", b"b" + END, TOKEN | frozenset(b";=")),
        (LAST + b";a=b", b"c" + END, TOKEN | frozenset(b";")),
        (LAST + b';a="b', b'c"' + END, VALUE - frozenset(b'"\\')),
        (LAST + b"\r\nX", b": y" + END, TOKEN | frozenset(b":")),
        (LAST + b"\r\nX: a", b"b" + END, VALUE),
    ],
    ids=(
        "first method version target address host port ipv6 name value length"
        " extension its-value quoted trailer its-value"
    ).split(),
)
def test_every_byte_that_a_grammar_does_not_have_is_refused(
    before: bytes, behind: bytes, allowed: frozenset[int]
) -> None:
    taken = {byte for byte in range(256) if verdict([before + bytes([byte]) + behind]).dispatched}
    assert taken == allowed


def test_only_hexadecimal_digits_are_the_size_of_a_chunk() -> None:
    def taken(byte: int) -> bool:
        size = int(bytes([byte]), 16) if byte in HEX else 5
        return bool(verdict([sized(b"0" + bytes([byte]), b"\r\n" + b"x" * size + b"\r\n0\r\n\r\n")]).dispatched)

    assert {byte for byte in range(256) if taken(byte)} == HEX


# ---- one byte more or less -------------------------------------------------------------------------------------------

SMALL = Limits(line=64, head=192, headers=4, body=32)


def rule_of(data: bytes) -> str | None:
    found = verdict([data], SMALL)
    assert found == verdict(one_by_one(data), SMALL)
    assert bool(found.dispatched) is (found.rule is None)
    return found.rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "request-line-size"), (2, "request-line-size")])
def test_the_request_line_at_its_limit(more: int, rule: str | None) -> None:
    assert rule_of(target(b"/" + b"a" * (SMALL.line - 14 + more))) == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "field-size"), (2, "field-size")])
def test_a_field_at_its_limit(more: int, rule: str | None) -> None:
    assert rule_of(with_host(b"X:" + b"a" * (SMALL.line - 2 + more))) == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "head-size"), (2, "head-size"), (3, "head-size")])
def test_a_head_at_its_limit(more: int, rule: str | None) -> None:
    begin = GET + HOST + b"X:" + b"a" * 62 + b"\r\n" + b"Y:" + b"a" * 62 + b"\r\n"
    data = begin + b"Z:" + b"a" * (SMALL.head - len(begin) - 6 + more) + b"\r\n\r\n"
    assert len(data) == SMALL.head + more
    assert rule_of(data) == rule


def test_what_stands_behind_a_long_head_is_not_part_of_it() -> None:
    long = GET + HOST + (b"X:" + b"a" * 40 + b"\r\n") * 2 + b"\r\n"
    assert len(long) > SMALL.line
    _, behind = verdict([long + SMUGGLED], SMALL).dispatched
    assert (behind.head.method, behind.head.target) == ("GET", b"/admin")


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "field-count")])
def test_the_number_of_fields_at_its_limit(more: int, rule: str | None) -> None:
    assert rule_of(with_host(*[b"X:"] * (SMALL.headers - 1 + more))) == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "body-size")])
def test_a_body_at_its_limit(more: int, rule: str | None) -> None:
    size = SMALL.body + more
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    assert rule_of(head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size) == rule
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    assert rule_of(head + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n") == rule
    assert rule_of(head + b"1\r\nx\r\n" * size + b"0\r\n\r\n") == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "chunk-extension")])
def test_a_chunk_line_at_its_limit(more: int, rule: str | None) -> None:
    assert rule_of(CHUNKED + b"0;" + b"a" * (LINE_MAX - 2 + more) + b"\r\n\r\n") == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "chunk-extension")])
def test_the_extensions_of_a_body_at_their_limit(more: int, rule: str | None) -> None:
    ends = [b"1;" + b"a" * (size - 1) + b"\r\nx\r\n" for size in [128] * (EXTENSIONS_MAX // 128 - 1) + [128 + more]]
    assert rule_of(CHUNKED + b"".join(ends) + b"0\r\n\r\n") == rule


@pytest.mark.parametrize("more, rule", [(-1, None), (0, None), (1, "trailer")])
def test_trailers_at_their_limit(more: int, rule: str | None) -> None:
    assert rule_of(CHUNKED + b"0\r\nX:" + b"a" * (TRAILERS_MAX - 4 + more) + b"\r\n\r\n") == rule


def test_chunks_at_their_number() -> None:
    data = CHUNKED + b"1\r\nx\r\n" * CHUNKS_MAX
    assert verdict([data + b"0\r\n\r\n"]).dispatched[0].body == b"x" * CHUNKS_MAX
    assert verdict([data + b"1\r\nx\r\n0\r\n\r\n"]).rule == "chunk-count"


def test_of_long_chunks_there_may_be_more() -> None:
    body = Upload(Held, inline=1 << 30)
    subject = Chunks(1 << 30, body)
    for _ in range(2 * CHUNKS_MAX):
        assert not subject.feed(bytearray(b"400\r\n" + bytes(CHUNK_BYTES) + b"\r\n"))
    assert subject.feed(bytearray(b"0\r\n\r\n")) and body.size == 2 * CHUNKS_MAX * CHUNK_BYTES


# ---- any bytes -------------------------------------------------------------------------------------------------------

PARTS = st.one_of(
    st.sampled_from(
        [b"GET", b"POST", b"OPTIONS", b" ", b"/", b"*", b"http://a", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r",
         b"\n", b"\r\n\r\n",
         b"Host: a", b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Connection: close",
         b": ", b"\t",
         b"Expect: 100-continue", b"hello", b"5\r\nhello\r\n", b"0\r\n", b"5", b";a=b", b"X: y",
         GET, HOST, POST, CHUNKED, WHOLE, SMUGGLED]
    ),
    st.binary(max_size=4),
)  # fmt: skip


def reference(chunks: bytes) -> bytes:
    """A decoder that trusts its input, in place of the one that does not."""
    body = b""
    while True:
        line, _, chunks = chunks.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return body
        body, chunks = body + chunks[:size], chunks[size + 2 :]


@given(st.lists(PARTS, max_size=14), st.lists(st.integers(0), max_size=5))
@settings(max_examples=200)
def test_whatever_comes_it_is_a_verdict_that_its_pieces_do_not_change(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    found = verdict([data])
    assert found == verdict(one_by_one(data)) == verdict(cut(data, places))
    for head, body in found.dispatched:
        assert head.target[:1] in (b"/", b"*")
        assert head.host or head.version == "1.0"
        assert not (head.chunked and head.length is not None)
        assert not body or body in data or head.chunked


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b";a=b"])), max_size=6),
    st.data(),
)
def test_a_proper_body_is_read_and_a_damaged_one_is_read_the_same_or_refused(
    chunks: list[tuple[bytes, bytes]], draw: st.DataObject
) -> None:
    raw = b"".join(b"%x%b\r\n%b\r\n" % (len(data), more, data) for data, more in chunks) + b"0\r\n\r\n"
    assert served(CHUNKED + raw)[1] == b"".join(data for data, _ in chunks) == reference(raw)
    damaged = bytearray(raw)
    damaged[draw.draw(st.integers(0, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    for dispatched in verdict([CHUNKED + bytes(damaged)]).dispatched[:1]:
        assert dispatched.body == reference(bytes(damaged))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_rejected(data: bytes) -> None:
    for head in (data, data + b"\r\n\r\n", GET + data + b"\r\n\r\n", GET + HOST + data):
        try:
            assert -1 <= end_of_head(head, LIMITS) <= len(head)
            read(head, LIMITS)
        except Rejected as rejected:
            assert rejected.rule in RULES
