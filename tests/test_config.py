"""Loading: precedence, every mistake at once with its place, reload, and `rota config`."""

import json
import sys
from pathlib import Path

import click
import pytest
import tomli
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from rota.cli.config import config_group
from rota.cli.options import config_option, load_or_exit, options
from rota.common import config
from rota.common.example import example
from rota.common.kinds import HOST_PORT, LISTEN
from rota.common.settings import MasterSettings, ServiceSettings, SlaveSettings
from rota.common.toml_lines import key_lines


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "rota.toml"
        path.write_text(text)
        return str(path)

    return write


def mistakes(path: str | None = None, env: dict[str, str] | None = None, **flags: object) -> list[str]:
    """What is wrong, each as it is printed but for the folder."""
    with pytest.raises(config.ConfigErrors) as raised:
        config.load(path, env or {}, flags)
    return [str(m).replace(path or "\0", "rota.toml") for m in raised.value.mistakes]


# -- precedence ------------------------------------------------------------------------------------


def test_a_flag_wins_over_a_variable_that_over_the_file_that_over_the_default(write) -> None:
    path = write('[slave]\nprocesses = 2\nname = "file"\nservice = "file"\n')
    env = {"ROTA_SLAVE_NAME": "env", "ROTA_SLAVE_SERVICE": "env"}
    slave = config.load(path, env, {"slave.service": "flag"}).slave
    assert (slave.service, slave.name, slave.processes) == ("flag", "env", 2)
    assert slave.stop_grace == SlaveSettings().stop_grace


def test_every_value_knows_where_it_stands(write) -> None:
    path = write('[slave]\nname = "file"\n\n[service."a.b"]\ncredit = 1\n')
    loaded = config.load(path, {"ROTA_SLAVE_TAGS": "zone=a"}, {"slave.processes": 3})
    places = {entry.key: str(entry.place) for entry in loaded.effective()}
    assert places["slave.name"] == f"{path}:2"
    assert places['service."a.b".credit'] == f"{path}:5"
    assert places["slave.tags"] == "ROTA_SLAVE_TAGS"
    assert places["slave.processes"] == "--processes"
    assert places["slave.app_dir"] == "default"


def test_a_variable_takes_lists_tables_and_truth() -> None:
    env = {"MASTER": "tcp://a:1,tcp://b:2", "TAGS": "zone=a,rack=7", "FACTORY": "yes"}
    slave = config.load(env={f"ROTA_SLAVE_{key}": value for key, value in env.items()}).slave
    assert slave.master == ("tcp://a:1", "tcp://b:2")
    assert slave.tags == {"zone": "a", "rack": "7"} and slave.factory is True


def test_an_empty_variable_counts_as_not_set() -> None:
    assert config.load(env={"ROTA_MASTER_BIND": ""}).master.bind == MasterSettings().bind


def test_the_address_of_clients_does_not_move_a_slave_node() -> None:
    slave = config.load(env={"ROTA_MASTER": "tcp://elsewhere:7700"}).slave
    assert slave.master == SlaveSettings().master


def test_variables_that_kubernetes_makes_up_are_left_alone() -> None:
    env = {"ROTA_MASTER_PORT": "tcp://10.0.0.1:7700", "ROTA_MASTER_SERVICE_HOST": "10.0.0.1"}
    slave = {"ROTA_SLAVE_SERVICE_HOST": "10.0.0.1", "ROTA_SLAVE_PORT_7700_TCP": "tcp://10.0.0.1:7700"}
    config.load(env=env | slave)


def test_a_misspelt_variable_is_a_mistake() -> None:
    assert mistakes(env={"ROTA_SLAVE_PROCESES": "2"}) == [
        "ROTA_SLAVE_PROCESES: is not a setting; did you mean ROTA_SLAVE_PROCESSES?"
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ROTA_SLAVE_TAGS", "zone", "slave.tags must be k=v, not 'zone'"),
        ("ROTA_STANDBY_HANDOVER", "perhaps", "standby.handover must be one of true, "),
    ],
)
def test_a_variable_with_a_bad_value_is_a_mistake(name: str, text: str, message: str) -> None:
    assert [message in mistake for mistake in mistakes(env={name: text})] == [True]


def test_what_a_program_gives_and_no_setting_is_is_a_mistake() -> None:
    assert mistakes(**{"slave.proceses": 2}) == ["slave.proceses: is not a setting; did you mean slave.processes?"]


def test_a_service_without_a_section_has_the_defaults(write) -> None:
    services = config.load(write("[service.orders]\nqueue_limit = 5\n"), {}).services
    assert services["orders"].queue_limit == 5 and "orders" in services
    assert services["other"] == ServiceSettings() and "other" not in services


# -- mistakes --------------------------------------------------------------------------------------


def test_all_mistakes_are_listed_at_once_with_file_and_line(write) -> None:
    path = write(
        """\
[master]
bind = "0.0.0.0:7700"
nmae = "m"
queue_limit = 5

[mastr]
x = 1
[service.orders]
credit = 99
weights = { web-1 = 2, web-2 = 0 }
ramp = "5 sec"
"""
    )
    assert mistakes(path, {"ROTA_SLAVE_PROCESSES": "many"}, **{"slave.stop_grace": -1}) == [
        "rota.toml:2: master.bind must be an address, tcp://HOST:PORT, not '0.0.0.0:7700'; "
        "did you mean tcp://0.0.0.0:7700?",
        "rota.toml:3: master.nmae is not a setting; did you mean name?",
        "rota.toml:4: master.queue_limit is not a setting of [master] but of [service.NAME]",
        "rota.toml:6: mastr is not a section; did you mean master?; the sections are [master], [slave], "
        "[http], [standby], [notify.NAME], [service.NAME]",
        'rota.toml:9: service.orders.credit must be from 1 to 64, not 99 (or "auto")',
        "rota.toml:10: service.orders.weights.web-2 must be from 1 to 256, not 0",
        'rota.toml:11: service.orders.ramp must be a duration such as "250ms", "30s" or "1h30m", '
        "or a number of seconds, not '5 sec'",
        "ROTA_SLAVE_PROCESSES: slave.processes must be a whole number, not 'many'",
        "slave.stop_grace: slave.stop_grace must be from 0s to 1h, not -1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('bind = "x"', "1: bind stands in no section; it is a setting of [master]"),
        ("master = 1", "1: master must be a section, [master]"),
        ("[[service.a]]", "1: service.a must be a section, [service.a]"),
        ("service = 1", "1: service must be a section, [service.NAME]"),
        ("[service]\nramp = 1", "2: service.ramp is a setting of one service: put it into a section such as"),
        ('[service."a b"]', '1: service."a b" names a service, which must be 1 to 64'),
        ("[security]", "1: security is not a section; the sections are [master]"),
        ("[master]\n\nbind = \n", "3: is not TOML: Invalid value"),
        ('[master]\nname = "a"\nname = "b"', "3: is not TOML: Cannot overwrite a value"),
        ("[master]\nqueue_bytes = " + "9" * 5000, " is not TOML that can be read"),
        ("[master]\nqueue_bytes = " + "9" * 500, "2: master.queue_bytes must be from 1MiB to 64GiB"),
        ("a = " + "[" * 5000 + "]" * 5000, "is not TOML"),
        ("[master]\nsuspect_after = nan", "2: master.suspect_after must be a finite number"),
        ("[master]\nname = true", "2: master.name must be 1 to 64"),
        ('[master]\nqueue_bytes = "lots"', "2: master.queue_bytes must be a size such as"),
        ("[slave]\ntags = { zone = 5 }", "2: slave.tags.zone must be "),
        ("[http]\nbind = 8080", "2: http.bind must be HOST:PORT to listen on"),
    ],
)
def test_a_bad_file_is_told_what_is_wrong(write, text: str, message: str) -> None:
    assert message in mistakes(write(text))[0]


def test_a_file_that_cannot_be_read_is_one_mistake(tmp_path: Path) -> None:
    assert mistakes(str(tmp_path / "no.toml"))[0].endswith("cannot be read: No such file or directory")
    assert "cannot be read" in mistakes(str(tmp_path))[0]


def test_a_file_that_is_not_utf8_is_told_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[master]\n# caf\xe9\n")
    assert mistakes(str(path)) == ["rota.toml:2: is not UTF-8"]


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * (2 << 20))
    assert "is larger than" in mistakes(str(path))[0]


def test_what_is_overridden_must_be_right_all_the_same(write) -> None:
    path = write("[slave]\nprocesses = 0\n")
    assert mistakes(path, **{"slave.processes": 2}) == ["rota.toml:2: slave.processes must be from 1 to 1024, not 0"]


@given(st.text(max_size=200))
def test_no_text_at_all_raises_anything_but_config_errors(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load(path, {})
    except config.ConfigErrors as errors:
        assert errors.mistakes


# -- what only together is wrong -------------------------------------------------------------------


def test_a_broken_rule_names_both_places(write) -> None:
    path = write("[service.orders]\nmin_processes = 8\nmax_processes = 4\n")
    assert mistakes(path) == [
        "rota.toml:2: service.orders.min_processes must not be above max_processes "
        "(min_processes is 8 at rota.toml:2; max_processes is 4 at rota.toml:3)"
    ]


def test_a_rule_broken_against_a_default_stands_where_somebody_wrote() -> None:
    assert mistakes(env={"ROTA_MASTER_DEAD_AFTER": "600ms"}) == [
        "ROTA_MASTER_DEAD_AFTER: master.suspect_after must be less than dead_after: "
        "a node gets no new work before it is given up "
        '(suspect_after is "800ms" by default; dead_after is "600ms" at ROTA_MASTER_DEAD_AFTER)'
    ]


def test_a_node_is_not_dead_before_three_beats() -> None:
    assert "must be from 600ms" in mistakes(**{"master.dead_after": 0.5})[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"frontend": "tcp://0.0.0.0:7700"},
        {"backend": "tcp://0.0.0.0:7701"},
        {"frontend": "tcp://0.0.0.0:7702"},
        {"bind": "tcp://0.0.0.0:65534"},
        {"queue_bytes": "1MiB", "max_message": "2MiB"},
        {"answers_bytes": "64KiB"},
    ],
    ids=str,
)
def test_addresses_and_sizes_of_the_master_fit_together(settings: dict[str, object]) -> None:
    assert mistakes(**{f"master.{key}": value for key, value in settings.items()})


def test_a_rule_is_silent_about_a_value_that_could_not_be_read(write) -> None:
    path = write("[service.a]\nmin_processes = 8\nmax_processes = 0\n")
    assert [line.split(":")[1] for line in mistakes(path)] == ["3"]


# -- reload ----------------------------------------------------------------------------------------


def test_a_reload_takes_what_it_may_and_names_what_waits_for_a_restart(write) -> None:
    running = config.load(env={}, flags={"master.name": "m"})
    path = write('[master]\ndead_after = "9s"\nbind = "tcp://0.0.0.0:1"\n[service.a]\ncredit = 1\n')
    now, waits = config.reloaded(running, config.load(path, {}, {"master.name": "m"}))
    assert waits == ["master.bind"]
    assert (now.master.dead_after, now.master.bind) == (9.0, "tcp://0.0.0.0:7700")
    assert now.services["a"].credit == 1


# -- lines -----------------------------------------------------------------------------------------


def test_keys_are_found_wherever_toml_lets_them_stand() -> None:
    text = '''\
# [not.this]
top.dotted . "quo.ted" = 1   # comment = 2
[a]   # [b]
text = """
[fake]
fake = 1 \\"""
"""""
list = [ # ]
  "]", 'x # y',
  { k = 1 },
]
when = 1979-05-27 07:32:00
next = 1
[ service . "na.me" ]
inline = { x = 1, y.z = [1, 2], 's' = "}" }
\'literal # key\' = """one line"""
"esc\\u0061ped" = 0
[[many]]
one = 1
[[many]]
last = 1'''
    tomli.loads(text)
    assert key_lines(text) == {
        ("top",): 2,
        ("top", "dotted"): 2,
        ("top", "dotted", "quo.ted"): 2,
        ("a",): 3,
        ("a", "text"): 4,
        ("a", "list"): 8,
        ("a", "list", "k"): 10,
        ("a", "when"): 12,
        ("a", "next"): 13,
        ("service",): 14,
        ("service", "na.me"): 14,
        ("service", "na.me", "inline"): 15,
        ("service", "na.me", "inline", "x"): 15,
        ("service", "na.me", "inline", "y"): 15,
        ("service", "na.me", "inline", "y", "z"): 15,
        ("service", "na.me", "inline", "s"): 15,
        ("service", "na.me", "literal # key"): 16,
        ("service", "na.me", "escaped"): 17,
        ("many",): 18,
        ("many", "one"): 19,
        ("many", "last"): 21,
    }


PIECES = ["[", "]", "{", "}", "'", '"', '"""', "'''", "\\", "#", "=", ".", ",", "\n", " ", "a", "b", "1"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_every_key_that_tomli_finds_has_a_line(text: str) -> None:
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    assert paths(document) <= set(key_lines(text))


def paths(table: dict[str, object]) -> set[tuple[str, ...]]:
    found = {(key,) for key in table}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= {(key, *path) for path in paths(value)}
    return found


# -- rota config, and flags of other commands ------------------------------------------------------


def run(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(config_group, arguments, env=env)


def test_check_lists_the_mistakes_on_stderr_and_exits_78(write) -> None:
    result = run("check", "-c", write("[master]\nbnd = 1\nstat = 1\n"))
    assert result.exit_code == 78 and result.stdout == ""
    assert [line.rpartition("did you mean ")[2] for line in result.stderr.splitlines()] == ["bind?", "state?"]


def test_check_in_json_has_file_line_and_key(write) -> None:
    path = write("[master]\nbnd = 1\n")
    result = run("check", "--json", "-c", path)
    reply = json.loads(result.stdout)
    assert result.exit_code == 78 and reply["schema"] == 1 and reply["ok"] is False
    assert [(m["file"], m["line"], m["key"]) for m in reply["mistakes"]] == [(path, 2, "master.bnd")]


@pytest.mark.parametrize("words", [["-c"], []], ids=["-c FILE", "FILE"])
def test_check_names_the_line_of_pages_and_certificates_that_are_not_there(write, words: list[str]) -> None:
    path = write('[http]\ntls_certificate = "/no.pem"\n\n[service.shop.http]\npages = "/nowhere"\n')
    result = run("check", *words, path)
    assert result.exit_code == 78 and result.stderr.splitlines() == [
        f"{path}:2: http.tls_certificate cannot be used: "
        "the TLS certificate /no.pem cannot be read: No such file or directory",
        f"{path}:5: service.shop.http.pages cannot be used: "
        "the pages of shop: /nowhere cannot be read: No such file or directory",
    ]


def test_check_names_the_line_of_a_route_that_another_service_has(write) -> None:
    path = write('[service.shop.http]\nroutes = ["/"]\n\n[service.blog.http]\nroutes = ["/blog", "/"]\n')
    result = run("check", path)
    assert result.exit_code == 78 and result.stderr.splitlines() == [
        f"{path}:5: service.blog.http.routes cannot be used: the route / is claimed by shop and by blog: take one away"
    ]


def test_check_names_the_line_of_an_engine_that_this_master_cannot_use(write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('[standby]\nlease = "postgresql://a/rota?nonsense=1"\n')
    assert run("check", path).stderr.startswith(f"{path}:2: standby.lease cannot be used: the address of PostgreSQL: ")
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    result = run("check", write('[standby]\nlease = "postgresql://a/rota"\n'))
    assert result.exit_code == 78 and result.stderr.splitlines() == [
        f"{path}:2: standby.lease cannot be used: a lease in PostgreSQL needs psycopg: pip install 'rota[postgres]'"
    ]


def test_check_names_the_line_of_a_password_that_cannot_be_read(write, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    path = write(f"""
        [notify.ops]
        to = "ops@example.com"
        user = "rota"
        password_file = "/no/password"
        [notify.chat]
        to = "https://chat.example.com/hook"
        password_file = "{tmp_path}/empty"
    """)
    result = run("check", path)
    assert result.exit_code == 78 and result.stderr.splitlines() == [
        f"{path}:5: notify.ops.password_file cannot be used: [Errno 2] No such file or directory: '/no/password'",
        f"{path}:8: notify.chat.password_file cannot be used: {tmp_path}/empty is empty",
    ]


def test_the_file_may_be_said_without_its_option_but_not_twice(write) -> None:
    path, other = write("[master]\nbnd = 1\n"), "other.toml"
    assert run("check", path, env={"ROTA_CONFIG": other}).stderr.startswith(f"{path}:2: ")
    assert f"{other} and -c {path}: say one file" in run("show", "-c", path, other).stderr
    assert "# " + write("[http]\nworkers = 3\n") in run("show", path).stdout


def test_check_of_a_good_file_exits_0(write) -> None:
    assert run("check", "-c", write("[master]\n")).exit_code == 0
    assert json.loads(run("check", "--json").stdout) == {"schema": 1, "ok": True, "file": None, "mistakes": []}


def test_the_file_may_be_named_by_a_variable(write) -> None:
    assert run("check", env={"ROTA_CONFIG": write("[x]\n")}).exit_code == 78


def test_show_prints_each_value_and_where_it_comes_from(write) -> None:
    path = write('[service.orders]\nreload_at = "03:30"\n')
    text = run("show", "-c", path, env={"ROTA_MASTER_QUEUE_BYTES": "2GB"}).stdout
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert f'reload_at = "03:30" # {path}:2' in lines
    assert 'queue_bytes = "2GB" # ROTA_MASTER_QUEUE_BYTES' in lines
    assert 'dead_after = "3s" # default' in lines


def test_what_show_prints_can_be_loaded_again(write) -> None:
    path = write("[service.orders]\ncredit = 4\nweights = { web-1 = 3 }\n[slave]\ntags = { a = 'é\"' }\n")
    again = config.load(write(run("show", "-c", path).stdout), {})
    assert again.services["orders"] == ServiceSettings(credit=4, weights={"web-1": 3})
    assert again.slave == SlaveSettings(tags={"a": 'é"'})


def test_show_in_json_has_numbers_for_durations_and_sizes(write) -> None:
    path = write('[service.orders]\nreload_at = "03:30"\n')
    reply = json.loads(run("show", "--json", "-c", path).stdout)
    settings = {entry["key"]: entry for entry in reply["settings"]}
    assert reply["schema"] == 1
    assert settings["master.dead_after"]["value"] == 3.0
    assert settings["master.max_message"]["value"] == 2**20
    assert settings["service.orders.reload_at"]["value"] == "03:30"
    assert settings["service.orders.reload_at"]["place"] == f"{path}:2"


def test_init_writes_an_example_that_loads_clean_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rota.toml"
    assert run("init", str(path)).exit_code == 0
    loaded = config.load(path, {})
    assert loaded.places == {} and loaded.master == MasterSettings() and loaded.services == {}
    assert run("init").stdout == path.read_text() == example()


def test_init_overwrites_only_with_force(write) -> None:
    path = write("[master]\n")
    assert run("init", path).exit_code == 1 and Path(path).read_text() == "[master]\n"
    assert run("init", path, "--force").exit_code == 0 and Path(path).read_text() == example()


@click.command()
@config_option
@options(SlaveSettings)
@options(MasterSettings, only=["bind"])
def command(config_file: str | None, flags: dict[str, object]) -> None:
    loaded = load_or_exit(config_file, flags)
    click.echo(json.dumps([sorted(flags), loaded.slave.app, loaded.slave.master, dict(loaded.slave.tags)]))


def test_a_command_has_the_flags_of_its_sections_and_passes_on_what_was_given() -> None:
    given = "m:app -m tcp://a:1 -m tcp://b:2 --tag zone=a --tag rack=7 --factory -p 3 --bind tcp://*:7"
    result = CliRunner().invoke(command, given.split())
    names = ["master.bind", "slave.app", "slave.factory", "slave.master", "slave.processes", "slave.tags"]
    masters = ["tcp://a:1", "tcp://b:2"]
    assert json.loads(result.stdout) == [names, "m:app", masters, {"zone": "a", "rack": "7"}]


def test_no_flag_given_leaves_the_file_in_force(write) -> None:
    result = CliRunner().invoke(command, ["-c", write('[slave]\nfactory = true\napp = "m:a"\n')])
    assert json.loads(result.stdout)[:2] == [[], "m:a"]


def test_a_bad_flag_is_a_usage_error_that_names_it() -> None:
    result = CliRunner().invoke(command, ["-p", "many"])
    assert result.exit_code == 2 and "'--processes': must be a whole number" in result.stderr


def test_a_command_with_a_bad_file_exits_78(write) -> None:
    result = CliRunner().invoke(command, ["-c", write("[slave]\nproceses = 1\n")])
    assert result.exit_code == 78 and ":2: slave.proceses is not a setting" in result.stderr


# -- sections within a service ---------------------------------------------------------------------


def test_what_callers_are_told_is_a_text_or_a_text_with_a_code(write) -> None:
    path = write(
        "[service.orders]\ncredit = 2\n[service.orders.fault]\n"
        'overloaded = "the shop is closed"\ntimeout = { text = "too slow", code = "E7" }\nno_service = "default"\n'
    )
    orders = config.load(path, {}).services["orders"]
    assert orders.credit == 2
    assert orders.fault.overloaded == {"text": "the shop is closed"}
    assert orders.fault.timeout == {"text": "too slow", "code": "E7"}
    assert orders.fault.no_service is None and orders.fault.maybe_executed is None


def test_a_service_may_have_a_section_within_it_and_none_of_its_own(write) -> None:
    services = config.load(write('[service.orders.fault]\ntimeout = "x"\n'), {}).services
    assert services["orders"].credit is None and services["orders"].fault.timeout == {"text": "x"}


def test_mistakes_in_a_section_within_a_service_have_their_line(write) -> None:
    path = write(
        '[service.orders.fault]\ntimeuot = "x"\noverloaded = { text = "", colour = 1 }\ntimeout = { code = "" }'
    )
    assert mistakes(path) == [
        "rota.toml:2: service.orders.fault.timeuot is not a setting; did you mean timeout?",
        'rota.toml:3: service.orders.fault.overloaded must be a text or { text = "...", code = "..." }, '
        "not {'text': '', 'colour': 1} (or \"default\")",
        "rota.toml:4: service.orders.fault.timeout has a code that must be 1 to 64 printable characters, "
        "not '' (or \"default\")",
    ]


def test_a_section_within_a_service_that_is_not_there_is_told_with_the_one_that_was_meant(write) -> None:
    path = write('[service.orders.healt]\ncheck = "port"\n[service.orders]\nweigths = { web-1 = 2 }\nstandby.x = 1')
    assert mistakes(path) == [
        "rota.toml:1: service.orders.healt is not a setting; did you mean health?",
        "rota.toml:4: service.orders.weigths is not a setting; did you mean weights?",
        "rota.toml:5: service.orders.standby is not a setting",
    ]


def test_what_config_show_prints_of_a_section_within_a_service_loads_again(write) -> None:
    path = write('[service.orders.fault]\ntimeout = { text = "too \\"slow\\"", code = "E7" }\noverloaded = "x"\n')
    before = config.load(path, {}).services["orders"]
    assert config.load(write(run("show", "-c", path).stdout), {}).services["orders"] == before


@pytest.mark.parametrize("port", ["65536", "99999", "655360"])
def test_a_port_that_there_is_not_is_refused_and_not_taken_for_another_one(port: str) -> None:
    assert LISTEN.read("*:65535") == "*:65535"
    for kind in (LISTEN, HOST_PORT):
        with pytest.raises(ValueError, match=f"^must have a port from 1 to 65535, not {port}$"):
            kind.read(f"127.0.0.1:{port}")


def test_whom_to_tell_is_read_as_mail_addresses_or_as_the_url_of_a_webhook(write) -> None:
    path = write("""
        [notify.ops]
        to = "ops@example.com, night@example.com"
        [notify.chat]
        to = "https://chat.example.com/hook?room=1"
    """)
    told = config.load(path, {}).notify
    assert told["ops"].to == ("ops@example.com", "night@example.com") and told["ops"].by_mail
    assert told["chat"].to == ("https://chat.example.com/hook?room=1",) and not told["chat"].by_mail


def test_a_section_that_names_nobody_to_tell_is_a_mistake_with_its_line(write) -> None:
    path = write("""
        [notify.ops]
        server = "mail:25"
        [notify.x]
        to = "x@example.com\\r\\nBcc: y@example.com"
        [notify]
        to = "ops@example.com"
    """)
    assert mistakes(path) == [
        "rota.toml:2: notify.ops must say whom to tell: to = …",
        "rota.toml:5: notify.x.to must be a mail address such as ops@example.com, not "
        r"'x@example.com\r\nBcc: y@example.com'",
        "rota.toml:7: notify.to is a setting of one receiver: put it into a section such as [notify.ops]",
    ]


@pytest.mark.parametrize("text", ["[notify.ops]\n", "[notify.ops]\n# to = 'ops@example.com'\n", "notify = {ops = {}}"])
def test_a_section_in_which_nothing_stands_names_nobody_to_tell(write, text: str) -> None:
    assert mistakes(write(text)) == ["rota.toml:1: notify.ops must say whom to tell: to = …"]


def test_a_name_to_log_in_with_needs_a_password(write) -> None:
    assert mistakes(write('[notify.ops]\nto = "ops@example.com"\nuser = "rota"\n')) == [
        "rota.toml:3: notify.ops.user needs password_file: no server takes a name alone "
        '(user is "rota" at rota.toml:3; password_file is not given by default)'
    ]


def test_a_pair_has_one_other_master(write) -> None:
    two = 'backup_of = ["tcp://a:7700", "tcp://b:7700"]'
    assert mistakes(write(f"[standby]\n{two}\n")) == [
        "rota.toml:2: standby.backup_of must be one address: agents decide between two masters, an engine between more "
        '(backup_of is ["tcp://a:7700", "tcp://b:7700"] at rota.toml:2; lease is "agents" by default)'
    ]
    assert config.load(write(f'[standby]\n{two}\nlease = "etcd://c"\n'), {}).standby.backup_of is not None


def test_a_port_of_an_engine_that_there_is_not_is_a_mistake(write) -> None:
    (told,) = mistakes(write('[standby]\nlease = "etcd://a:2379,b:70000/x"\n'))
    assert told == "rota.toml:2: standby.lease must have a port from 1 to 65535, not 70000"


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("begin orders", "must be start SERVICE, stop SERVICE or run COMMAND"),
        ("start or ders", "must be 1 to 64 ASCII letters"),
        ("run ", "must name the command"),
        ("run echo 'x", "cannot be split into words"),
        (7, "is no text of one line"),
    ],
)
def test_a_step_that_cannot_be_read_is_named_by_its_number(step: object, problem: str) -> None:
    with pytest.raises(config.ConfigErrors, match=f"on_takeover has a step 2 .*{problem}"):
        config.load(None, {}, {"standby.on_takeover": ["run true", step]})


def test_a_variable_has_a_step_a_line() -> None:
    loaded = config.load(None, {"ROTA_STANDBY_ON_TAKEOVER": "stop reports\nrun ip a, b\n"})
    assert loaded.standby.on_takeover == ("stop reports", "run ip a, b")
