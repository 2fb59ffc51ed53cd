"""The command line: what each verb prints, where, and how it exits."""

import ctypes
import errno
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from fake_frontend import FakeFrontend
from free_ports import free_port
from lines import next_line
from waiting import until

from rota import Admin, Client, Timeout, Unavailable, __version__
from rota.cli.load import Load, due_times
from rota.cli.main import SECTIONS, main
from rota.cli.options import arguments_of, options
from rota.cli.run import HERE, _greeting
from rota.cli.verb import Verb, VerbGroup
from rota.common import exits
from rota.common.messages import Result as Reply
from rota.common.messages import Verb as Asked
from rota.common.settings import SlaveSettings
from rota.testing import LocalCluster

ROTA = [sys.executable, "-m", "rota"]
# Of a master whose control port is known before: the next ones may be somebody else's.
ANYWHERE = {f"ROTA_MASTER_{role}": "tcp://127.0.0.1:*" for role in ("FRONTEND", "BACKEND")}
VERBS = [name for section in SECTIONS.values() for name in section]


def described() -> Iterator[str]:
    """Every verb that has examples and exit codes, those of groups too."""
    for name in VERBS:
        command = main.get_command(click.Context(main), name)
        if isinstance(command, VerbGroup):
            yield from (f"{name} {each}" for each in command.commands)
        elif isinstance(command, Verb):
            yield name


DESCRIBED = list(described())


def command_of(words: str) -> click.Command:
    command: click.Command | None = main
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


APP = """
import os, time
import rota

orders = rota.Worker("orders")

@orders.handler(idempotent=True)
def quote(symbol: str, quantity: int = 1) -> dict:
    return {"symbol": symbol, "quantity": quantity}

@orders.handler
def nested(levels: int) -> list:
    value = []
    for _ in range(levels):
        value = [value]
    return value

@orders.handler
def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds

@orders.handler
def bad() -> None:
    raise KeyError("no such basket")

@orders.handler
def die() -> None:
    os._exit(3)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("app") / "shop.py"
    path.write_text(APP)
    return str(path)


@pytest.fixture(scope="module")
def cluster(app: str) -> Iterator[LocalCluster]:
    with LocalCluster(app, nodes=["web-1", "web-2"], settings={"service.orders.ramp": 0}) as running:
        yield running


@pytest.fixture
def rota(cluster: LocalCluster) -> Callable[..., Result]:
    """A command line against a cluster of which every node is active."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words, env={"ROTA_MASTER": cluster.address})

    assert run("rejoin", "--all").exit_code == 0
    return run


def reply(result: Result) -> dict[str, Any]:
    """stdout as the one JSON object that it must be."""
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema"] == 1
    return found


# ---- help and wrong commands ----------------------------------------------------------------------------------------


def test_help_lists_every_verb_with_one_whole_line() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in VERBS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", result.stdout, re.MULTILINE), name
    assert "..." not in result.stdout.partition("\n")[2]
    for group in (name for name in VERBS if isinstance(command_of(name), click.Group)):
        assert "..." not in CliRunner().invoke(main, [group, "--help"]).stdout.partition("\n")[2], group


def test_every_verb_has_examples_and_exit_codes() -> None:
    commands = {name: command_of(name) for name in VERBS}
    assert all(isinstance(command, Verb | VerbGroup) for command in commands.values())


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_verb_s_help_ends_with_examples_and_exit_codes(name: str) -> None:
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0 and isinstance(command_of(name), Verb)
    assert "Examples:\n  rota " + name in result.stdout
    assert re.search(r"Exit codes:\n  0 +done", result.stdout)
    assert max(map(len, result.stdout.split("\n"))) <= 80


def test_a_verb_that_changes_something_may_time_out_and_says_so() -> None:
    """A master that is there and does not answer: what was asked for may go on."""
    verbs = {name: command for name in DESCRIBED if isinstance(command := command_of(name), Verb)}
    changing = {name: verb for name, verb in verbs.items() if any(each.name == "reason" for each in verb.params)}
    assert {"forget", "quarantine retry"} <= changing.keys()
    assert [name for name, verb in changing.items() if exits.UNDER_WAY not in verb.exits] == []


def test_a_verb_that_changes_something_may_be_refused_and_says_so() -> None:
    """By a standby, at least, that does not know where the active master is."""
    verbs = {name: command for name in DESCRIBED if isinstance(command := command_of(name), Verb)}
    changing = [verb for verb in verbs.values() if any(each.name == "reason" for each in verb.params)]
    assert len(changing) > 10 and [verb.name for verb in changing if exits.REFUSED not in verb.exits] == []


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_examples_of_the_help_are_command_lines_that_parse(name: str) -> None:
    command = command_of(name)
    assert isinstance(command, Verb)
    import shlex

    for example in command.examples:
        words = shlex.split(re.split(r" {3,}| \| ", example)[0])
        begin = ["rota", *name.split()]
        assert words[: len(begin)] == begin
        command.make_context(name, words[len(begin) :])


def test_a_verb_that_does_not_exist_is_told_with_the_one_that_was_meant() -> None:
    result = CliRunner().invoke(main, ["drian", "web-1"])
    assert result.exit_code == 2 and "there is no command 'drian'; did you mean drain?" in result.stderr
    result = CliRunner().invoke(main, ["quarantine", "lst"])
    assert result.exit_code == 2 and "there is no command 'quarantine lst'; did you mean list?" in result.stderr


@pytest.mark.parametrize("command", [["master", "--bind", "tcp://127.0.0.1:1"], ["run", "calls_app.py"]])
def test_a_certificate_without_an_address_for_http_is_a_mistake(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--tls-cert", "cert.pem"])
    assert result.exit_code == 2 and "say --http HOST:PORT, too" in result.stderr


def test_an_option_before_the_command_is_told_where_it_belongs() -> None:
    result = CliRunner().invoke(main, ["-m", "tcp://127.0.0.1:7700", "status"])
    assert result.exit_code == 2 and "options stand behind the command: rota COMMAND -m …" in result.stderr
    result = CliRunner().invoke(main, ["--json", "status"])
    assert result.exit_code == 2 and "behind the command: rota COMMAND --json …" in result.stderr
    result = CliRunner().invoke(main, ["--verson"])
    assert result.exit_code == 2 and "Did you mean" in result.stderr and "--version" in result.stderr


@pytest.mark.parametrize("later", ["rollout", "logs", "keys"])
def test_verbs_that_do_not_work_yet_are_not_there(later: str) -> None:
    assert CliRunner().invoke(main, [later]).exit_code == 2


def test_help_shows_choices_and_defaults_as_they_are_typed_and_no_default_where_there_is_none() -> None:
    text = " ".join(CliRunner().invoke(main, ["slave", "--help"]).stdout.split())
    assert "--interface [auto|wsgi|asgi|rota]" in text and "Default: auto." in text and 'Default: ".".' in text
    assert "the primary first. Default: tcp://127.0.0.1:7700." in text
    assert "none." not in text and "{}" not in text and "false" not in text


def test_help_names_the_variable_that_stands_for_the_master() -> None:
    text = " ".join(CliRunner().invoke(main, ["status", "--help"]).stdout.split())
    assert "Default: ROTA_MASTER, else tcp://127.0.0.1:7700." in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("drain", "say which nodes"),
        ("drain web-1 --all", "say which nodes"),
        ("drain --tag zone", "name=value expected"),
        ("drain --tag zone=a --tag zone=b", "--tag zone is given twice"),
        ("call orders.charge --idempotency-key {}", "a KEY is empty"),
        ("master --state {}", "must be 1 to 1024 printable characters, not ''"),
        ("master --backup-of {}", "must be an address, tcp://HOST:PORT, not ''"),
        ("run shop.py --bind {}", "'--bind': must be an address, tcp://HOST:PORT, not ''"),
        ("run shop.py --bind here", "'--bind': must be an address, tcp://HOST:PORT, not 'here'; did you mean"),
        ("run shop.py --bind tcp://here:70000", "'--bind': must have a port from 1 to 65535, not 70000"),
        ("run shop.py --http here:70000", "'--http': must have a port from 1 to 65535, not 70000"),
        ("master --http here:70000", "'--http': must have a port from 1 to 65535, not 70000"),
        ("gateway --bind here:700000", "'--bind': must have a port from 1 to 65535, not 700000"),
        ("slave shop.py -m {}", "must be an address, tcp://HOST:PORT, not ''"),
        ("drain web-1 --deadline soon", "must be a duration"),
        ("status -m master:7700", "did you mean tcp://master:7700?"),
        ("status -m http://master:7700/", "did you mean tcp://master:7700?"),
        ("status -m tcp://master:70000", "a port is 1 to 65535, not 70000"),
        ("status -m master:700000", "a port is 1 to 65535, not 700000"),
        ("status -m tcp://[::1]:0", "a port is 1 to 65535, not 0"),
        ("slave shop.py -m tcp://master:770000", "must have a port from 1 to 65535, not 770000"),
        ("status --watch --check", "do not go together"),
        ("status --interval 5s", "--interval is the time between two refreshes: say --watch, too"),
        ("status --check --interval 5s", "--interval is the time between two refreshes: say --watch, too"),
        ("maintenance orders", "Error: Missing argument 'on|off'.\n"),
        ("gateway --route /shop", "'--route': '/shop': [HOST]/PREFIX=SERVICE expected, such as /=shop"),
        ("gateway --route shop=shop", "'--route': 'shop=shop': [HOST]/PREFIX must be a path prefix, "),
        ("gateway --route /=a/b", "'--route': '/=a/b': SERVICE must be 1 to 64 ASCII letters"),
        ("slave shop.py --tag zone=a --tag zone=b", "'--tag': must have each name once, not 'zone=a,zone=b'"),
        ("maintenance orders off --stop", "--stop and --retry-after are for `on`"),
        ("maintenance orders off --retry-after 0s", "--stop and --retry-after are for `on`"),
        ("drain web-1 --no-wait --timeout 5s", "--timeout says how long to wait, --no-wait not to wait"),
        ("rejoin web-1 --version {}", "--version is empty"),
        ("drain {}", "'[NODE]...': it is empty"),
        ("forget web-1 {}", "'NODE...': it is empty"),
        ("wait ready {}", "'[NAME]...': it is empty"),
        ("reload {}", "'SERVICE': it is empty"),
        ("blacklist clear {}", "'NODE...': it is empty"),
        ("config init --force", "--force overwrites a file: say PATH, too"),
        ("config check {}", "'[FILE]': it is empty: a file expected"),
        ("config init {}", "'[PATH]': it is empty: a file expected"),
        ("master -c {}", "'--config': it is empty: a file expected"),
        ("call orders", "'service.handler' expected"),
        ("call orders.quote X", "k=v or k:=JSON expected"),
        ("call orders.quote quantity=99999999999999999999", "quantity: cannot send an integer of more than 64 bits"),
        ("load orders.quote --rate 5 --concurrency 2", "use one of them"),
        ("load orders.quote --duration 0", "'--duration': must be from 1ms to 365d, not '0'"),
        ("load orders.quote --rate x", "'x' is not a valid number"),
        ("scale orders many", "'many' is not a valid whole number"),
        ("wait leader orders", "leader takes no NAME"),
        ("slave", "what is to be served?"),
        ("wait", "which condition? active, detached, ready, reloaded, paused, maintenance or leader"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence_and_exits_2(words: str, sentence: str) -> None:
    given = ["" if word == "{}" else word for word in words.split()]
    result = CliRunner().invoke(main, given, env={"ROTA_SLAVE_APP": "", "ROTA_CONFIG": ""})
    assert result.exit_code == 2 and sentence in result.stderr and result.stdout == ""


def values_of_commands() -> Iterator[tuple[str, click.Parameter]]:
    """Every option and argument that is read as a number, a duration, a size or a time of day."""
    for name in DESCRIBED:
        for param in command_of(name).params:
            if param.metavar in ("N", "DURATION", "SIZE", "HH:MM"):
                yield name, param


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "1e400", "9" * 30, "9" * 400, "9" * 5000])
def test_a_value_that_nobody_can_mean_is_a_mistake_for_every_command(value: str) -> None:
    for name, param in values_of_commands():
        words = ["orders", "--", value] if isinstance(param, click.Argument) else [param.opts[0], value]
        with pytest.raises(click.BadParameter) as found:
            command_of(name).make_context(name, words)
        assert found.value.param is param, f"{name} {param.name}"


def test_a_wrong_command_line_is_told_as_json_too() -> None:
    values = ("drain --json", "scale orders many --json", "scale orders --json")
    names = ("status --json --bogus", "call --json -m", "statsu --json", "quarantine drp --json")
    for words in values + names:
        result = CliRunner().invoke(main, words.split())
        assert result.exit_code == 2 and f"Error: {reply(result)['error']}" in result.stderr


@pytest.mark.parametrize("words", ["config show", "notify test"])
def test_a_wrong_configuration_is_told_as_json_too(words: str, tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[master]\nbnid = 1\n")
    result = CliRunner().invoke(main, [*words.split(), "-c", str(file), "--json"])
    assert result.exit_code == 78 and result.stderr == f"{reply(result)['error']}\n"
    assert f"{file}:2: master.bnid is not a setting" in result.stderr


def test_an_address_that_is_wrong_is_told_with_the_variable_that_it_came_from() -> None:
    result = CliRunner().invoke(main, ["status"], env={"ROTA_MASTER": "master"})
    assert result.exit_code == 2 and "for ROTA_MASTER: 'master' is no master's address" in result.stderr
    result = CliRunner().invoke(main, ["status", "-m", "master"], env={"ROTA_MASTER": "tcp://b:7700"})
    assert result.exit_code == 2 and "for '-m' / '--master': 'master' is no master's address" in result.stderr


def test_a_route_that_names_no_service_is_told_what_a_route_is() -> None:
    result = CliRunner().invoke(main, ["gateway", "--route", "/shop"])
    assert result.exit_code == 2
    assert "for '--route': '/shop': [HOST]/PREFIX=SERVICE expected, such as /=shop\n" in result.stderr


def test_an_address_that_is_empty_is_not_this_machine() -> None:
    result = CliRunner().invoke(main, ["status", "-m", ""], env={"ROTA_MASTER": "tcp://b:7700"})
    assert result.exit_code == 2 and "for '-m' / '--master': it is empty" in result.stderr


@pytest.mark.parametrize("named", ["tcp://127.0.0.1:1,tcp://localhost", " tcp://127.0.0.1:1 , tcp://localhost:7700,"])
def test_addresses_are_read_as_those_of_clients_are(named: str) -> None:
    for words, variable in ((["role"], named), (["role", "-m", named], "")):
        result = CliRunner().invoke(main, words, env={"ROTA_MASTER": variable})
        assert result.exit_code == 2, result.output
        assert "not tcp://127.0.0.1:1 and tcp://localhost:7700" in result.stderr


@pytest.mark.parametrize("words", ["config show", "--help", "--version", "status --help"])
def test_an_answer_that_cannot_be_written_is_told_in_a_sentence(words: str) -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run([*ROTA, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (found.returncode, found.stderr) == (
        1,
        "Error: the answer could not be written: No space left on device\n",
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["status", "events", "call orders.quote symbol=X"])
def test_a_verb_does_without_what_was_closed(cluster: LocalCluster, words: str, closed: str) -> None:
    script = f'exec "$@" {closed}'
    command = ["sh", "-c", script, "sh", *ROTA, *words.split(), "-m", cluster.address]
    found = subprocess.run(command, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_nothing_of_a_daemon_is_where_its_stderr_was(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *ROTA, "master", "--bind", address]
    master = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **ANYWHERE})
    try:
        with Admin(address) as admin:
            until(lambda: admin.status()["master"]["state"] == "active")
        opened = [os.readlink(f"/proc/{master.pid}/fd/{fd}") for fd in range(3)]
        assert opened == ["/dev/null"] * 3
    finally:
        master.terminate()
        assert master.wait(10) == 0


def test_a_master_serves_though_systemd_cannot_be_told(tmp_path: Path) -> None:
    """Whoever started it left it the variable, or the unit allows it no AF_UNIX."""
    environment = {**os.environ, **ANYWHERE, "NOTIFY_SOCKET": str(tmp_path / "gone")}
    command = [*ROTA, "master", "--bind", f"tcp://127.0.0.1:{free_port()}"]
    master = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert master.stderr is not None
        while "systemd could not be told" not in next_line(master, master.stderr):
            pass
    finally:
        master.terminate()
        assert (master.communicate()[0], master.returncode) == (None, 0)


def test_a_master_has_as_many_connections_as_it_is_allowed(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    limits = resource.RLIMIT_NOFILE, (60, 200)
    command = [*ROTA, "master", "--bind", address]
    env = {**os.environ, **ANYWHERE}
    master = subprocess.Popen(command, cwd=tmp_path, env=env, preexec_fn=lambda: resource.setrlimit(*limits))
    try:
        with ExitStack() as several:
            admins = [several.enter_context(Admin(address)) for _ in range(80)]
            assert all(admin.status()["master"]["state"] == "active" for admin in admins)
    finally:
        master.terminate()
        assert master.wait(10) == 0


@pytest.mark.parametrize("words", ["call orders.quote --json symbol=", "drain web-1 --json --reason=", "slave --name="])
def test_bytes_that_are_no_text_are_told(words: str) -> None:
    *before, last = words.split()
    found = subprocess.run([*ROTA, *before, os.fsencode(last) + b"\xff"], capture_output=True, text=True)
    sentence = f"'{last}\\udcff' is no text in utf-8, which the command line is read as"
    assert found.returncode == 2 and found.stderr.endswith(f"Error: {sentence}\n")
    if "--json" in before:
        assert json.loads(found.stdout)["error"] == sentence


def test_a_sign_that_the_terminal_does_not_have_is_a_question_mark(cluster: LocalCluster) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "ROTA_MASTER": cluster.address}
    found = subprocess.run([*ROTA, "events"], capture_output=True, env=environment)
    assert found.returncode == 0 and b"unknown ? live" in found.stdout


def test_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--version"], {"zmq", "msgpack", "tomli", "dataclasses", "rota.common.config", "asyncio"}),
        (["call", "--help"], {"zmq", "tomli", "asyncio", "rota.master.server", "rota.worker.agent", "rota.cli.look"}),
        (["status", "--help"], {"zmq", "tomli", "asyncio", "rota.master.server", "rota.worker.agent"}),
    ],
)
def test_a_verb_loads_nothing_that_it_does_not_need(words: list[str], unwanted: set[str]) -> None:
    code = "import sys; from rota.cli.main import main; main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
    assert not unwanted & set(loaded.split())


# ---- look -----------------------------------------------------------------------------------------------------------


def test_status_shows_services_and_nodes_and_fits_eighty_columns(rota: Callable[..., Result]) -> None:
    result = rota("status")
    assert result.exit_code == 0 and result.stderr == ""
    assert re.search(r"^orders +2/2 ", result.stdout, re.MULTILINE)
    assert re.search(r"^web-2 +active ", result.stdout, re.MULTILINE)
    assert max(map(len, result.stdout.split("\n"))) <= 80 and "\x1b" not in result.stdout


def test_where_there_is_no_terminal_no_line_is_wrapped(
    rota: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    reason = "a new disk, " * 20 + "at last"
    assert rota("drain", "web-1", "--reason", reason).exit_code == 0
    assert f"{reason}; `rota rejoin web-1` brings it back\n" in rota("status").stdout


def test_status_as_json_is_the_reply_as_it_came(rota: Callable[..., Result]) -> None:
    assert set(reply(rota("status", "--json"))) == {"schema", "master", "services", "nodes"}


def test_check_is_ok_when_all_is_well_and_exits_3_with_sentences_when_not(
    rota: Callable[..., Result], cluster: LocalCluster
) -> None:
    result = rota("status", "--check")
    assert result.exit_code == 0 and result.stdout == "ok: 2 nodes, 2 ready processes\n"
    cluster.stop_node("web-2", kill=True)
    try:
        assert rota("wait", "active", "web-2", "--timeout", "1s").exit_code in (0, 75)  # until it is suspect
        until(lambda: rota("status", "--check").exit_code == 3)
        result = rota("status", "--check")
        assert "degraded: web-2 is " in result.stdout
        assert any("web-2" in sentence for sentence in reply(rota("status", "--check", "--json"))["degraded"])
    finally:
        cluster.start_node("web-2")


def test_watch_writes_one_status_after_the_other_where_there_is_no_terminal(
    rota: Callable[..., Result], cluster: LocalCluster
) -> None:
    command = [*ROTA, "status", "--watch", "--json", "--interval", "100ms", "-m", cluster.address]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    with watch.stdout:
        statuses = [json.loads(next_line(watch)) for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(5) == 0
    assert all(status["schema"] == 1 for status in statuses)


def test_watch_refreshes_in_place_on_a_terminal_and_colours_are_off_with_no_color(
    rota: Callable[..., Result], cluster: LocalCluster
) -> None:
    shown = on_a_terminal([*ROTA, "status", "--watch", "--interval", "100ms", "-m", cluster.address], b"\x1b[H", 3)
    assert b"\x1b[32mactive" in shown and b"\r\n\x1b[K" in shown and b"Ctrl-C ends\r\n" in shown
    plain = on_a_terminal([*ROTA, "status", "-m", cluster.address], b"web-2", 1, NO_COLOR="1")
    assert b"web-2" in plain and b"\x1b[" not in plain


def test_watch_writes_one_status_after_the_other_on_a_terminal_that_has_lines_only(cluster: LocalCluster) -> None:
    command = [*ROTA, "status", "--watch", "--interval", "100ms", "-m", cluster.address]
    assert b"\x1b" not in on_a_terminal(command, b"web-2 ", 3, TERM="dumb")


def on_a_terminal(command: list[str], wanted: bytes, times: int, **env: str) -> bytes:
    """What it writes to a terminal until it has written `wanted` so often; more than once: until Ctrl-C."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **env}
    )
    os.close(theirs)
    shown, until = b"", time.monotonic() + 10
    while shown.count(wanted) < times and time.monotonic() < until:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # EIO: it ended
                break
    if times > 1:
        child.send_signal(signal.SIGINT)
    assert child.wait(5) == 0 and shown.count(wanted) >= times
    os.close(ours)
    return shown


def test_ctrl_c_ends_a_wait_with_130(rota: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Admin, "wait", interrupted)
    for command in (["wait", "detached", "web-1"], ["reload", "orders"]):
        result = rota(*command)
        assert result.exit_code == 130 and "nterrupted" in result.stderr
        result = rota(*command, "--json")
        assert result.exit_code == 130 and "interrupted" in reply(result)["error"]


def test_ctrl_c_says_that_what_was_asked_for_goes_on(
    rota: Callable[..., Result], cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = cluster.client().submit("orders.slow", seconds=1.5)
    until(lambda: sum(node["in_flight"] for node in cluster.status()["nodes"]) > 0)

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Admin, "wait", interrupted)
        for command in (["scale", "orders", "2"], ["maintenance", "orders", "on"], ["pause", "orders"]):
            result = rota(*command)
            assert result.exit_code == 130 and "what was asked for goes on" in result.stderr, command
    rota("maintenance", "orders", "off")
    rota("resume", "orders")
    assert call.result(10) == 1.5


def test_wait_returns_at_once_when_it_is_so_and_exits_75_with_the_reason_when_not(rota: Callable[..., Result]) -> None:
    result = rota("wait", "active", "web-1")
    assert result.exit_code == 0 and result.stdout.startswith("active web-1: after")
    result = rota("wait", "detached", "web-1", "--timeout", "100ms", "--json")
    assert result.exit_code == 75 and "web-1" in result.stderr
    assert reply(result)["pending"][0]["name"] == "web-1"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("drain web1", "there is no node 'web1'; did you mean web-1"),
        ("wait activ", "there is no condition 'activ'; did you mean active"),
        ("wait x", "there is no condition 'x'; it is active, detached, ready, reloaded, paused, maintenance or leader"),
        ("reload order", "there is no service 'order'; did you mean orders?"),
        ("scale order 2", "did you mean orders?"),
        ("drain --tag zone=a", "no node has the tag zone=a"),
        ("call order.quote", "did you mean orders?"),
        ("call orders.qoute", "did you mean orders.quote"),
    ],
)
def test_unknown_names_exit_4_with_the_nearest_ones(rota: Callable[..., Result], words: str, sentence: str) -> None:
    result = rota(*words.split())
    assert result.exit_code == 4 and sentence in result.stderr and result.stdout == ""


def test_events_tell_who_drained_what_and_why(rota: Callable[..., Result]) -> None:
    rota("drain", "web-1", "--reason", "new kernel")
    assert "new kernel" in rota("events").stdout
    assert any(event["reason"] == "new kernel" for event in reply(rota("events", "--json"))["events"])
    assert len(reply(rota("events", "--json", "-n", "2"))["events"]) == 2


def test_followed_events_go_on_with_what_happens(rota: Callable[..., Result], cluster: LocalCluster) -> None:
    command = [*ROTA, "events", "--follow", "--json", "-n", "1", "-m", cluster.address]
    follow = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert follow.stdout is not None
    with follow.stdout:
        first = json.loads(next_line(follow))
        assert rota("drain", "web-1", "--no-wait", "--reason", "to be followed").exit_code == 0
        while "to be followed" not in (later := json.loads(next_line(follow)))["reason"]:
            pass
        follow.send_signal(signal.SIGINT)
        assert follow.wait(5) == 0
    assert later["number"] > first["number"]


@pytest.mark.parametrize(
    "words", ["events --follow", "status --watch --interval 1h", "status --watch --interval 1h --json"]
)
def test_what_goes_on_without_end_ends_when_nobody_reads_it_any_more(
    rota: Callable[..., Result], cluster: LocalCluster, words: str
) -> None:
    command = [*ROTA, *words.split(), "-m", cluster.address]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stderr is not None
    with child.stderr:
        with child.stdout:
            next_line(child)
        assert child.wait(5) == 1 and child.stderr.read() == ""


def test_who_missed_that_nobody_reads_any_more_is_told_again() -> None:
    """A signal that comes just before a sleep begins does not end it."""
    code = """
import time
from rota.cli.operator import while_read

with while_read():
    try:
        print("begun", flush=True)
        time.sleep(60)
    except BrokenPipeError:
        pass
    time.sleep(60)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        next_line(child)
        child.stdout.close()
        assert child.wait(10) == 1 and "BrokenPipeError" in child.stderr.read()


# ---- nodes and services ---------------------------------------------------------------------------------------------


def test_drain_waits_until_the_node_is_detached_and_a_second_one_is_done_already(rota: Callable[..., Result]) -> None:
    result = rota("drain", "web-1")
    assert result.exit_code == 0 and result.stdout.startswith("web-1: detached")
    assert result.stderr.startswith("web-1: draining")
    result = rota("drain", "web-1", "--json")
    assert result.exit_code == 0 and reply(result)["nodes"][0]["changed"] is False and result.stderr == ""


def test_a_drain_that_would_leave_nobody_is_refused_with_exit_5_and_force_overrides_it(
    rota: Callable[..., Result],
) -> None:
    result = rota("drain", "--all")
    assert result.exit_code == 5 and "min_active" in result.stderr and result.stdout == ""
    assert reply(rota("status", "--json"))["nodes"][0]["intent"] == "active"
    assert rota("drain", "--all", "--dry-run").exit_code == 5
    assert rota("drain", "--all", "--force").exit_code == 0


def test_what_has_begun_is_not_said_to_be_done(rota: Callable[..., Result]) -> None:
    assert rota("drain", "web-1", "--dry-run").stdout == "web-1: would be drained\n"
    assert rota("drain", "web-1", "--no-wait").stdout == "web-1: draining\n"
    assert rota("rejoin", "web-1", "--dry-run").stdout == "web-1: would be rejoined\n"
    assert rota("rejoin", "web-1", "--no-wait").stdout == "web-1: rejoining\n"
    result = rota("rejoin", "web-1")
    assert (result.stderr, result.stdout[:15]) == ("web-1: is not drained\n", "web-1: active (")
    assert rota("recheck", "web-1").stderr == "web-1: asked again\n"


def test_a_dry_run_changes_nothing(rota: Callable[..., Result]) -> None:
    result = rota("drain", "web-1", "--dry-run", "--json")
    assert reply(result)["dry_run"] is True and reply(result)["nodes"][0]["changed"] is True
    assert reply(rota("status", "--json"))["nodes"][0]["intent"] == "active"


def test_rejoin_waits_until_the_node_is_active_with_the_version_that_was_named(rota: Callable[..., Result]) -> None:
    rota("drain", "web-1")
    result = rota("rejoin", "web-1", "--version", "7.1")
    assert result.exit_code == 0 and result.stdout.startswith("web-1: active")
    assert reply(rota("status", "--json"))["nodes"][0]["versions"] == ["7.1"]


def test_a_wait_that_takes_too_long_exits_75_and_goes_on(rota: Callable[..., Result], cluster: LocalCluster) -> None:
    calls = [cluster.client().submit("orders.slow", seconds=1.5) for _ in range(2)]
    until(lambda: cluster.status()["nodes"][0]["in_flight"] > 0)
    result = rota("drain", "web-1", "--timeout", "200ms")
    assert result.exit_code == 75 and "still under way" in result.stderr
    assert [call.result(10) for call in calls] == [1.5, 1.5]
    assert rota("wait", "detached", "web-1").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [("role", 0), ("wait leader", 0), ("wait detached web-1", 75), ("recheck web-1", 0), ("drain --all", 5)],
)
def test_without_time_to_wait_it_is_asked_whether_it_is_so_now(
    rota: Callable[..., Result], words: str, code: int
) -> None:
    result = rota(*words.split(), "--timeout", "0s")
    assert result.exit_code == code and "no master answers" not in result.stderr


def test_what_a_wait_hangs_on_is_told_while_it_waits(
    rota: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.cli.operator.TELL_AFTER_S", 0.1)
    result = rota("wait", "ready", "oders", "--timeout", "300ms", "--json")
    why = "not ready yet, still under way: oders: no node offers it yet"
    assert result.exit_code == 75
    told, error = result.stderr.splitlines()
    assert re.fullmatch(rf"{why}; waiting for \d+ms more", told) and error == f"Error: {why}"
    assert reply(result)["waited_s"] > 0.25, "not only since it was told"


def test_recheck_and_forget(rota: Callable[..., Result]) -> None:
    assert rota("recheck", "--all").exit_code == 0
    result = rota("forget", "web-1")
    assert result.exit_code == 5 and "drain it first" in result.stderr
    result = rota("forget", "web-11")
    assert result.exit_code == 4 and "did you mean web-1" in result.stderr


def test_reload_replaces_the_processes(rota: Callable[..., Result], cluster: LocalCluster) -> None:
    before = set(cluster.processes())
    result = rota("reload", "orders")
    assert result.exit_code == 0 and result.stdout.startswith("orders: reloaded")
    assert not before & set(cluster.processes())


def test_scale_says_when_the_nodes_have_no_room_for_so_many(rota: Callable[..., Result]) -> None:
    result = rota("scale", "orders", "5")
    assert result.exit_code == 0 and "room for 2" in result.stderr
    assert rota("scale", "orders", "2").exit_code == 0
    assert rota("scale", "orders", "0").exit_code == 5


def test_numbers_at_their_ends_are_taken_as_they_are_or_refused(rota: Callable[..., Result]) -> None:
    nothing = rota("pause", "orders", "--for", "0s")
    assert nothing.exit_code == 2 and "a pause lasts more than 0" in nothing.stderr, "not the usual pause instead"
    assert "for_s" not in nothing.stderr, "what no operator can type"
    assert rota("scale", "orders", "9" * 20).exit_code == 2


# ---- requests -------------------------------------------------------------------------------------------------------


def test_call_prints_the_result_as_json(rota: Callable[..., Result]) -> None:
    result = rota("call", "orders.quote", "symbol=X", "quantity=2")
    assert json.loads(result.stdout) == {"symbol": "X", "quantity": 2} and result.stderr == ""
    assert reply(rota("call", "orders.quote", "symbol=X", "--json"))["result"]["quantity"] == 1


def test_a_result_that_no_json_can_be_made_of_is_told_as_that(rota: Callable[..., Result]) -> None:
    assert json.loads(rota("call", "orders.nested", "levels=9").stdout) == [[[[[[[[[[]]]]]]]]]]
    result = rota("call", "orders.nested", "levels=700")
    if sys.version_info < (3, 12):  # newer ones write what is nested as deep as a message can be
        assert result.exit_code == 1 and result.stderr.startswith("Error: the call was made, but its result is nested")
    else:
        assert result.exit_code == 0 and result.stdout.startswith("[" * 700)


def test_a_bad_argument_exits_2_and_names_it(rota: Callable[..., Result]) -> None:
    result = rota("call", "orders.quote", "symbl=X")
    assert result.exit_code == 2 and "symbl" in result.stderr and "Traceback" not in result.stderr


def test_what_the_handler_raised_is_told_with_the_process_s_traceback(rota: Callable[..., Result]) -> None:
    result = rota("call", "orders.bad")
    assert result.exit_code == 1 and "in bad" in result.stderr and "Error: KeyError: 'no such basket'" in result.stderr
    assert reply(rota("call", "orders.bad", "--json"))["type"] == "KeyError"


def test_a_call_whose_time_is_over_exits_75(rota: Callable[..., Result]) -> None:
    result = rota("call", "orders.slow", "seconds=1.5", "--timeout", "1s")
    assert result.exit_code == 75 and result.stdout == ""


def test_a_lost_process_is_told_in_a_sentence(rota: Callable[..., Result], cluster: LocalCluster) -> None:
    result = rota("call", "orders.die")
    assert result.exit_code == 1 and result.stderr.startswith("Error: ")
    cluster.wait_ready()


def test_a_call_to_a_service_that_is_closed_is_not_told_as_one_to_a_name_that_is_wrong(
    rota: Callable[..., Result],
) -> None:
    assert rota("maintenance", "orders", "on").exit_code == 0
    try:
        result = rota("call", "orders.quote", "symbol=X")
    finally:
        assert rota("maintenance", "orders", "off").exit_code == 0
    assert result.exit_code == 1 and "orders is closed for maintenance (retry after 60 s)" in result.stderr


def test_load_sends_so_many_requests_and_sums_up(rota: Callable[..., Result]) -> None:
    result = rota("load", "orders.quote", "symbol=X", "--requests", "300", "--json")
    report = reply(result)
    assert result.exit_code == 0
    assert (report["sent"], report["answered"], report["failed"]) == (300, 300, 0)
    assert 0 < report["p50_ms"] <= report["p99_ms"] <= report["max_ms"] + 1


def test_load_at_a_rate_keeps_to_it_and_reports_failures_by_class(rota: Callable[..., Result]) -> None:
    result = rota("load", "orders.bad", "--rate", "100", "--duration", "500ms")
    assert result.exit_code == 1
    sent = int(re.findall(r"^sent +(\d+)", result.stdout, re.MULTILINE)[0])
    assert 40 <= sent <= 51
    assert f"RemoteError: {sent}, the first: KeyError: 'no such basket'" in result.stdout


def test_ctrl_c_ends_a_load_with_its_summary(rota: Callable[..., Result], cluster: LocalCluster) -> None:
    command = [*ROTA, "load", "orders.quote", "symbol=X", "--rate", "50", "--duration", "1h", "-m", cluster.address]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert load.stderr is not None
    assert "answered" in next_line(load, load.stderr)
    load.send_signal(signal.SIGINT)
    shown, _ = load.communicate(timeout=10)
    assert load.returncode == 0 and "longest stall" in shown


def test_ctrl_c_falls_before_a_request_is_sent_or_behind_it() -> None:
    """Between them one that was never sent would be waited for, and called unanswered."""

    def submit() -> Future[None]:
        signal.raise_signal(signal.SIGINT)
        answered: Future[None] = Future()
        answered.set_result(None)
        return answered

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = Load(submit, window=16).run(due_times(None, 10), until=60.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (report["sent"], report["answered"], report["unanswered"]) == (1, 1, 0)


def test_a_second_ctrl_c_leaves_a_load_unanswered_and_says_so(cluster: LocalCluster) -> None:
    command = [*ROTA, "load", "orders.slow", "seconds=5", "--concurrency", "1", "--json", "-m", cluster.address]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert load.stderr is not None
    while "1 in flight" not in next_line(load, load.stderr):
        pass
    load.send_signal(signal.SIGINT)
    while "stopping" not in next_line(load, load.stderr):
        pass
    load.send_signal(signal.SIGINT)
    shown, _ = load.communicate(timeout=10)
    report = json.loads(shown)
    assert load.returncode == 130 and (report["sent"], report["failed"], report["unanswered"]) == (1, 0, 1)


# ---- without a master -----------------------------------------------------------------------------------------------


def test_without_a_master_status_says_so_and_exits_69(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.cli.look.LOOK_S", 1.0)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["status", "--json", "-m", nowhere])
    assert result.exit_code == 69 and "no master answers" in result.stderr
    assert result.stderr.endswith("start one with `rota master`, or say where it is: -m or ROTA_MASTER\n")
    assert "no master answers" in reply(result)["error"]
    assert reply(result)["masters"] == {nowhere: "no connection"}


@pytest.mark.parametrize("words", ["status", "call orders.quote --timeout 3"])
def test_a_master_that_hangs_is_not_to_be_started(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.cli.look.LOOK_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # as one under SIGSTOP: its kernel answers
        address = f"tcp://127.0.0.1:{hangs.getsockname()[1]}"
        result = CliRunner().invoke(main, [*words.split(), "-m", address])
    assert result.exit_code == 69 and f"{address}: no answer" in result.stderr
    assert "start one" not in result.stderr
    assert result.stderr.endswith("; somebody listens there: a master that hangs, or no master at all\n")


@pytest.mark.parametrize(
    ("quorum", "code"), [({"may_dispatch": False}, 3), ({"may_dispatch": True}, 0), (None, 0)]
)  # None: an older master does not say
def test_an_active_master_without_a_quorum_is_none_for_who_sends_there(
    fake: FakeFrontend, quorum: dict[str, bool] | None, code: int
) -> None:
    alarm = "no quorum: 0 of 1 nodes needed have granted a lease; requests are held until that changes"
    found = {"state": "active", "alarms": [alarm] if code else [], "quorum": quorum}
    fake.verb = lambda verb: Reply(verb.id, True, 0, {"schema": 1, "master": found})
    result = CliRunner().invoke(main, ["role", "-m", fake.address])
    told = f"alarm: {alarm}\n" if code else ""
    assert (result.exit_code, result.stdout, result.stderr) == (code, "active\n", told)
    said = reply(CliRunner().invoke(main, ["role", "--json", "-m", fake.address]))
    assert (said["state"], said["may_dispatch"]) == ("active", not code)


@pytest.mark.parametrize(
    "words",
    ["role", "status", "status --check", "events", "blacklist list", "quarantine show 3f9a", "switchover --at 03:30"],
)
def test_a_master_that_does_not_answer_who_only_looks_is_not_there(
    words: str, fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("look", "blacklist", "quarantine", "switchover"):
        monkeypatch.setattr(f"rota.cli.{module}.LOOK_S", 0.2)
    fake.verb = lambda verb: Reply(verb.id + 1000, True, 0, {})  # to another question
    result = CliRunner().invoke(main, [*words.split(), "--json", "-m", fake.address])
    assert result.exit_code == 69 and "did not answer" in reply(result)["error"]


def test_a_master_that_is_slow_at_first_is_asked_all_the_same(
    fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.cli.operator.FIRST_TRY_S", 0.2)
    reply = {"held": 3, "changed": True}
    fake.verb = lambda verb: Reply(verb.id + (1000 if verb.verb == "events" else 0), True, 0, reply)
    result = CliRunner().invoke(main, ["resume", "orders", "-m", fake.address])
    assert result.exit_code == 0 and result.stdout == "orders: resumed; it held 3 requests\n"
    assert "did not answer 'events' in time; trying for 30s" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "wait leader --timeout 300ms",
        "switchover --timeout 300ms",
        "drain web-1",
        "load orders.quote --requests 2 --timeout 300ms",
    ],
)
def test_without_a_master_it_is_said_soon_for_how_long_it_is_tried(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.cli.operator.FIRST_TRY_S", 0.1)
    monkeypatch.setattr("rota.client.admin.ANSWER_S", 0.3)
    result = CliRunner().invoke(main, [*words.split(), "-m", f"tcp://127.0.0.1:{free_port()}"])
    assert result.exit_code == 69
    assert re.match(r"no master answers \(.*\); trying for (300ms|30s)\n", result.stderr), result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "drain web-1",
        "rejoin web-1",
        "recheck web-1",
        "reload orders",
        "scale orders 2",
        "pause orders",
        "maintenance orders on",
    ],
)
def test_the_search_for_a_master_is_over_when_the_time_of_the_verb_is(words: str) -> None:
    before = time.monotonic()
    result = CliRunner().invoke(main, [*words.split(), "--timeout", "300ms", "-m", f"tcp://127.0.0.1:{free_port()}"])
    assert result.exit_code == 69
    assert time.monotonic() - before < 10


def test_what_the_search_for_a_master_took_is_not_waited_for_again(
    fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.cli.operator.TELL_AFTER_S", 30.0)
    waits: list[float] = []

    def answer(asked: Asked) -> Reply:
        waits.extend([asked.args["timeout_s"]] if asked.verb == "wait" else [])
        return Reply(asked.id, True, 0, {"processes": 2, "waited_s": 0.0})

    fake.verb, fake.deaf = answer, True
    threading.Timer(1, lambda: setattr(fake, "deaf", False)).start()
    result = CliRunner().invoke(main, ["reload", "orders", "--timeout", "20s", "-m", fake.address])
    assert result.exit_code == 0 and len(waits) == 1 and waits[0] < 19.5


@pytest.mark.parametrize("verb", ["rejoin", "recheck"])
def test_who_said_goodbye_is_told_and_not_waited_for_where_all_are_meant(verb: str, fake: FakeFrontend) -> None:
    waits: list[list[str]] = []
    here = {"node": "web-1", "intent": "active", "liveness": "live", "changed": True}
    nodes = [here, {**here, "node": "web-2", "liveness": "closed"}]

    def answer(asked: Asked) -> Reply:
        if asked.verb == "wait":
            waits.append(asked.args["names"])
        return Reply(asked.id, True, 0, {"schema": 1, "nodes": nodes, "waited_s": 0.0})

    fake.verb = answer
    result = CliRunner().invoke(main, [verb, "--all", "-m", fake.address])
    assert (result.exit_code, result.stdout, waits) == (0, "web-1: active (0ms)\n", [["web-1"]])
    assert "web-2: " in result.stderr and "its agent said goodbye: start it again\n" in result.stderr
    del nodes[0]
    result = CliRunner().invoke(main, [verb, "--all", "-m", fake.address])
    assert result.exit_code == 0 and "its agent said goodbye: start it again\n" in result.stdout and len(waits) == 1


def test_without_a_master_a_wait_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.client.operator.GRACE_S", 30.0)
    before = time.monotonic()
    result = CliRunner().invoke(main, ["wait", "leader", "--timeout", "1s", "-m", f"tcp://127.0.0.1:{free_port()}"])
    assert result.exit_code == 69
    assert time.monotonic() - before < 10, "nobody is there whose answer may come late"


def test_a_wait_outlasts_that_no_master_answers(fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.cli.operator.FIRST_TRY_S", 0.1)
    monkeypatch.setattr("rota.cli.operator.TELL_AFTER_S", 0.2)
    monkeypatch.setattr("rota.client.operator.FIND_S", 0.1)
    monkeypatch.setattr("rota.client.operator.GRACE_S", 0.1)
    fake.verb = lambda verb: Reply(verb.id, True, 0, {"names": [], "waited_s": 0.0})
    fake.deaf = True
    threading.Timer(1, lambda: setattr(fake, "deaf", False)).start()
    result = CliRunner().invoke(main, ["wait", "leader", "--timeout", "30s", "--json", "-m", fake.address])
    assert result.exit_code == 0 and "no answer); waiting for 30s more" in result.stderr
    assert 0.2 < reply(result)["waited_s"] < 30


@pytest.mark.parametrize("host", ["master.invalid", "master..here"])
def test_a_host_that_is_not_known_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.cli.operator.FIRST_TRY_S", 0.1)
    words = ["wait", "leader", "--timeout", "300ms", "-m", f"tcp://{host}:7700,tcp://127.0.0.1:{free_port()}"]
    result = CliRunner().invoke(main, words)
    soon, error = result.stderr.splitlines()
    assert result.exit_code == 69 and f"; cannot resolve {host}; trying for 300ms" in soon
    assert f"; cannot resolve {host}; start one with `rota master`" in error


def test_a_call_to_a_host_that_is_not_known_tells_it_though_the_connection_is_only_silent() -> None:
    result = CliRunner().invoke(main, ["call", "orders.quote", "--timeout", "300ms", "-m", "tcp://master.invalid"])
    assert result.exit_code == 69 and "; cannot resolve master.invalid; start one" in result.stderr


@pytest.mark.parametrize("how", ["--requests 2", "--requests 1000000", "--duration 1h", "--duration 1h --rate 0.5"])
def test_a_load_that_reaches_no_master_ends_as_a_call_does_and_with_its_summary(how: str) -> None:
    words = f"load orders.quote {how} --timeout 300ms --json".split()
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    result = subprocess.run([*ROTA, *words, "-m", nowhere], capture_output=True, text=True, timeout=20)
    report = json.loads(result.stdout)
    assert result.returncode == 69 and report["failures"].keys() == {"Unavailable"} and report["sent"] <= 16
    assert report["sent"] == report["answered"] + report["failed"] + report["unanswered"]


def test_without_a_master_a_call_ends_with_its_time() -> None:
    words = ["call", "orders.quote", "--timeout", "300ms", "-m", f"tcp://127.0.0.1:{free_port()}"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 69 and "Traceback" not in result.output


# ---- run, master, slave ---------------------------------------------------------------------------------------------


def test_run_serves_until_ctrl_c_and_lets_running_requests_finish(app: str, tmp_path: Path) -> None:
    command = [*ROTA, "run", app, "-p", "1", "--name", "here", "--bind", "tcp://127.0.0.1:*"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert run.stderr is not None
    with run.stderr:
        while "is ready" not in (greeting := next_line(run, run.stderr)):
            pass
        address = greeting.split()[-1]
        with Client(address) as client, Admin(address) as admin:
            slow = client.submit("orders.slow", seconds=1.5)
            until(lambda: admin.status()["nodes"][0]["in_flight"] == 1)
            run.send_signal(signal.SIGINT)
            assert slow.result(10) == 1.5
        assert run.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_is_stopped_while_its_application_is_loaded_ends_as_one_that_serves(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "shop.py").write_text("open('loading', 'w').close()\nimport time\ntime.sleep(1000)\n")
    run = subprocess.Popen([*ROTA, "run", "shop.py", "--bind", "tcp://127.0.0.1:*"], cwd=tmp_path)
    try:
        until((tmp_path / "loading").exists)
        run.send_signal(number)
        assert run.wait(10) == 0
    finally:
        run.kill()
        run.wait()


def test_run_under_nohup_goes_on_when_its_terminal_is_gone(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("open('loading', 'w').close()\nimport time\ntime.sleep(1000)\n")
    run = subprocess.Popen(["nohup", *ROTA, "run", "shop.py", "--bind", "tcp://127.0.0.1:*"], cwd=tmp_path)
    try:
        until((tmp_path / "loading").exists)
        [ignored] = re.findall(r"^SigIgn:\t(.*)$", Path(f"/proc/{run.pid}/status").read_text(), re.MULTILINE)
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1
    finally:
        run.terminate()
        assert run.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("run", "Error: there is nowhere to keep the master's log: "),
        ("slave", "rota slave: there is nowhere to keep what processes write: "),
    ],
)
def test_without_a_directory_for_files_it_is_told_what_names_one(
    app: str, monkeypatch: pytest.MonkeyPatch, words: str, problem: str
) -> None:
    """As in a container all of which is read-only."""
    with monkeypatch.context() as missing:
        missing.setattr(tempfile, "tempdir", "/nowhere")
        result = CliRunner().invoke(main, [words, app])
    assert result.exit_code == 1 and result.output.startswith(f"{problem}[Errno 2] No such file")
    assert result.output.endswith("; TMPDIR names a directory\n")


@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_is_too_old_for_a_node_is_told(app: str, monkeypatch: pytest.MonkeyPatch, problem: int) -> None:
    def forbidden(pid: int) -> int:
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    result = CliRunner().invoke(main, ["slave", app])
    needed = "Linux 5.4 or newer is needed, in a container that allows it"
    assert (result.exit_code, result.output) == (1, f"rota slave: pidfd_open: {os.strerror(problem)}: {needed}\n")


def test_run_tells_how_its_node_was_killed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os\nprint(os.getppid(), file=open('node', 'w'))\nimport time\ntime.sleep(1000)\n"
    )
    command = [*ROTA, "run", "shop.py", "--bind", "tcp://127.0.0.1:*"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        node = tmp_path / "node"
        until(lambda: node.exists() and node.read_text().endswith("\n"))
        os.kill(int(node.read_text()), signal.SIGKILL)
        assert "Error: the slave node ended: killed by SIGKILL" in run.communicate(timeout=10)[1]
        assert run.returncode == 1
    finally:
        run.kill()
        run.wait()


def test_run_tells_how_its_master_was_killed_while_the_application_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("open('loading', 'w').close()\nimport time\ntime.sleep(1000)\n")
    command = [*ROTA, "run", "shop.py", "--bind", "tcp://127.0.0.1:*"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        until((tmp_path / "loading").exists)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        words = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in children}
        [master] = [pid for pid in children if "master" in words[pid]]
        [address] = [said[said.index("--master") + 1] for said in words.values() if "--master" in said]
        os.kill(int(master), signal.SIGSTOP)
        with Admin(address) as admin, pytest.raises((Timeout, Unavailable)):
            admin.status(timeout=0.5)  # by now it has been asked by the command, too
        os.kill(int(master), signal.SIGKILL)
        assert "Error: the master ended: killed by SIGKILL" in run.communicate(timeout=20)[1]
        assert run.returncode == 1
    finally:
        run.kill()
        run.wait()


def test_run_goes_on_where_nothing_that_it_says_can_be_written(app: str, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with open("/dev/full", "w") as full:
        command = [*ROTA, "run", app, "-p", "1", "--bind", address]
        run = subprocess.Popen(command, stdout=full, stderr=full, cwd=tmp_path, env={**os.environ, **ANYWHERE})
    try:
        with Admin(address) as admin:
            admin.wait("ready", "orders")
        with Client(address) as client:
            assert client.call("orders.quote", symbol="X") is not None
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 0
    finally:
        run.kill()
        run.wait()


def test_run_reaps_what_its_node_leaves_to_it(tmp_path: Path) -> None:
    code = "import os\nif not os.fork():\n    os.fork() or print(os.getpid(), file=open('pid', 'w'))\n    os._exit(0)\n"
    (tmp_path / "shop.py").write_text(code + APP)
    command = [*ROTA, "run", "shop.py", "-p", "1", "--bind", "tcp://127.0.0.1:*", "--service", "orders"]
    run = subprocess.Popen(command, cwd=tmp_path, preexec_fn=lambda: ctypes.CDLL(None).prctl(36, 1))
    try:
        pid = tmp_path / "pid"
        until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
        assert run.poll() is None
    finally:
        run.terminate()
        run.wait(10)


def test_run_names_the_handlers_that_somebody_can_call() -> None:
    site = {"name": "site", "ready": 2, "handlers": ["http", "http-safe", "websocket"]}
    assert "handlers" not in _greeting(site, HERE)
    assert "  handlers: quote\n" in _greeting({**site, "handlers": ["http", "quote"]}, HERE)


@pytest.mark.parametrize(
    "mistake", ["raise ImportError('no shop')", APP + "\n@orders.on_start\ndef f(): raise ImportError('no shop')"]
)
def test_run_shows_the_traceback_of_an_application_that_does_not_load_and_exits_70(
    tmp_path: Path, mistake: str
) -> None:
    (tmp_path / "shop.py").write_text(mistake)
    command = [*ROTA, "run", "shop.py", "--bind", "tcp://127.0.0.1:*"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=20)
    assert run.returncode == 70
    assert "ImportError: no shop" in run.stderr and 'shop.py", line' in run.stderr
    assert "rota/cli" not in run.stderr and run.stdout == ""


def test_a_busy_port_is_told_with_its_number(cluster: LocalCluster, app: str) -> None:
    for words in (["master", "--bind", cluster.address], ["run", app, "--bind", cluster.address]):
        busy = subprocess.run([*ROTA, *words], capture_output=True, text=True, timeout=20)
        assert busy.returncode == 1 and cluster.address.rpartition(":")[2] in busy.stderr
        assert "Traceback" not in busy.stderr


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "[2001:db8::1]"])
def test_an_address_that_is_none_of_this_machine_is_told(host: str) -> None:
    words = ["master", "--bind", f"tcp://{host}:7700"]
    none = subprocess.run([*ROTA, *words], capture_output=True, text=True, timeout=30)
    assert (none.returncode, none.stderr) == (
        1,
        f"Error: the control address tcp://{host}:7700 cannot be bound: it is no address of this machine\n",
    )


def test_mistakes_of_the_file_are_all_told_at_once_and_exit_78(tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[master]\nbnd = 1\n[slave]\nprocesses = 0\n")
    for verb in ("master", "slave", "run"):
        result = CliRunner().invoke(main, [verb, "-c", str(file)])
        assert result.exit_code == 78
        assert f"{file}:2" in result.stderr and f"{file}:4" in result.stderr


def test_flags_survive_the_way_through_another_command_line() -> None:
    given = "-m tcp://a:1,tcp://b:2 -p 3 --tag zone=a --tag rack=7 --factory --version 2 my.shop:make".split()

    @click.command()
    @options(SlaveSettings)
    def echo(flags: dict[str, object]) -> None:
        seen.append(flags)

    seen: list[dict[str, object]] = []
    assert CliRunner().invoke(echo, given).exit_code == 0
    assert CliRunner().invoke(echo, arguments_of(seen[0])).exit_code == 0
    assert seen[0] == seen[1] and seen[0]["slave.tags"] == {"zone": "a", "rack": "7"}
