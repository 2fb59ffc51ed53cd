"""From what the user typed to a Worker, with the user's own traceback when it fails."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.worker import app
from rota.worker.loading import load, load_application, version_of

ORDERS = """
import rota
orders = rota.Worker("orders", version="from the code")
@orders.handler
def quote(symbol: str) -> str:
    return symbol
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test imports into an interpreter that has seen none of the others."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = ORDERS) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def failure(spec: str, folder: Path | None = None, **options: Any) -> rota.LoadError:
    with pytest.raises(rota.LoadError) as caught:
        load(spec, app_dir=str(folder) if folder else None, **options)
    assert not app.being_loaded
    return caught.value


def test_a_module_is_found_in_the_app_dir(tmp_path: Path) -> None:
    write(tmp_path, "shop_a/orders.py")
    assert load("shop_a.orders:orders", app_dir=str(tmp_path)).name == "orders"
    assert sys.path[0] == str(tmp_path)


def test_the_app_dir_comes_first_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.append(str(tmp_path))
    write(tmp_path, "app_b.py")
    monkeypatch.chdir(tmp_path)
    load("app_b")
    assert sys.path[0] == str(tmp_path) and sys.path.count(str(tmp_path)) == 1


def test_a_file_is_loaded_by_its_path_and_finds_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "prices_c.py", "PRICE = 3")
    path = write(tmp_path, "app_c.py", "import prices_c\n" + ORDERS)
    assert load(path).name == "orders"
    assert load(f"{path}:orders") is load("app_c:orders", app_dir=str(tmp_path))


def test_the_link_is_followed_not_remembered(tmp_path: Path) -> None:
    write(tmp_path, "releases/1/app_l.py")
    (tmp_path / "live").symlink_to(tmp_path / "releases/1")
    load("app_l", app_dir=str(tmp_path / "live"))
    assert sys.path[0] == str(tmp_path / "live")


@pytest.mark.parametrize("name", ["json.py", "my-app.py", "pytest.py"])
def test_a_file_takes_the_name_of_no_other_module(tmp_path: Path, name: str) -> None:
    import json

    load(write(tmp_path, name))
    assert sys.modules["json"] is json and sys.modules["pytest"] is pytest


def test_a_dotted_attribute_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "app_d.py", ORDERS + "class shop:\n    desk = orders\n")
    assert load(f"{path}:shop.desk").name == "orders"


def test_a_factory_makes_the_worker(tmp_path: Path) -> None:
    path = write(tmp_path, "app_e.py", ORDERS + "def create():\n    return orders\n")
    assert load(f"{path}:create", factory=True).name == "orders"
    assert "if it makes one, say --factory" in str(failure(f"{path}:create"))
    assert "--factory needs the name of the function" in str(failure(path, factory=True))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("orders", "is of type Worker"),
        ("asgi", "is an async function"),
        ("wsgi", "needs arguments (environ, start_response)"),
    ],
)
def test_what_is_no_factory_is_told_without_a_traceback(tmp_path: Path, name: str, what: str) -> None:
    applications = "async def asgi(scope, receive, send): ...\ndef wsgi(environ, start_response, *more, **rest): ...\n"
    error = failure(f"{write(tmp_path, 'app_e2.py', ORDERS + applications)}:{name}", factory=True)
    assert f":{name} {what}; a factory is a function without parameters" in str(error)
    assert "leave --factory out" in str(error) and not error.traceback_text


def test_a_failing_factory_is_told_with_its_traceback(tmp_path: Path) -> None:
    path = write(tmp_path, "app_f.py", "def create():\n    return {}['key']\n")
    error = failure(f"{path}:create", factory=True)
    assert "create() failed: KeyError: 'key'" in str(error) and "in create" in error.traceback_text


def test_the_only_worker_needs_no_name_and_one_of_several_does(tmp_path: Path) -> None:
    again = write(tmp_path, "app_g.py", ORDERS + "alias = orders\n")
    assert load(again).name == "orders"
    two = write(tmp_path, "app_h.py", ORDERS + 'other = rota.Worker("other")\n')
    error = str(failure(two))
    assert "has 2 rota.Workers; say which" in error and f"{two}:other" in error
    none = write(tmp_path, "app_i.py", "x = 1")
    assert "has no rota.Worker at its top level" in str(failure(none))


def test_an_application_that_fails_to_import_shows_its_own_traceback(tmp_path: Path) -> None:
    write(tmp_path, "prices_j.py", "import no_such_library\n")
    write(tmp_path, "app_j.py", "import prices_j\n" + ORDERS)
    for spec in ("app_j:orders", str(tmp_path / "app_j.py")):
        error = failure(spec, tmp_path)
        assert "ModuleNotFoundError: No module named 'no_such_library'" in str(error)
        text = error.traceback_text
        assert text.startswith("Traceback") and "prices_j.py" in text and "loading.py" not in text
        assert "app_j" not in sys.modules


@pytest.mark.parametrize("text", ["from shop_q.sub import prices\n", "from . import prices\n"])
def test_a_file_that_imports_its_own_package_is_told_how_to_say_it_as_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in ("shop_q/__init__.py", "shop_q/sub/__init__.py", "shop_q/sub/prices.py"):
        write(tmp_path, name, "")
    path = write(tmp_path, "shop_q/sub/app.py", text + ORDERS)
    hint = f"; the file belongs to a package: say shop_q.sub.app with --app-dir {tmp_path} in place of {path}"
    error = failure(f"{path}:orders")
    assert str(error).endswith(hint) and error.traceback_text.endswith(hint + "\n")
    assert load("shop_q.sub.app:orders", app_dir=str(tmp_path)).name == "orders"
    monkeypatch.chdir(tmp_path)
    for name in ("shop_q.sub.app", "shop_q.sub", "shop_q"):
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert str(failure("shop_q/sub/app.py")).endswith("say shop_q.sub.app in place of shop_q/sub/app.py")


@pytest.mark.parametrize("text", ["import no_such_library\n", "from shop_r import nothing\n", "raise ImportError\n"])
def test_a_file_of_a_package_that_fails_for_another_reason_is_told_nothing_else(tmp_path: Path, text: str) -> None:
    write(tmp_path, "shop_r/__init__.py", "")
    path = write(tmp_path, "shop_r/app.py", text)
    sys.path.append(str(tmp_path))
    assert "belongs to a package" not in str(failure(path))
    alone = write(tmp_path, "shop_s/app_s.py", "from . import prices\n")
    assert "belongs to a package" not in str(failure(alone))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import sys; sys.exit('usage: app')\n", "SystemExit: usage: app"),
        ("import rota\nrota.Worker('o').handler(1)\n", "TypeError: o: a handler must be a function, not 1"),
        (ORDERS + "orders.run()\n", 'put it under `if __name__ == "__main__":`'),
    ],
)
def test_whatever_an_import_does_wrong_is_told(tmp_path: Path, text: str, cause: str) -> None:
    error = failure(write(tmp_path, "app_k.py", text))
    assert cause in str(error) and "app_k.py" in error.traceback_text
    assert "loading.py" not in error.traceback_text, "which is not the user's"


def test_a_file_that_is_loaded_again_is_not_run_again(tmp_path: Path) -> None:
    """Whoever imports it finds the same objects."""
    path = write(tmp_path, "app_t.py")
    assert load(path) is load(path) is sys.modules["app_t"].orders


def test_a_file_that_is_no_python_is_refused(tmp_path: Path) -> None:
    assert "run.sh is not a Python file" in str(failure(write(tmp_path, "run.sh", "exec true\n")))


def test_what_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "app_m.py")
    assert "there is no module 'app_n'" in str(failure("app_n:orders", tmp_path))
    assert "did you mean app_m?" in str(failure("app_n:orders", tmp_path))
    assert "there is no module 'app_m.sub'" in str(failure("app_m.sub", tmp_path))
    assert "has no attribute 'order'; did you mean orders?" in str(failure(f"{path}:order"))
    assert "there is no file" in str(failure(str(tmp_path / "app_o.py")))
    assert str(failure(str(tmp_path))) == f"{tmp_path} is a directory: a file or a module expected"
    assert failure("app_n", tmp_path / "nowhere").traceback_text == ""


@pytest.mark.parametrize("spec", ["", ":orders", "app:a b", "app:1", "a b:orders", "a..b"])
def test_what_is_not_an_application_is_refused(spec: str) -> None:
    assert "not an application" in str(failure(spec)) or "not the name of a module" in str(failure(spec))


def test_anything_but_a_worker_with_handlers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "app_p.py", 'import rota\nempty = rota.Worker("orders")\nnumber = 3\n')
    sentence = f"rota serves a rota.Worker, a WSGI or an ASGI application; {path}:number is a int"
    assert str(failure(f"{path}:number")) == sentence
    assert "the worker 'orders' has no handlers" in str(failure(f"{path}:empty"))


# ---- WSGI and ASGI applications ------------------------------------------------------------------------------------

APPLICATIONS = """
import functools
import rota

def wsgi(environ, start_response): ...
def optional(environ, start_response, extra=None): ...
async def asgi(scope, receive, send): ...
async def starred(*args): ...

class Framework:
    def __call__(self, environ, start_response): ...
    def method(self, environ, start_response): ...
    async def coroutine(self, scope, receive, send): ...

class AsyncFramework:
    async def __call__(self, scope, receive, send): ...

class Iterable:
    def __init__(self, environ, start_response): ...
    def __iter__(self): ...

class Pair:
    def __init__(self, left, right): ...

class Endpoint:
    def __init__(self, scope, receive, send): ...
    def __await__(self): ...

class Asgi2:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...

def asgi2(scope): ...
def create(): return wsgi
def create_asgi(): return AsyncFramework()
def any(*args): ...
def named(environ, start_response, *, mode): ...
def plain_three(scope, receive, send): ...
def one(symbol): ...
async def two(receive, send): ...
async def yielding(environ, start_response): yield b""

framework, async_framework = Framework(), AsyncFramework()
method, coroutine = framework.method, framework.coroutine
partial = functools.partial(lambda config, environ, start_response: None, 1)

@functools.wraps(wsgi)
def wrapped(*args, **kwargs): ...

worker = rota.Worker("orders")
worker.handler(name="quote")(lambda: 1)
"""
WSGI = ("wsgi", "optional", "framework", "method", "Iterable", "partial", "wrapped")
ASGI = ("asgi", "starred", "async_framework", "coroutine", "Endpoint")


@pytest.mark.parametrize("name", [*WSGI, *ASGI])
def test_the_interface_of_an_application_is_seen(tmp_path: Path, name: str) -> None:
    worker = load(f"{write(tmp_path, 'my_shop.py', APPLICATIONS)}:{name}")
    assert (worker.name, worker.is_async) == ("my_shop", name in ASGI)
    assert {each.name: each.idempotent for each in worker.handlers.values()} == {
        "http": False,
        "http-safe": True,
        "websocket": False,
    }


def test_both_interfaces_look_the_same_to_callers(tmp_path: Path) -> None:
    path = write(tmp_path, "my_shop.py", APPLICATIONS)
    one, other = load(f"{path}:wsgi").interface(), load(f"{path}:asgi").interface()
    assert one == other  # so a service may change from one to the other, node by node


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("asgi2", "is called with the scope alone, as ASGI 2 applications are; rota serves ASGI 3"),
        ("Asgi2", "is called with the scope alone, as ASGI 2 applications are; rota serves ASGI 3"),
        ("create", "is a callable that takes 0 parameters"),
        ("create", "if it makes one, say --factory"),
        ("Framework", "if it makes one, say --factory"),
        ("Pair", "is a class that takes 2 parameters: a WSGI application takes 2"),
        ("Pair", "(a class: its objects have __iter__ or __await__); --interface"),
        ("any", "takes 0 or more parameters"),
        ("named", "needs an argument 'mode' by name"),
        ("plain_three", "is a callable that takes 3 parameters"),
        ("one", "is a callable that takes 1 parameter:"),
        ("two", "is an async callable that takes 2 parameters"),
        ("yielding", "--interface wsgi or --interface asgi insists"),
    ],
)
def test_what_is_neither_is_refused_with_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    error = failure(f"{write(tmp_path, 'my_shop.py', APPLICATIONS)}:{name}")
    assert f"my_shop.py:{name} " in str(error) and sentence in str(error)


def test_the_user_may_insist(tmp_path: Path) -> None:
    path = write(tmp_path, "my_shop.py", APPLICATIONS)
    assert load(f"{path}:plain_three", interface="asgi").is_async
    assert not load(f"{path}:any", interface="wsgi").is_async
    assert load(f"{path}:worker", interface="rota").name == "orders"
    assert load(path, interface="auto").name == "orders"
    assert "is a rota.Worker, and no WSGI application" in str(failure(f"{path}:worker", interface="wsgi"))
    assert "rota serves a rota.Worker; " in str(failure(f"{path}:wsgi", interface="rota"))
    assert "my_shop.py:framework is a my_shop.Framework" in str(failure(f"{path}:framework", interface="rota"))


def test_a_factory_makes_any_application(tmp_path: Path) -> None:
    path = write(tmp_path, "my_shop.py", APPLICATIONS)
    assert not load(f"{path}:create", factory=True).is_async
    assert load(f"{path}:create_asgi", factory=True).is_async
    assert not load(f"{path}:Framework", factory=True).is_async


def test_an_application_is_called_as_its_service_or_its_module(tmp_path: Path) -> None:
    write(tmp_path, "my_shop/wsgi.py", APPLICATIONS)
    assert load("my_shop.wsgi:wsgi", app_dir=str(tmp_path)).name == "my_shop-wsgi"
    assert load("my_shop.wsgi:wsgi", app_dir=str(tmp_path), service="site").name == "site"
    assert load("my_shop.wsgi:worker", app_dir=str(tmp_path), service="site").name == "orders"
    odd = write(tmp_path, "my shop (2).py", APPLICATIONS)
    assert load(f"{odd}:wsgi").name == "my-shop-2"
    none = write(tmp_path, "\u00e9.py", APPLICATIONS)
    assert "gives no name for the service; say one: --service NAME" in str(failure(f"{none}:wsgi"))
    assert load(f"{none}:wsgi", service="site").name == "site"


def test_the_version_is_flag_then_file_then_code(tmp_path: Path) -> None:
    orders = load(write(tmp_path, "app_q.py", ORDERS.replace("from the code", "code-1")))
    here = str(tmp_path)
    assert version_of(orders, app_dir=here) == "code-1"
    (tmp_path / "VERSION").write_text("\n")
    assert version_of(orders, app_dir=here) == "code-1"
    (tmp_path / "VERSION").write_text("2.1\nbuilt on Monday\n")
    assert version_of(orders, app_dir=here) == "2.1"
    assert version_of(orders, flag="3", app_dir=here) == "3"
    orders.version = None
    (tmp_path / "VERSION").unlink()
    assert version_of(orders, app_dir=here) == "unversioned"


@pytest.mark.parametrize("content", [b"\xff\xfe2", b"a b", b"x" * 65, b"2\x1b[31m"])
def test_a_version_that_cannot_be_shown_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "VERSION").write_bytes(content)
    with pytest.raises(rota.LoadError):
        version_of(rota.Worker("orders"), app_dir=str(tmp_path))


WSGI = """
def application(environ, start_response):
    return []
"""


@pytest.mark.parametrize(
    "code, why",
    [(ORDERS, "app_at_once.py:orders is served one request at a time"), (WSGI, "a WSGI application: say --threads")],
)
def test_concurrency_is_for_async_applications(tmp_path: Path, code: str, why: str) -> None:
    path = write(tmp_path, "app_at_once.py", code)
    attribute = "orders" if code is ORDERS else "application"
    specification = dict(app=f"{path}:{attribute}", interface="auto", service="", factory=False, version="1")
    with pytest.raises(rota.LoadError, match=f"--concurrency 8: that is for async applications; .*{why}"):
        load_application({**specification, "concurrency": 8})
    assert load_application(specification)[0].handlers


def test_an_async_application_is_served_as_many_requests_at_once_as_concurrency_says(tmp_path: Path) -> None:
    path = write(tmp_path, "app_async.py", ORDERS.replace("def quote", "async def quote"))
    specification = dict(app=path, interface="auto", service="", factory=False, version="1")
    assert load_application({**specification, "concurrency": 8})[0].is_async
