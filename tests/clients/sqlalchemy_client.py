"""SQLAlchemy over psycopg, asyncpg and pg8000: engine, inspector, rows as they come, transactions."""
import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from check import STREAM, check, finish, same, settings, tls


def url(driver):
    found = settings()
    return sa.URL.create(
        f"postgresql+{driver}", found["user"], found.get("password"), found["host"], found["port"], found["database"]
    )


# libpq reads its variables beside the URL; the others are handed their TLS.
psycopg = sa.create_engine(url("psycopg"))
pg8000 = sa.create_engine(url("pg8000"), connect_args={"ssl_context": tls()})

ENRICHED = sa.text(
    "SELECT o.order_id, c.name FROM orders AS o LOOKUP JOIN customers AS c ON o.customer_id = c.id LIMIT :limit"
)


@check
def engines_of_two_drivers_run_a_lookup_join():
    for engine in (psycopg, pg8000):
        with engine.connect() as connection:
            rows = connection.execute(ENRICHED, {"limit": 2}).all()
            same([tuple(row) for row in rows], [(1, "customer 2"), (2, "customer 3")])
            same(connection.scalar(sa.select(sa.cast(sa.literal("7"), sa.Integer))), 7)


@check
async def asynchronous_engine_streams_rows():
    engine = create_async_engine(url("asyncpg"), connect_args={"ssl": tls() or False})
    async with engine.connect() as connection:
        rows = await connection.stream(sa.text(STREAM), execution_options={"max_row_buffer": 1})
        numbers = []
        async for row in rows:
            numbers.append(row.order_id)
            if len(numbers) == 3:
                break
        same(numbers, [1, 2, 3])
        await rows.close()
    await engine.dispose()


@check
def rows_stream_with_stream_results():
    with psycopg.connect() as connection:
        options = {"stream_results": True, "max_row_buffer": 1}
        rows = connection.execution_options(**options).execute(sa.text(STREAM))
        same([next(rows).order_id for _ in range(3)], [1, 2, 3])
        rows.close()
        same(connection.scalar(sa.text("SELECT CAST(1 AS int)")), 1)


@check
def inspector_finds_tables_views_columns_and_keys():
    with psycopg.connect() as connection:
        connection.execute(sa.text("CREATE OR REPLACE VIEW large AS SELECT order_id FROM orders WHERE amount > 10"))
        connection.commit()
    inspector = sa.inspect(psycopg)
    same(inspector.get_schema_names(), ["information_schema", "lookaside", "public"])
    same(sorted(inspector.get_table_names()), ["customers", "inbox", "numbers", "orders"])
    same(inspector.get_view_names(), ["large"])
    columns = {column["name"]: (type(column["type"]), column["nullable"]) for column in inspector.get_columns("inbox")}
    same(columns, {"id": (sa.BIGINT, False), "note": (sa.TEXT, True)})
    amount = inspector.get_columns("orders")[2]["type"]
    same((amount.precision, amount.scale), (12, 2))
    same(inspector.get_pk_constraint("customers")["constrained_columns"], ["id"])
    same(inspector.has_table("orders"), True)
    same(inspector.has_table("nothing"), False)
    assert "order_id" in inspector.get_view_definition("large")


@check
def reflected_table_is_read_and_written():
    inbox = sa.Table("inbox", sa.MetaData(), autoload_with=psycopg)
    with psycopg.begin() as writer:
        writer.execute(inbox.insert(), [{"id": 1, "note": "one"}, {"id": 2, "note": "two"}])
    with psycopg.connect() as reader:
        notes = sa.text("SELECT note FROM inbox WITH (start = 'earliest')").columns(inbox.c.note)
        rows = reader.execution_options(stream_results=True, max_row_buffer=1).execute(notes)
        same([next(rows).note for _ in range(2)], ["one", "two"])
        rows.close()


finish()
