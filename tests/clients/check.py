"""What the checks in Python share: a line a check, and where the server is.

The server is named by the variables of libpq: PGHOST, PGPORT, PGUSER, PGDATABASE, and where it asks for them PGPASSWORD,
PGSSLMODE and PGSSLROOTCERT. It serves the catalog in `catalog.toml`."""
import datetime as dt
import decimal
import faulthandler
import inspect
import os
import ssl
import sys
import traceback
import uuid

# Rows of this come for ever, twenty a second, each far smaller than any buffer.
STREAM = "SELECT CAST(order_id AS int) AS order_id, amount FROM orders"
# Whether the server asks for a password.
SECURED = "PGPASSWORD" in os.environ
# Longer than any check may take: whoever hangs says where.
LIMIT_SECONDS = 120

MOMENT = dt.datetime(2024, 2, 29, 12, 34, 56, 789012)
VALUES = [
    ("boolean", True),
    ("smallint", -7),
    ("int", 2**31 - 1),
    ("bigint", 2**53 + 1),
    ("real", 1.5),
    ("double precision", 1.1),
    ("numeric(12,4)", decimal.Decimal("-12345.6700")),
    ("text", "héllo ✓ o'brien; --"),
    ("bytea", b"\x00\xff\x10"),
    ("date", dt.date(2024, 2, 29)),
    ("timestamp", MOMENT),
    ("timestamptz", MOMENT.replace(tzinfo=dt.timezone.utc)),
    ("uuid", uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
]
ARRAYS = [
    ("bigint[]", [1, None, 2**53 + 1]),
    ("text[]", ["a", 'b "c"', None]),
]

_failed = []


def check(function):
    """Runs a check, a coroutine or not, and tells how it went."""
    try:
        outcome = function()
        if inspect.iscoroutine(outcome):
            import asyncio

            asyncio.run(outcome)
        print("ok", function.__name__, flush=True)
    except Exception:
        _failed.append(function.__name__)
        print("FAILED", function.__name__, flush=True)
        traceback.print_exc(file=sys.stdout)


def same(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def settings():
    """Where the server is, in the words of drivers that do not read libpq's variables."""
    named = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "database": "PGDATABASE", "password": "PGPASSWORD"}
    found = {word: os.environ[name] for word, name in named.items() if name in os.environ}
    return found | {"port": int(found["port"])}


def tls():
    """The TLS that PGSSLMODE asks for; None without."""
    mode = os.environ.get("PGSSLMODE", "disable")
    if mode == "disable":
        return None
    context = ssl.create_default_context(cafile=os.environ.get("PGSSLROOTCERT"))
    if mode != "verify-full":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def finish():
    sys.exit(1 if _failed else 0)


faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
