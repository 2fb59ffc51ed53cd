#!/usr/bin/env python3
"""An address that is where the active master is.

usage: virtual_ip.py up|down ADDRESS/BITS DEVICE         such as: virtual_ip.py up 10.0.0.9/24 eth0

up     gives this machine the address, if it has it not, and tells the network (gratuitous ARP), so that whoever knew it
       at another machine sends here from now on
down   takes it away, if it is here

Both may be run again: what is so already is exit 0. It needs Linux, `ip`, and the right to do this (root, or
CAP_NET_ADMIN and CAP_NET_RAW). For IPv4; keepalived does IPv6, too.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
import sys
import time

ARP_TIMES, ARP_EVERY_S = 3, 0.1  # a frame may be lost, and a switch may need a moment
_ETHERTYPE_ARP, _BROADCAST = 0x0806, b"\xff" * 6


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[0] not in ("up", "down"):
        print(__doc__, file=sys.stderr)
        return 2
    verb, text, device = arguments
    try:
        address = ipaddress.IPv4Interface(text)
        return up(address, device) if verb == "up" else down(address, device)
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        print(f"virtual_ip.py: {error}", file=sys.stderr)
        return 1


def up(address: ipaddress.IPv4Interface, device: str) -> int:
    code = ip("address", "replace", address.with_prefixlen, "dev", device)
    if code == 0:
        announce(address.ip.packed, device)
    return code


def down(address: ipaddress.IPv4Interface, device: str) -> int:
    return ip("address", "del", address.with_prefixlen, "dev", device) if is_here(address, device) else 0


def is_here(address: ipaddress.IPv4Interface, device: str) -> bool:
    command = ["ip", "-o", "address", "show", "dev", device, "to", f"{address.ip}/32"]
    return bool(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=10).stdout.strip())


def ip(*words: str) -> int:
    """Its exit code; what it has to say is on stderr."""
    return subprocess.run(["ip", *words], timeout=10).returncode


def announce(packed: bytes, device: str) -> None:
    """RFC 5227, 3: a request for our own address, from us; and the reply to it, which some hosts heed instead."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_ARP)) as sock:
        sock.bind((device, 0))
        hardware = sock.getsockname()[4]
        for number in range(ARP_TIMES):
            if number:
                time.sleep(ARP_EVERY_S)
            for operation, target in ((1, bytes(6)), (2, _BROADCAST)):
                head = _BROADCAST + hardware + struct.pack("!H", _ETHERTYPE_ARP)
                sock.send(
                    head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + hardware + packed + target + packed
                )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
