"""psycopg 3: text and binary results, three ways to stream, cancel, rows in, transactions, pipelines."""
import threading

import psycopg

from check import ARRAYS, SECURED, STREAM, VALUES, check, finish, same


def connect(**options):
    # libpq reads where the server is.
    return psycopg.connect(autocommit=True, **options)


@check
def parameters_and_results_keep_their_values():
    with connect() as connection:
        connection.execute("SET TimeZone TO 'UTC'")
        for binary in (False, True):
            mark = "%b" if binary else "%t"
            for name, value in VALUES + ARRAYS:
                row = connection.execute(f"SELECT CAST({mark} AS {name})", (value,), binary=binary).fetchone()
                assert row == (value,), f"{name}, binary {binary}: found {row!r}, expected {value!r}"
            same(connection.execute("SELECT CAST(%s AS text)", (None,), binary=binary).fetchone(), (None,))


@check
def prepared_statements_are_run_again():
    with connect() as connection:
        for number in range(3):
            row = connection.execute("SELECT CAST(%s AS int)", (number,), prepare=True).fetchone()
            same(row, (number,))


@check
def rows_stream_by_server_side_cursor():
    with connect() as connection, connection.transaction(), connection.cursor(name="orders") as cursor:
        cursor.itersize = 1
        cursor.execute(STREAM)
        same([next(cursor)[0] for _ in range(3)], [1, 2, 3])
        same([column.name for column in cursor.description], ["order_id", "amount"])


@check
def rows_stream_one_by_one_and_cancel_ends_them():
    for binary in (False, True):
        with connect() as connection, connection.cursor(binary=binary) as cursor:
            rows = cursor.stream(STREAM)
            same([next(rows)[0] for _ in range(3)], [1, 2, 3])
            threading.Thread(target=connection.cancel_safe).start()
            try:
                for _ in rows:
                    pass
                raise AssertionError("the stream has ended without an error")
            except psycopg.errors.QueryCanceled as error:
                same(error.sqlstate, "57014")
            same(connection.execute("SELECT CAST(1 AS int)").fetchone(), (1,))


@check
def rows_stream_by_copy():
    for options, number in (("", "1"), (" (FORMAT binary)", 1)):
        connection = connect()
        with_types = bool(options)
        try:
            with connection.cursor().copy(f"COPY ({STREAM}) TO STDOUT{options}") as copy:
                if with_types:
                    copy.set_types(["int4", "numeric"])
                same(next(copy.rows())[0], number)
                connection.cancel_safe()
        except psycopg.errors.QueryCanceled:
            pass
        finally:
            connection.close()


@check
def rows_go_in_by_insert_and_copy():
    with connect() as reader, connect() as writer:
        with reader.transaction(), reader.cursor(name="inbox") as cursor:
            cursor.itersize = 1
            cursor.execute("SELECT id, note FROM inbox")
            for binary in ("%t", "%b"):
                writer.execute(f"INSERT INTO inbox VALUES ({binary}, {binary})", (1, "one"))
                same(next(cursor), (1, "one"))
            with writer.cursor().copy("COPY inbox FROM STDIN") as copy:
                copy.write_row((2, "tab\tand\nline"))
                copy.write_row((3, None))
            same([next(cursor), next(cursor)], [(2, "tab\tand\nline"), (3, None)])
            writer.cursor().executemany("INSERT INTO inbox VALUES (%s, %s)", [(4, "a"), (5, "b")])
            same([next(cursor), next(cursor)], [(4, "a"), (5, "b")])


@check
def transactions_fail_and_end():
    status = psycopg.pq.TransactionStatus
    with connect() as connection:
        connection.execute("BEGIN")
        try:
            connection.execute("SELEKT")
        except psycopg.errors.SyntaxError:
            pass
        same(connection.info.transaction_status, status.INERROR)
        try:
            connection.execute("SELECT 1")
            raise AssertionError("a failed transaction took a query")
        except psycopg.errors.InFailedSqlTransaction:
            pass
        connection.execute("ROLLBACK")
        same(connection.info.transaction_status, status.IDLE)
        try:
            with connection.transaction():
                connection.execute("INSERT INTO inbox VALUES (1)")
                raise ValueError
        except ValueError:
            pass
        same(connection.info.transaction_status, status.IDLE)


@check
def statements_in_a_pipeline_are_answered_in_order():
    with connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT CAST(%s AS int)", (number,)) for number in range(5)]
            same([cursor.fetchone()[0] for cursor in cursors], list(range(5)))
        try:
            with connection.pipeline():
                connection.execute("SELECT nobody")
        except psycopg.errors.UndefinedColumn:
            pass
        same(connection.execute("SELECT CAST(1 AS int)").fetchone(), (1,))


if SECURED:

    @check
    def wrong_password_is_refused_and_not_shown():
        try:
            connect(password="not the one")
            raise AssertionError("it was let in")
        except psycopg.OperationalError as error:
            assert "password authentication failed" in str(error), str(error)
            assert "not the one" not in str(error)

    @check
    def connection_is_encrypted():
        with connect() as connection:
            assert connection.pgconn.ssl_in_use


finish()
