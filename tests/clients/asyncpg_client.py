"""asyncpg: everything in binary, its own questions about types, cursors, COPY both ways, cancel, pools."""
import asyncio
import io
import os

import asyncpg

from check import ARRAYS, SECURED, STREAM, VALUES, check, finish, same


def connect(**options):
    # It reads libpq's variables.
    return asyncpg.connect(**options)


@check
async def parameters_and_results_keep_their_values():
    connection = await connect()
    for name, value in VALUES:
        found = await connection.fetchval(f"SELECT CAST($1 AS {name})", value)
        assert found == value, f"{name}: found {found!r}, expected {value!r}"
    same(await connection.fetchval("SELECT CAST($1 AS text)", None), None)
    await connection.close()


@check
async def types_that_it_has_to_ask_about_keep_their_values():
    connection = await connect()
    for name, value in ARRAYS:
        found = await connection.fetchval(f"SELECT CAST($1 AS {name})", value)
        assert found == value, f"{name}: found {found!r}, expected {value!r}"
    await connection.close()


@check
async def prepared_statement_tells_its_parameters_and_columns():
    connection = await connect()
    statement = await connection.prepare("SELECT order_id, amount FROM orders WHERE order_id > $1")
    same([parameter.name for parameter in statement.get_parameters()], ["int8"])
    same([(column.name, column.type.name) for column in statement.get_attributes()], [("order_id", "int8"), ("amount", "numeric")])
    await connection.close()


@check
async def rows_stream_by_cursor():
    connection = await connect()
    async with connection.transaction():
        numbers = []
        async for row in connection.cursor(STREAM, prefetch=1):
            numbers.append(row["order_id"])
            if len(numbers) == 3:
                break
        same(numbers, [1, 2, 3])
    async with connection.transaction():
        cursor = await connection.cursor(STREAM)
        same([row[0] for row in await cursor.fetch(2)], [1, 2])
        same((await cursor.fetchrow())[0], 3)
    same(await connection.fetchval("SELECT CAST(1 AS int)"), 1)
    await connection.close()


@check
async def rows_stream_by_copy():
    connection = await connect()
    seen, enough = io.BytesIO(), asyncio.Event()

    async def keep(data):
        seen.write(data)
        if seen.getvalue().count(b"\n") >= 3:
            enough.set()

    copy = asyncio.create_task(connection.copy_from_query(STREAM, output=keep, format="csv"))
    await enough.wait()
    copy.cancel()
    try:
        await copy
    except asyncio.CancelledError:
        pass
    same(seen.getvalue().splitlines()[:3], [b"1,1.50", b"2,2.50", b"3,3.50"])
    same(await connection.fetchval("SELECT CAST(1 AS int)"), 1)
    await connection.close()


@check
async def time_out_cancels_at_the_server():
    connection = await connect()
    try:
        await connection.fetch(STREAM, timeout=0.3)
        raise AssertionError("the stream has ended without an error")
    except asyncio.TimeoutError:
        pass
    same(await connection.fetchval("SELECT count(*) FROM lookaside.queries WHERE sql LIKE '%FROM orders%'"), 0)
    await connection.close()


@check
async def rows_go_in_by_insert_and_copy():
    reader, writer = await connect(), await connect()
    async with reader.transaction():
        cursor = await reader.cursor("SELECT id, note FROM inbox")
        await writer.execute("INSERT INTO inbox VALUES ($1, $2)", 1, "one")
        same(tuple(await cursor.fetchrow()), (1, "one"))
        await writer.executemany("INSERT INTO inbox VALUES ($1, $2)", [(2, "two"), (3, None)])
        same([tuple(row) for row in await cursor.fetch(2)], [(2, "two"), (3, None)])
        same(await writer.copy_records_to_table("inbox", records=[(4, "tab\tand\nline"), (5, None)]), "COPY 2")
        same([tuple(row) for row in await cursor.fetch(2)], [(4, "tab\tand\nline"), (5, None)])
        source = io.BytesIO(b"6,six\n7,\n")
        same(await writer.copy_to_table("inbox", source=source, format="csv"), "COPY 2")
        same([tuple(row) for row in await cursor.fetch(2)], [(6, "six"), (7, None)])
    await reader.close()
    await writer.close()


@check
async def errors_have_their_classes():
    connection = await connect()
    for sql, expected in [
        ("SELEKT 1", asyncpg.PostgresSyntaxError),
        ("SELECT * FROM nothing", asyncpg.UndefinedTableError),
        ("SELECT nobody", asyncpg.UndefinedColumnError),
        ("SELECT 1 / CAST(0 AS int)", asyncpg.DivisionByZeroError),
    ]:
        try:
            await connection.fetch(sql)
            raise AssertionError(f"{sql}: no error")
        except expected:
            pass
    transaction = connection.transaction()
    await transaction.start()
    for sql, expected in [("SELEKT 1", asyncpg.PostgresSyntaxError), ("SELECT 1", asyncpg.InFailedSQLTransactionError)]:
        try:
            await connection.execute(sql)
            raise AssertionError(f"{sql}: no error")
        except expected:
            pass
    await transaction.rollback()
    same(await connection.fetchval("SELECT CAST(1 AS int)"), 1)
    await connection.close()


@check
async def pooled_connections_are_reset_and_used_again():
    async with asyncpg.create_pool(min_size=1, max_size=2) as pool:
        async with pool.acquire() as connection:
            await connection.execute("SET application_name TO 'changed'")
        found = await asyncio.gather(*(pool.fetchval("SELECT CAST($1 AS int)", number) for number in range(20)))
        same(found, list(range(20)))
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW application_name") != "changed"


if SECURED:

    @check
    async def wrong_password_is_refused_and_not_shown():
        try:
            await connect(password="not the one")
            raise AssertionError("it was let in")
        except asyncpg.InvalidPasswordError as error:
            assert "not the one" not in str(error)


finish()
