"""The worked examples of a standby: an address that moves between machines, on a network of namespaces."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from lan import NETWORK, Host, NoNetwork, lan
from waiting import until

from rota.common import config

FOLDER = Path(__file__).parent.parent / "examples" / "standby"
SCRIPT = FOLDER / "virtual_ip.py"
SHARED = f"{NETWORK}.9"
START_S = 30.0
ROTA = str(Path(sys.executable).with_name("rota"))
SERVER = """
import socket
sock = socket.create_server(("0.0.0.0", 8080))
print("ready", flush=True)
while True:
    peer, _ = sock.accept()
    peer.sendall({name!r}.encode())
    peer.close()
"""
ASK = "import socket; print(socket.create_connection(({address!r}, 8080), 2).recv(100).decode())"


@pytest.fixture
def hosts() -> Iterator[Sequence[Host]]:
    """Two machines and a client."""
    try:
        with lan(3) as made:
            yield made
    except NoNetwork as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with ExitStack() as stack:

        def start(host: Host, *command: str, said: str) -> subprocess.Popen[str]:
            """Runs there, and has said this."""
            process = subprocess.Popen(
                host.words(*command),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            heard: list[str] = []
            late = threading.Timer(START_S, process.kill)
            late.start()
            try:
                while said not in (line := process.stdout.readline()):
                    heard.append(line)
                    if not line:
                        pytest.fail(f"{command[0]} did not say {said!r}:\n{''.join(heard)}", pytrace=False)
            finally:
                late.cancel()
            return process

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def virtual_ip(host: Host, verb: str) -> None:
    host.run(sys.executable, str(SCRIPT), verb, f"{SHARED}/24", "eth0")


def asked(client: Host) -> str:
    return client.run(sys.executable, "-c", ASK.format(address=SHARED)).strip()


def test_the_address_moves_and_the_next_request_goes_to_the_other_machine(hosts: Sequence[Host], start) -> None:
    a, b, client = hosts
    for name, host in (("a", a), ("b", b)):
        start(host, sys.executable, "-c", SERVER.format(name=name), said="ready")
    virtual_ip(a, "up")
    assert asked(client) == "a"
    known = client.run("ip", "neigh", "show", SHARED)
    assert a.hardware() in known
    # a is dead: nobody takes the address away from it, but the cable is out
    a.run("ip", "link", "set", "eth0", "down")
    virtual_ip(b, "up")
    assert b.hardware() in client.run("ip", "neigh", "show", SHARED)  # told, not asked for
    assert asked(client) == "b"
    virtual_ip(a, "down")
    a.run("ip", "link", "set", "eth0", "up")
    assert asked(client) == "b"


def test_up_and_down_may_be_said_twice(hosts: Sequence[Host]) -> None:
    a = hosts[0]
    virtual_ip(a, "down")
    for verb, there in (("up", True), ("up", True), ("down", False), ("down", False)):
        virtual_ip(a, verb)
        assert a.has(SHARED) == there and a.has(a.address)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("up", "10.0.0.9/24"), 2, "usage:"),
        (("move", "10.0.0.9/24", "lo"), 2, "usage:"),
        (("up", "10.0.0.999/24", "lo"), 1, "10.0.0.999"),
        (("down", "10.0.0.9/24", "nowhere0"), 1, "nowhere0"),
    ],
)
def test_what_cannot_be_done_has_an_exit_code_and_a_sentence(words: tuple[str, ...], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


def test_the_example_of_a_configuration_is_a_good_one() -> None:
    loaded = config.load(FOLDER / "rota.toml", {})
    assert len(loaded.standby.on_takeover) == len(loaded.standby.on_return) == 3 and set(loaded.notify) == {
        "ops",
        "chat",
    }


def test_the_unit_stops_what_the_configuration_starts() -> None:
    unit = (FOLDER / "rota-master.service").read_text()
    [command] = re.findall(r"^ExecStopPost=(.*)$", unit, re.MULTILINE)
    assert f"run {command}" in config.load(FOLDER / "rota.toml", {}).standby.on_return


def keepalived(host: Host, peer: Host, folder: Path) -> str:
    """The example for this machine, with this network for its own."""
    text = (FOLDER / "keepalived.conf").read_text()
    for old, new in (
        ("unicast_src_ip 10.0.0.1 ", f"unicast_src_ip {host.address} "),
        ("        10.0.0.2 ", f"        {peer.address} "),
        ("10.0.0.9/24", f"{SHARED}/24"),
        ("/usr/local/bin/rota", ROTA),
        ("script_user nobody", "script_user root"),
        ("    enable_script_security\n", ""),  # the folders of a checkout may be anybody's
        ("timeout 2", "timeout 5"),  # this machine does other tests meanwhile
        ("--timeout 500ms", "--timeout 2s"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / f"keepalived-{host.number}.conf"
    path.write_text(text)
    return str(path)


def test_with_keepalived_the_address_is_where_the_active_master_is(
    hosts: Sequence[Host], start, tmp_path: Path
) -> None:
    if shutil.which("keepalived") is None:
        pytest.fail("keepalived is missing: apt-get install keepalived", pytrace=False)
    a, b, _ = hosts
    for host, peer in ((a, b), (b, a)):
        folder = tmp_path / str(host.number)
        folder.mkdir()
        pids = (f"--pid={folder}/pid", f"--vrrp_pid={folder}/vrrp", f"--checkers_pid={folder}/check")
        file = keepalived(host, peer, tmp_path)
        words = ("keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", file, *pids)
        start(host, *words, said="VRRP_Script(rota_is_active) failed")
    assert not a.has(SHARED) and not b.has(SHARED)
    master = start(a, ROTA, "master", said="rota master")
    until(lambda: a.has(SHARED))
    os.killpg(master.pid, signal.SIGKILL)
    until(lambda: not a.has(SHARED))
    start(b, ROTA, "master", said="rota master")
    until(lambda: b.has(SHARED))
    assert not a.has(SHARED)


CALL = """
from urllib.request import Request, urlopen
request = Request("http://{address}:8080/-/call/orders/one", b"{{}}", {{"Content-Type": "application/json"}})
print(urlopen(request, timeout=2).read().decode())
"""


def test_the_front_door_moves_with_the_master_of_a_real_pair(hosts: Sequence[Host], start, tmp_path: Path) -> None:
    a, b, client = hosts
    app = tmp_path / "shop.py"
    app.write_text("import rota\norders = rota.Worker('orders')\n@orders.handler\ndef one():\n    return 1\n")
    script = f"run {sys.executable} {SCRIPT}"
    file = tmp_path / "rota.toml"
    file.write_text(
        f'[standby]\non_takeover = ["{script} up {SHARED}/24 eth0"]\non_return = ["{script} down {SHARED}/24 eth0"]\n'
        '[http]\nbind = "0.0.0.0:8080"\n[service.orders.http]\ncalls = true\n'
    )

    def master(host: Host, *words: str) -> subprocess.Popen[str]:
        state = f"{tmp_path}/state-{host.number}"
        command = (ROTA, "master", "--name", f"m{host.number}", "--state", state, "-c", str(file), *words)
        return start(host, *command, said="rota master m")

    def answers() -> bool:
        return client.run(sys.executable, "-c", CALL.format(address=SHARED), code=None).strip() == "1"

    one = master(a)
    master(b, "--backup-of", f"tcp://{a.address}:7700")
    both = f"tcp://{a.address}:7700,tcp://{b.address}:7700"
    start(client, ROTA, "slave", f"{app}:orders", "--state", f"{tmp_path}/agent", "-m", both, said="connected to")
    until(answers, seconds=60)
    until(lambda: a.has(SHARED) and not b.has(SHARED))
    os.killpg(one.pid, signal.SIGKILL)
    a.run("ip", "link", "set", "eth0", "down")
    until(lambda: b.has(SHARED), seconds=60)
    until(answers, seconds=60)
    a.run("ip", "link", "set", "eth0", "up")
    master(a)
    until(lambda: not a.has(SHARED), seconds=60)
    assert b.has(SHARED)
    until(answers, seconds=60)
