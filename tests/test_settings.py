"""The declarations themselves, and what is made of them: example file, reference page, flags."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from rota.common import config, host, limits
from rota.common.addresses import control_addresses
from rota.common.declare import Computed, Setting, declared
from rota.common.example import example
from rota.common.kinds import HOST, Address, Boolean, Integer, Several, Table, Text, TimeOfDay
from rota.common.settings import OF_A_SERVICE, SECTIONS, MasterSettings, ServiceSettings, SlaveSettings
from rota.common.units import format_duration, format_size, parse_duration, parse_size

SETTINGS = [setting for section in SECTIONS.values() for setting in declared(section).values()]


def default_of(setting: Setting) -> object:
    return setting.default.make() if isinstance(setting.default, Computed) else setting.default


def test_every_default_is_a_value_that_a_user_could_have_written() -> None:
    for setting in SETTINGS:
        default = default_of(setting)
        assert setting.kind.read(default) == default, setting.name
        shown = setting.kind.show(default)
        if shown:
            assert setting.kind.read(tomli.loads(f"key = {shown}")["key"]) == default, setting.name


def test_hup_promises_nothing_to_a_node_and_to_a_gateway_which_read_no_settings_again() -> None:
    of_others = [setting for setting in SETTINGS if setting.name.partition(".")[0] in ("slave", "http")]
    assert [setting.name for setting in of_others if setting.reload] == []


def test_every_setting_says_what_it_is_and_why_in_one_sentence() -> None:
    for setting in SETTINGS:
        for text in (setting.what, setting.why):
            assert text and not text.endswith(".") and ". " not in text and "\n" not in text, setting.name


def test_no_two_settings_share_a_variable_or_take_that_of_clients() -> None:
    names = [setting.env for setting in SETTINGS if setting.env]
    assert len(set(names)) == len(names)
    assert not {"ROTA_MASTER", "ROTA_CONFIG"} & set(names)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_no_two_settings_of_a_section_share_a_flag(section: type) -> None:
    flags = [flag for setting in declared(section).values() for flag in setting.flags]
    assert len(set(flags)) == len(flags)


def test_rules_speak_of_declared_settings_and_hold_for_the_defaults() -> None:
    for section in SECTIONS.values():
        for rule in section.rules:
            assert {rule.key, rule.other} <= set(declared(section))
            assert not rule.broken(section())


def test_the_example_shows_every_setting_once_under_its_section() -> None:
    shown = tomli.loads(uncommented(example()))
    shown["service"] = orders = shown["service"]["orders"]
    shown["notify"] = shown["notify"]["ops"]
    shown |= {f"service.{name}": orders.pop(name) for name in OF_A_SERVICE}
    assert {name: set(keys) for name, keys in shown.items()} == {
        name: set(declared(section)) for name, section in SECTIONS.items()
    }


def test_the_example_loads_clean_when_everything_in_it_is_set(tmp_path: Path) -> None:
    path = tmp_path / "rota.toml"
    path.write_text(uncommented(example()))
    assert len(config.load(path, {}).places) == len(SETTINGS)


def uncommented(text: str) -> str:
    """The example as somebody has it who sets everything."""
    keys = {setting.key for setting in SETTINGS}
    lines = text.splitlines()
    return "\n".join(x[2:] if x[2:].split(" = ")[0] in keys or x.startswith("# [") else x for x in lines)


def test_settings_are_read_without_click_or_the_data_plane() -> None:
    code = "import rota.common.config, sys; print({'click', 'zmq', 'msgpack'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_client_and_worker_do_not_load_the_settings() -> None:
    code = (
        "import rota, sys; [getattr(rota, x, None) for x in ('Client', 'Worker')];"
        "print({'rota.common.settings', 'rota.common.config'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("7", 7), (2, 2)],
)
def test_durations_are_read_as_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "30 s", "5M", "1y", "-1s", "1e3s", "٣s", True, None, [1], float("nan"), 10**400]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="^must be"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MiB", 2**20),
        ("64KiB", 65536),
        ("1GB", 10**9),
        ("1.5 KiB", 1536),
        ("1mib", 2**20),
        (9, 9),
        (f"{2**53 + 1}B", 2**53 + 1),
    ],
)
def test_sizes_are_read_as_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "64K", "1.5B", "-1B", "1XB", False, None, 0.5, "٣MB", "9" * 400 + ".5GiB", "9" * 5000 + "B"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="^must be"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_a_duration_is_read_back_as_it_is_shown(millis: int) -> None:
    assert round(parse_duration(format_duration(millis / 1000)) * 1000) == millis


@given(st.integers(0, 2**53))
def test_a_size_is_read_back_as_it_is_shown(size: int) -> None:
    assert parse_size(format_size(size)) == size


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["master:7700", "tcp://master", "tcp://m:0", "tcp://m:70000", "ipc:///x", "tcp://*:7700", "", 7],
)
def test_an_address_to_connect_to_names_one_host_and_port(address: object) -> None:
    with pytest.raises(ValueError, match="^must"):
        Address().read(address)


def test_a_host_that_becomes_part_of_an_address_has_the_brackets_of_one() -> None:
    assert HOST.read("[fd00::5]") == "[fd00::5]"
    with pytest.raises(ValueError, match=r"such as 10\.0\.0\.5 or \[fd00::5\]"):
        HOST.read("fd00::5")


MEANT = {
    "master:7700": "tcp://master:7700",
    "tcp://master:7700/": "tcp://master:7700",
    "tcp://::1:7701": "tcp://[::1]:7701",
    "fd00::5:7701": "tcp://[fd00::5]:7701",
}


WITHOUT_PORT = {"tcp://master": "tcp://master:7700", "::1": "tcp://[::1]:7700"}


@pytest.mark.parametrize(("written", "whole"), (MEANT | WITHOUT_PORT).items())
def test_an_address_that_is_none_is_told_the_one_that_was_meant(written: str, whole: str) -> None:
    with pytest.raises(ValueError, match=rf"; did you mean {re.escape(whole)}\?$"):
        Address().read(written)


@pytest.mark.parametrize(("written", "whole"), (MEANT | {"::1": "tcp://[::1]"}).items())
def test_that_of_a_master_may_be_without_its_port(written: str, whole: str) -> None:
    with pytest.raises(ValueError, match=rf"; did you mean {re.escape(whole)}\?$"):
        control_addresses(written)


@pytest.mark.parametrize("written", ["ipc:///x", "tcp://a b", "tcp://:7700"])
def test_of_an_address_that_nobody_can_guess_nothing_is_guessed(written: str) -> None:
    with pytest.raises(ValueError, match="expected$"):
        control_addresses(written)
    with pytest.raises(ValueError, match=r"^must .*[^?]$"):
        Address().read(written)


@pytest.mark.parametrize("written", ["tcp://m:0", "tcp://m:70000", "tcp://m:700000"])
def test_of_a_port_that_is_none_its_range_is_told(written: str) -> None:
    with pytest.raises(ValueError, match=r"a port is 1 to 65535, not [07]+$"):
        control_addresses(written)
    with pytest.raises(ValueError, match=r"^must have a port from 1 to 65535, not [07]+$"):
        Address().read(written)


def test_a_number_in_quotes_is_no_number_in_a_file_but_is_one_in_a_variable() -> None:
    with pytest.raises(ValueError, match="whole number"):
        Integer(1, 9).read("5")
    assert Integer(1, 9).read_text("5") == 5


def test_true_is_not_the_number_one() -> None:
    with pytest.raises(ValueError, match="whole number"):
        Integer(0, 9).read(True)
    assert Boolean().read_text("yes") is True


def test_a_table_names_each_of_its_bad_entries() -> None:
    with pytest.raises(ValueError, match="a: must be from 1.*c: must be a whole"):
        Table(Integer(1, 9)).read({"a": 0, "b": 1, "c": "x"})


@pytest.mark.parametrize("version", ["2 beta", " ", "", "x" * 65, "2\n"])
def test_a_version_that_no_process_could_have_is_a_mistake_wherever_it_stands(version: str) -> None:
    kind = declared(SlaveSettings)["version"].kind
    with pytest.raises(ValueError, match="must be 1 to 64 printable characters without blanks, not "):
        kind.read(version)


def test_a_list_may_be_written_with_commas() -> None:
    assert Several(Text(), limit=3).read("a, b") == ("a", "b")


def test_a_time_of_day_is_a_toml_text_or_a_toml_time() -> None:
    kind = TimeOfDay()
    assert kind.read("03:30") == kind.read(tomli.loads("t = 03:30:00")["t"])
    for wrong in ("24:00", "3:30", "03:60", 330):
        with pytest.raises(ValueError, match="time of day"):
            kind.read(wrong)


# -- what sections answer --------------------------------------------------------------------------


def test_frontend_and_backend_follow_from_the_control_address() -> None:
    master = MasterSettings(bind="tcp://10.0.0.1:7000")
    assert master.frontend_address() == "tcp://10.0.0.1:7001"
    assert master.backend_address() == "tcp://10.0.0.1:7002"
    assert MasterSettings(bind="tcp://127.0.0.1:*").backend_address() == "tcp://127.0.0.1:*"


@pytest.mark.parametrize(
    ("least", "most", "bounds"),
    [(None, None, (6, 6)), (None, 4, (4, 4)), (2, None, (2, 6)), (2, 4, (2, 4)), (8, 9, (6, 6))],
)
def test_a_pool_has_all_that_is_offered_unless_it_is_bounded(
    least: int | None, most: int | None, bounds: tuple[int, int]
) -> None:
    assert ServiceSettings(min_processes=least, max_processes=most).bounds(offered=6) == bounds


def test_a_credit_never_outgrows_the_rows_of_the_page() -> None:
    with pytest.raises(ValueError, match=f"1 to {limits.PAGE_ROWS}"):
        declared(ServiceSettings)["credit"].kind.read(limits.PAGE_ROWS + 1)


@pytest.mark.parametrize(("cpu_max", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_containers_quota_counts_as_its_cores(cpu_max: str, cores: int) -> None:
    assert host._quota(cpu_max) == cores


@pytest.mark.parametrize("cpu_max", ["", "max 100000", "1 0", "nonsense"])
def test_without_a_quota_the_machine_is_the_limit(cpu_max: str) -> None:
    assert host._quota(cpu_max) > 10_000
