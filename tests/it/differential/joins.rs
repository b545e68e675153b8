//! The joins, as Lookaside is asked them; `mod.rs` says what becomes of them.

/// Conditions of both `orders AS o LOOKUP JOIN people AS p` and `orders AS o LEFT LOOKUP JOIN people AS p`.
pub const KEYS: &[&str] = &[
    // Keys of each type, and of types that differ.
    "o.big = p.big",
    "o.small = p.small",
    "o.big = p.small",
    "p.big = o.small",
    "o.words = p.words",
    "o.code = p.code",
    "o.words = p.code",
    "o.price = p.price",
    "o.big = p.price",
    "o.price = p.big",
    "o.ratio = p.ratio",
    "o.price = p.ratio",
    "o.day = p.day",
    "o.at = p.at",
    "o.ref = p.ref",
    "o.raw = p.raw",
    "o.flag = p.flag AND p.id <= 6",
    // Several, in another order than the table's.
    "o.flag = p.flag AND o.small = p.small",
    "p.flag = o.flag AND o.code = p.code AND p.small = o.small",
    "o.ref = p.ref AND p.words = o.words",
    // Computed ones.
    "o.big - 1 = p.big",
    "lower(o.words) = p.words",
    "coalesce(o.code, 'none') = p.code",
    "CAST(o.small AS text) = p.code",
    "CASE WHEN o.flag THEN o.big ELSE o.small END = p.big",
    "o.code || '' = p.code",
    "o.price * 10 = p.price",
    "CAST(o.at AS date) = p.day",
    // Constant ones.
    "p.big = 3",
    "p.words = 'it''s'",
    "p.code = '\\N' AND o.flag",
    "p.ref = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AND o.small = p.small",
    "p.day = DATE '1970-01-01'",
    // A second equality on the same column.
    "o.big = p.big AND o.small = p.big",
    "o.big = p.big AND p.big = p.small",
    "o.big = p.big AND p.big = 3",
];

/// Conditions of `orders AS o LEFT LOOKUP JOIN people AS p`, where a row is not lost but padded if they are not true.
pub const CONDITIONS: &[&str] = &[
    // Conditions on the table alone.
    "o.big = p.big AND p.small = 2",
    "o.big = p.big AND p.small <> 2",
    "o.big = p.big AND p.words < 'm'",
    "o.big = p.big AND p.words >= 'É'",
    "o.big = p.big AND p.small IN (1, 2, 3)",
    "o.big = p.big AND p.words NOT IN ('a', 'A', 'it''s', '$1')",
    "o.big = p.big AND p.price BETWEEN 0.5 AND 12.5",
    "o.big = p.big AND p.words NOT BETWEEN 'A' AND 'Z'",
    "o.big = p.big AND p.note IS NULL",
    "o.big = p.big AND p.words IS NOT NULL",
    "o.big = p.big AND p.words LIKE 'a%'",
    "o.big = p.big AND p.words NOT LIKE '%\\_%'",
    "o.big = p.big AND p.words ILIKE 'É%'",
    "o.big = p.big AND (p.small = 1 OR p.words = 'a')",
    "o.big = p.big AND NOT (p.flag AND p.small > 2)",
    "o.big = p.big AND p.flag IS NOT TRUE",
    "o.big = p.big AND p.flag",
    "o.big = p.big AND p.day > DATE '1970-01-01'",
    "o.big = p.big AND p.at <= TIMESTAMPTZ '2024-03-31 01:30:00+01'",
    "o.big = p.big AND p.ratio > 0.5",
    "o.big = p.big AND p.ratio IN (0, 1.5, 0.1)",
    "o.big = p.big AND p.ratio BETWEEN 0 AND p.price",
    "o.big = p.big AND p.ratio >= 0",
    "o.big = p.big AND p.ref <> 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "o.big = p.big AND p.big - p.small > 0",
    "o.big = p.big AND length(p.words) > 3",
    "o.big = p.big AND p.words = p.code",
    "o.big = p.big AND p.words IS DISTINCT FROM p.code",
    "o.big = p.big AND p.words IN ('C:\\new', '; DROP TABLE people; --', '$1', '\"')",
    // Conditions on the stream alone.
    "o.big = p.big AND o.flag",
    "o.big = p.big AND o.small > 2 AND o.words IS NOT NULL",
    "o.big = p.big AND (o.code IS NULL OR o.price > 1)",
    // Conditions on both.
    "o.big = p.big AND o.small < p.small",
    "o.big = p.big AND o.words <> p.words",
    "o.big = p.big AND o.ratio = p.ratio",
    "o.big = p.big AND o.ratio >= p.ratio",
    "o.big = p.big AND o.price + p.price > 3",
    "o.big = p.big AND (o.flag OR p.flag)",
    "o.big = p.big AND coalesce(p.note, o.words) LIKE '%a%'",
    "o.big = p.big AND o.words IS NOT DISTINCT FROM p.words",
];

/// Whole queries. The first column tells the order of arrival.
pub const QUERIES: &[&str] = &[
    // USING.
    "SELECT o.n, * FROM orders AS o LOOKUP JOIN people AS p USING (big)",
    "SELECT o.n, * FROM orders AS o LEFT LOOKUP JOIN people AS p USING (big)",
    "SELECT o.n, o.n, n, * FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big",
    "SELECT n, small, flag, o.flag, p.flag, id FROM orders AS o LOOKUP JOIN people AS p USING (small, flag)",
    "SELECT n, flag, small, o.small, p.small, id FROM orders AS o LEFT LOOKUP JOIN people AS p USING (flag, small)",
    // All columns, no column, columns that are all NULL.
    "SELECT o.*, p.* FROM orders AS o LEFT LOOKUP JOIN people AS p ON p.words = o.words",
    "SELECT o.n FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big",
    "SELECT o.n FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big AND p.small > 2",
    "SELECT o.n, p.blank FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big",
    "SELECT o.n, p.blank IS NULL, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big AND p.blank IS NULL",
    // Conditions of INNER: on the stream, on the table, on both.
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND o.flag AND p.small IN (1, 2)",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND p.words LIKE '%a%' AND NOT p.flag",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND (o.small < p.small OR p.words < o.words)",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND (p.small = 1 OR p.note IS NULL)",
    // A gate that lets nobody through, a key that nobody has.
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big AND 1 = 2",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON p.big = NULL",
    // WHERE: on the table, on the stream, on both; where it makes LEFT an INNER, and where it does not.
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.small = 2",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.words <> 'a'",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.id IS NULL",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.note IS NULL AND o.flag",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE coalesce(p.small, 1) = 1",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.flag IS NOT TRUE",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE p.small < 3 OR o.small < 3",
    "SELECT o.n, p.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big WHERE NOT (p.words LIKE 'a%')",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big WHERE p.words LIKE '%a%' OR o.words = 'a'",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.words = p.words WHERE o.small IN (1, 2) AND p.small > 1",
    "SELECT o.n, p.id FROM orders AS o LOOKUP JOIN people AS p ON o.words = p.words WHERE p.big = 3",
    // Expressions over joined columns.
    "SELECT o.n, CASE WHEN p.id IS NULL THEN 'none' WHEN p.price > o.price THEN 'more' ELSE p.words END \
     FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big",
    "SELECT o.n, o.price + p.price, o.big - p.small, p.words || o.words, p.price > o.price, upper(p.note) \
     FROM orders AS o LOOKUP JOIN people AS p ON o.small = p.small AND p.id < 20",
    // Chains, and a table that is there twice.
    "SELECT o.n, p.id, q.id, q.name FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND p.small < 4 \
     LOOKUP JOIN places AS q ON p.code = q.code",
    "SELECT o.n, p.id, q.id, q.name FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.ref = p.ref AND p.id < 30 \
     LEFT LOOKUP JOIN places AS q ON q.code = p.code AND q.small = o.small",
    "SELECT o.n, p.id, q.id, r.id FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.big = p.big AND p.id < 20 \
     LEFT LOOKUP JOIN places AS q ON q.words = coalesce(p.words, o.words) AND q.id < 20 \
     LEFT LOOKUP JOIN people AS r ON r.small = q.small AND r.id < p.id WHERE q.flag IS NOT FALSE",
    "SELECT o.n, p.id, r.id FROM orders AS o LOOKUP JOIN people AS p ON o.big = p.big AND p.flag \
     LOOKUP JOIN people AS r ON r.words = p.words WHERE r.id <> p.id",
    "SELECT n, p.id, name FROM orders AS o LOOKUP JOIN people AS p USING (big) LEFT LOOKUP JOIN places AS q USING (big)",
    // Other relations on the left.
    "SELECT o.n, o.k, p.id FROM (VALUES (1, 3), (2, 5), (3, NULL), (4, 3), (5, 77)) AS o (n, k) \
     LEFT LOOKUP JOIN people AS p ON p.big = o.k",
    "SELECT o.n, o.k, p.id, p.words FROM (VALUES (1, 'a'), (2, 'it''s'), (3, '\\N'), (4, ''), (5, '$1')) AS o (n, k) \
     LEFT LOOKUP JOIN people AS p ON p.words = o.k",
    "SELECT o.n, o.twice, p.id FROM (SELECT n, big * 2 AS twice, flag FROM orders WHERE small > 1) AS o \
     LOOKUP JOIN people AS p ON o.twice = p.big WHERE o.flag",
    "SELECT o.n, p.id FROM late_orders AS o LEFT LOOKUP JOIN people AS p ON o.day = p.day WHERE o.n > 120",
    "WITH o AS (SELECT n, lower(words) AS word FROM orders) SELECT o.n, p.id FROM o LOOKUP JOIN people AS p ON p.words = o.word",
    "SELECT j.n, j.id, q.id FROM (SELECT o.n, p.id, p.code FROM orders AS o LOOKUP JOIN people AS p ON o.at = p.at) AS j \
     LEFT LOOKUP JOIN places AS q ON q.code = j.code",
    "SELECT j.n, j.id FROM (SELECT o.n, p.id, p.flag FROM orders AS o LEFT LOOKUP JOIN people AS p ON o.raw = p.raw) AS j \
     WHERE j.flag",
];

/// Reads of the lookup tables outside of lookup joins, in any order.
pub const READS: &[&str] = &[
    // By key, of each type.
    "SELECT * FROM people AS p WHERE big = 3",
    "SELECT * FROM people AS p WHERE 3 = p.big OR p.big IN (4, 5) OR p.big = 3",
    "SELECT id, big FROM people AS p WHERE big IN (3, NULL, 3, 10, 2147483648)",
    "SELECT id, small FROM people AS p WHERE small IN (3, 5000000000)",
    "SELECT id, small FROM people AS p WHERE small = 3.0 OR small = 2.5",
    "SELECT id, words FROM people AS p WHERE words IN ('a', 'A', 'a ', 'it''s', '$1', '\\')",
    "SELECT id, code FROM people AS p WHERE code IN ('a', 'a  ', '')",
    "SELECT id, price FROM people AS p WHERE price IN (1.5, 1.50, 12.345, 0.00001)",
    "SELECT id, ratio FROM people AS p WHERE ratio IN (0, '-0', 'NaN', 'Infinity', 0.1)",
    "SELECT id, day FROM people AS p WHERE day IN ('1970-01-01', DATE '9999-12-31')",
    "SELECT id, day FROM people AS p WHERE day = TIMESTAMP '1970-01-01 00:00:00'",
    "SELECT id, at FROM people AS p WHERE at IN ('2024-03-31 00:30:00+00', TIMESTAMPTZ '2024-03-31 02:30:00+02')",
    "SELECT id, ref FROM people AS p WHERE ref IN ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')",
    "SELECT id, raw FROM people AS p WHERE raw IN ('\\xdead', CAST('\\x00' AS bytea))",
    "SELECT id, flag FROM people AS p WHERE flag = true AND big = 3",
    "SELECT id, flag FROM people AS p WHERE NOT flag",
    // Several columns, and conditions beside them.
    "SELECT id, big, small FROM people AS p WHERE big IN (1, 2, 3, 4, 5) AND small IN (1, 2, 3)",
    "SELECT id FROM people AS p WHERE big IN (1, 2, 3, 4, 5) AND small > 1 AND words LIKE '%a%'",
    "SELECT id FROM people AS p WHERE big = 3 AND big = small",
    "SELECT id FROM people AS p WHERE big = 3 AND note IS NULL",
    "SELECT name FROM places AS q WHERE id IN (1, 2, 3) ORDER BY name LIMIT 2",
    // Whole, with conditions for the store and for us.
    "SELECT * FROM people AS p",
    "SELECT 1 FROM people AS p",
    "SELECT count(*), sum(big), max(price) FROM people AS p",
    "SELECT flag, count(*), sum(small) FROM people AS p WHERE small > 1 GROUP BY flag",
    "SELECT id FROM people AS p WHERE words LIKE '%a%' AND small < 4",
    "SELECT id, words FROM people AS p WHERE length(words) > 3 OR flag IS NULL",
    "SELECT id FROM people AS p WHERE big NOT IN (1, 2, 3)",
    "SELECT id FROM people AS p ORDER BY id DESC LIMIT 5 OFFSET 2",
    "SELECT DISTINCT words FROM people AS p WHERE small = 2 OR big = 3",
    "SELECT p.id, q.id FROM people AS p JOIN places AS q ON p.big = q.big",
    "SELECT p.id, q.id FROM people AS p LEFT JOIN places AS q ON p.words = q.words AND q.flag WHERE p.small IN (1, 2)",
    "SELECT p.id, q.id FROM people AS p LOOKUP JOIN places AS q ON p.words = q.words WHERE p.small IN (1, 2)",
    "SELECT id FROM people AS p WHERE EXISTS (SELECT 1 FROM places AS q WHERE q.big = p.big)",
    "SELECT id FROM people AS p WHERE big = (SELECT max(q.big) FROM places AS q WHERE q.small = 2)",
    "SELECT o.n FROM orders AS o WHERE o.big IN (SELECT p.big FROM people AS p WHERE p.flag)",
];
