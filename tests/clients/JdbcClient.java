// pgJDBC: fetch size, prepared statements that turn binary, batches, metadata, COPY, cancel, transactions.
// Where the server is stands in the variables of libpq, see check.py.

import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyOut;

public class JdbcClient {
    // Rows of this come for ever, twenty a second, each far smaller than any buffer.
    static final String STREAM = "SELECT CAST(order_id AS int) AS order_id, amount FROM orders";
    static final long LIMIT_MS = 120_000;
    static int failed = 0;

    interface Check {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        Thread limit = new Thread(JdbcClient::endWhenTimeIsUp);
        limit.setDaemon(true);
        limit.start();
        check("parameters_and_results_keep_their_values", JdbcClient::parametersAndResults);
        check("prepared_statements_turn_binary_after_five_uses", JdbcClient::preparedStatements);
        check("rows_stream_by_fetch_size", JdbcClient::fetchSize);
        check("statement_cancel_ends_an_endless_query", JdbcClient::cancel);
        check("query_timeout_ends_an_endless_query", JdbcClient::queryTimeout);
        check("rows_go_in_by_batches", JdbcClient::batches);
        check("rows_are_copied_out_and_in", JdbcClient::copies);
        check("metadata_of_results_tells_types", JdbcClient::resultMetadata);
        check("metadata_of_the_database_tells_tables_columns_and_keys", JdbcClient::databaseMetadata);
        check("transactions_fail_and_end", JdbcClient::transactions);
        if (System.getenv("PGPASSWORD") != null) {
            check("wrong_password_is_refused_and_not_shown", JdbcClient::wrongPassword);
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    static void endWhenTimeIsUp() {
        try {
            Thread.sleep(LIMIT_MS);
        } catch (InterruptedException stopped) {
            return;
        }
        System.out.println("FAILED: not done after " + LIMIT_MS + " ms");
        Runtime.getRuntime().halt(1);
    }

    static void check(String name, Check check) {
        try {
            check.run();
            System.out.println("ok " + name);
        } catch (Exception | AssertionError error) {
            failed++;
            System.out.println("FAILED " + name);
            error.printStackTrace(System.out);
        }
    }

    static void same(Object found, Object expected) {
        if (!Objects.deepEquals(found, expected)) {
            throw new AssertionError("found " + show(found) + ", expected " + show(expected));
        }
    }

    static String show(Object value) {
        return value instanceof Object[] values ? Arrays.deepToString(values) : String.valueOf(value);
    }

    static String environment(String name, String otherwise) {
        return Objects.requireNonNullElse(System.getenv(name), otherwise);
    }

    static Connection connect() throws SQLException {
        return connect(environment("PGPASSWORD", ""));
    }

    static Connection connect(String password) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", environment("PGUSER", "tests"));
        properties.setProperty("password", password);
        properties.setProperty("sslmode", environment("PGSSLMODE", "disable"));
        if (System.getenv("PGSSLROOTCERT") != null) {
            properties.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        }
        String place = environment("PGHOST", "127.0.0.1") + ":" + environment("PGPORT", "7432");
        return DriverManager.getConnection("jdbc:postgresql://" + place + "/" + environment("PGDATABASE", "lookaside"), properties);
    }

    static void parametersAndResults() throws SQLException {
        LocalDateTime moment = LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789_012_000);
        Object[][] values = {
            {"boolean", true},
            {"int", -7},
            {"bigint", 9007199254740993L},
            {"real", 1.5f},
            {"double precision", 1.1},
            {"numeric(12,4)", new BigDecimal("-12345.6700")},
            {"text", "héllo ✓ o'brien; --"},
            {"bytea", new byte[] {0, (byte) 255, 16}},
            {"date", LocalDate.of(2024, 2, 29)},
            {"timestamp", moment},
            {"timestamptz", moment.atOffset(java.time.ZoneOffset.UTC)},
            {"uuid", UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")},
        };
        try (Connection connection = connect()) {
            for (Object[] value : values) {
                try (PreparedStatement statement = connection.prepareStatement("SELECT CAST(? AS " + value[0] + ")")) {
                    statement.setObject(1, value[1]);
                    // The first uses are in text, later ones in binary.
                    for (int use = 0; use < 7; use++) {
                        same(only(statement, value[1].getClass()), value[1]);
                    }
                    statement.setObject(1, null);
                    same(only(statement, value[1].getClass()), null);
                }
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT CAST(? AS bigint[])")) {
                Long[] numbers = {1L, null, 9007199254740993L};
                statement.setArray(1, connection.createArrayOf("bigint", numbers));
                for (int use = 0; use < 7; use++) {
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        same(rows.getArray(1).getArray(), numbers);
                    }
                }
            }
        }
    }

    static Object only(PreparedStatement statement, Class<?> type) throws SQLException {
        try (ResultSet rows = statement.executeQuery()) {
            same(rows.next(), true);
            Object found = type == byte[].class ? rows.getBytes(1) : rows.getObject(1, type);
            Object value = rows.wasNull() ? null : found;
            same(rows.next(), false);
            return value;
        }
    }

    static void preparedStatements() throws SQLException {
        String query = "SELECT o.order_id, c.name FROM orders AS o LOOKUP JOIN customers AS c ON o.customer_id = c.id WHERE o.order_id > ? LIMIT 1";
        try (Connection connection = connect(); PreparedStatement statement = connection.prepareStatement(query)) {
            for (long after = 0; after < 8; after++) {
                statement.setLong(1, after);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    same(rows.getLong(1), after + 1);
                    same(rows.getString(2), "customer " + (2 + after));
                }
            }
            same(statement.unwrap(org.postgresql.PGStatement.class).isUseServerPrepare(), true);
        }
    }

    static void fetchSize() throws SQLException {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            for (int size : new int[] {1, 2}) {
                try (Statement statement = connection.createStatement()) {
                    statement.setFetchSize(size);
                    ResultSet rows = statement.executeQuery(STREAM);
                    for (int expected = 1; expected <= 5; expected++) {
                        same(rows.next(), true);
                        same(rows.getInt(1), expected);
                        same(rows.getBigDecimal("amount"), new BigDecimal(expected + ".50"));
                    }
                    rows.close();
                }
                connection.commit();
            }
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(3);
                ResultSet rows = statement.executeQuery("SELECT n FROM numbers LIMIT 7");
                int count = 0;
                while (rows.next()) {
                    same(rows.getInt(1), ++count);
                }
                same(count, 7);
            }
        }
    }

    static void cancel() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    statement.cancel();
                } catch (InterruptedException | SQLException error) {
                    error.printStackTrace(System.out);
                }
            });
            canceller.start();
            // Without a fetch size the driver gathers all rows: only the cancel ends it.
            expect("57014", () -> statement.executeQuery(STREAM));
            canceller.join();
            stillServes(connection);
        }
    }

    static void queryTimeout() throws SQLException {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            expect("57014", () -> statement.executeQuery(STREAM));
            stillServes(connection);
        }
    }

    static void expect(String state, Check check) {
        try {
            check.run();
        } catch (SQLException error) {
            same(error.getSQLState(), state);
            return;
        } catch (Exception error) {
            throw new AssertionError(error);
        }
        throw new AssertionError("no error where " + state + " was expected");
    }

    static void stillServes(Connection connection) throws SQLException {
        try (ResultSet rows = connection.createStatement().executeQuery("SELECT CAST(1 AS int)")) {
            rows.next();
            same(rows.getInt(1), 1);
        }
    }

    static void batches() throws SQLException {
        try (Connection reader = connect(); Connection writer = connect()) {
            reader.setAutoCommit(false);
            Statement statement = reader.createStatement();
            statement.setFetchSize(1);
            // The query begins when the first row is asked for: what is kept is read as well.
            writer.createStatement().executeUpdate("INSERT INTO inbox VALUES (0, 'first')");
            ResultSet rows = statement.executeQuery("SELECT id, note FROM inbox WITH (start = 'earliest')");
            same(rows.next(), true);
            try (PreparedStatement insert = writer.prepareStatement("INSERT INTO inbox VALUES (?, ?)")) {
                for (int id = 1; id <= 10; id++) {
                    insert.setLong(1, id);
                    insert.setString(2, id % 2 == 0 ? null : "note " + id);
                    insert.addBatch();
                }
                int[] ones = new int[10];
                Arrays.fill(ones, 1);
                same(insert.executeBatch(), ones);
            }
            for (int id = 1; id <= 10; id++) {
                same(rows.next(), true);
                same(rows.getLong(1), (long) id);
                same(rows.getString(2), id % 2 == 0 ? null : "note " + id);
            }
        }
    }

    static void copies() throws Exception {
        try (Connection connection = connect()) {
            var manager = connection.unwrap(PGConnection.class).getCopyAPI();
            same(manager.copyIn("COPY inbox FROM STDIN (FORMAT csv)", new StringReader("11,eleven\n12,\n")), 2L);
            CopyOut copy = manager.copyOut("COPY (" + STREAM + ") TO STDOUT (FORMAT csv)");
            for (String expected : List.of("1,1.50\n", "2,2.50\n", "3,3.50\n")) {
                same(new String(copy.readFromCopy()), expected);
            }
            copy.cancelCopy();
            // With PostgreSQL as well, this driver gives the answer to the cancel to the next statement.
            expect("57014", () -> stillServes(connection));
            stillServes(connection);
        }
    }

    static void resultMetadata() throws SQLException {
        try (Connection connection = connect();
                PreparedStatement statement = connection.prepareStatement("SELECT order_id, amount FROM orders WHERE order_id > ?")) {
            var columns = statement.getMetaData();
            same(columns.getColumnTypeName(1), "int8");
            same(columns.getColumnTypeName(2), "numeric");
            same(List.of(columns.getPrecision(2), columns.getScale(2)), List.of(12, 2));
            same(statement.getParameterMetaData().getParameterTypeName(1), "int8");
        }
    }

    static void databaseMetadata() throws SQLException {
        try (Connection connection = connect()) {
            var database = connection.getMetaData();
            same(names(database.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME"),
                List.of("customers", "inbox", "numbers", "orders"));
            same(names(database.getColumns(null, "public", "inbox", "%"), "COLUMN_NAME"), List.of("id", "note"));
            same(names(database.getColumns(null, "public", "inbox", "%"), "TYPE_NAME"), List.of("int8", "text"));
            same(names(database.getColumns(null, "public", "inbox", "%"), "IS_NULLABLE"), List.of("NO", "YES"));
            same(names(database.getPrimaryKeys(null, "public", "customers"), "COLUMN_NAME"), List.of("id"));
            same(names(database.getSchemas(), "TABLE_SCHEM").contains("public"), true);
            same(names(database.getTypeInfo(), "TYPE_NAME").contains("numeric"), true);
            same(names(database.getCatalogs(), "TABLE_CAT"), List.of(environment("PGDATABASE", "lookaside")));
            // Of these there are none; asking must not fail.
            same(names(database.getImportedKeys(null, "public", "orders"), "FKTABLE_NAME"), List.of());
            same(names(database.getProcedures(null, "public", "%"), "PROCEDURE_NAME"), List.of());
            same(database.getDatabaseMajorVersion(), 15);
        }
    }

    static List<String> names(ResultSet rows, String column) throws SQLException {
        List<String> names = new ArrayList<>();
        while (rows.next()) {
            names.add(rows.getString(column));
        }
        return names;
    }

    static void transactions() throws SQLException {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            Statement statement = connection.createStatement();
            expect("42601", () -> statement.executeQuery("SELEKT 1"));
            expect("25P02", () -> statement.executeQuery("SELECT 1"));
            connection.rollback();
            stillServes(connection);
            connection.commit();
            same(connection.isValid(5), true);
        }
    }

    static void wrongPassword() {
        try {
            connect("not the one").close();
        } catch (SQLException error) {
            same(error.getSQLState(), "28P01");
            same(error.getMessage().contains("not the one"), false);
            return;
        }
        throw new AssertionError("it was let in");
    }
}
