"""pg8000: its native interface and DB-API, types as text, rows by DECLARE and FETCH, COPY both ways."""
import io

import pg8000.dbapi
import pg8000.native

from check import ARRAYS, SECURED, STREAM, VALUES, check, finish, same, settings, tls


def connect(**options):
    return pg8000.native.Connection(**(settings() | options), ssl_context=tls())


@check
def parameters_and_results_keep_their_values():
    connection = connect()
    connection.run("SET TimeZone TO 'UTC'")
    for name, value in VALUES + ARRAYS:
        [[found]] = connection.run(f"SELECT CAST(:value AS {name})", value=value)
        assert found == value, f"{name}: found {found!r}, expected {value!r}"
    same(connection.run("SELECT CAST(:value AS text)", value=None), [[None]])
    connection.close()


@check
def prepared_statements_are_run_again():
    connection = connect()
    statement = connection.prepare("SELECT CAST(:value AS int) + 1")
    same([statement.run(value=value) for value in range(3)], [[[1]], [[2]], [[3]]])
    statement.close()
    connection.close()


@check
def rows_stream_by_declare_and_fetch():
    connection = connect()
    connection.run("BEGIN")
    connection.run(f"DECLARE orders_so_far NO SCROLL CURSOR FOR {STREAM}")
    same([connection.run("FETCH 1 FROM orders_so_far")[0][0] for _ in range(3)], [1, 2, 3])
    same([column["name"] for column in connection.columns], ["order_id", "amount"])
    connection.run("CLOSE orders_so_far")
    connection.run("COMMIT")
    same(connection.run("SELECT CAST(1 AS int)"), [[1]])
    connection.close()


@check
def rows_are_copied_out_and_in():
    reader, writer = connect(), connect()
    reader.run("BEGIN")
    reader.run("DECLARE arrivals CURSOR FOR SELECT id, note FROM inbox")
    writer.run("COPY inbox FROM STDIN (FORMAT csv)", stream=io.StringIO("1,one\n2,\n"))
    same(reader.run("FETCH 2 FROM arrivals"), [[1, "one"], [2, None]])
    reader.close()
    seen = io.BytesIO()
    writer.run("COPY (SELECT order_id, amount FROM orders LIMIT 3) TO STDOUT", stream=seen)
    same(seen.getvalue(), b"1\t1.50\n2\t2.50\n3\t3.50\n")
    writer.close()


@check
def db_api_commits_rolls_back_and_tells_errors():
    connection = pg8000.dbapi.connect(**settings(), ssl_context=tls())
    cursor = connection.cursor()
    cursor.execute("SELECT CAST(%s AS int), CAST(%s AS text)", (1, "o'brien"))
    same(tuple(cursor.fetchone()), (1, "o'brien"))
    for sql, state in [("SELEKT 1", "42601"), ("SELECT 1", "25P02")]:
        try:
            cursor.execute(sql)
            raise AssertionError(f"{sql}: no error")
        except pg8000.dbapi.DatabaseError as error:
            same(error.args[0]["C"], state)
    connection.rollback()
    cursor.execute("INSERT INTO inbox VALUES (%s, %s)", (1, "one"))
    same(cursor.rowcount, 1)
    connection.commit()
    connection.close()


if SECURED:

    @check
    def wrong_password_is_refused_and_not_shown():
        try:
            connect(password="not the one")
            raise AssertionError("it was let in")
        except pg8000.native.DatabaseError as error:
            same(error.args[0]["C"], "28P01")
            assert "not the one" not in str(error)


finish()
