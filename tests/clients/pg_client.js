// node-postgres with pg-cursor, pg-query-stream and pg-copy-streams: parameters, prepared statements, four ways to stream, a pool.
const { Client, Pool, Query } = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const { assert, check, finish, settings, secured, ERRORS, STREAM, VALUES } = require('./check.js');

async function connect(options = {}) {
  const client = new Client({ ...settings(), ...options });
  client.on('error', () => {});
  await client.connect();
  return client;
}

// A check with a client of its own, which serves on after whatever was done with it.
function withClient(run) {
  return async () => {
    const client = await connect();
    try {
      await run(client);
      assert.deepStrictEqual((await client.query('SELECT CAST(1 AS int) AS one')).rows, [{ one: 1 }]);
    } finally {
      await client.end();
    }
  };
}

// pg has no cancel of its own that waits for nothing: another connection asks for it.
async function cancel(client) {
  const other = await connect();
  await other.query('SELECT pg_cancel_backend($1)', [client.processID]);
  await other.end();
}

check('parameters_and_results_keep_their_values', withClient(async (client) => {
  await client.query("SET TimeZone TO 'UTC'");
  for (const [type, value, expected = value] of VALUES) {
    const { rows } = await client.query(`SELECT CAST($1 AS ${type}) AS v`, [value]);
    assert.deepStrictEqual(rows[0].v, expected, type);
  }
  assert.deepStrictEqual((await client.query('SELECT CAST($1 AS bigint[]) AS v', [[1, null]])).rows[0].v, ['1', null]);
  assert.strictEqual((await client.query('SELECT CAST($1 AS text) AS v', [null])).rows[0].v, null);
  const binary = await client.query({ text: 'SELECT CAST($1 AS int) + 1 AS v', values: [41], binary: true });
  assert.strictEqual(Number(binary.rows[0].v), 42);
}));

check('prepared_statements_are_run_again', withClient(async (client) => {
  for (const value of [1, 2, 3]) {
    const { rows } = await client.query({ name: 'again', text: 'SELECT CAST($1 AS int) AS v', values: [value] });
    assert.strictEqual(rows[0].v, value);
  }
}));

check('rows_come_as_events_and_cancel_ends_them', withClient(async (client) => {
  const seen = [];
  const ended = new Promise((resolve, reject) => {
    const query = client.query(new Query(STREAM));
    query.on('row', (row) => { if (seen.push(row.order_id) === 3) cancel(client).catch(reject); });
    query.on('error', resolve);
    query.on('end', () => reject(new Error('the stream has ended without an error')));
  });
  assert.strictEqual((await ended).code, '57014');
  assert.deepStrictEqual(seen.slice(0, 3), [1, 2, 3]);
}));

check('rows_stream_by_cursor', withClient(async (client) => {
  const cursor = client.query(new Cursor(STREAM));
  for (const expected of [1, 2, 3]) assert.deepStrictEqual((await cursor.read(1)).map((row) => row.order_id), [expected]);
  await cursor.close();
}));

check('rows_stream_by_query_stream', withClient(async (client) => {
  const seen = [];
  for await (const row of client.query(new QueryStream(STREAM, [], { batchSize: 1, highWaterMark: 1 }))) {
    if (seen.push(row.order_id) === 3) break;
  }
  assert.deepStrictEqual(seen, [1, 2, 3]);
}));

check('rows_are_copied_in_and_out', async () => {
  const [reader, writer] = [await connect(), await connect()];
  try {
    await pipeline(Readable.from(['1,one\n2,\n']), writer.query(copyFrom('COPY inbox FROM STDIN (FORMAT csv)')));
    const copy = reader.query(copyTo("COPY (SELECT id, note FROM inbox WITH (start = 'earliest')) TO STDOUT (FORMAT csv)"));
    copy.on('error', () => {});
    let text = '';
    // The stream goes on: these two rows come though nothing follows them.
    for await (const data of copy) if ((text += data).endsWith('2,\n')) break;
    assert.strictEqual(text, '1,one\n2,\n');
  } finally {
    reader.connection.stream.destroy();
    await writer.end();
  }
});

check('errors_have_their_codes_and_transactions_fail', withClient(async (client) => {
  for (const [sql, code] of ERRORS) await assert.rejects(client.query(sql), { code }, sql);
  await client.query('BEGIN');
  await assert.rejects(client.query('SELEKT'), { code: '42601' });
  await assert.rejects(client.query('SELECT 1'), { code: '25P02' });
  await client.query('ROLLBACK');
  const results = await client.query('SELECT CAST(1 AS int) AS v; SELECT CAST(2 AS int) AS v');
  assert.deepStrictEqual(results.map((result) => result.rows), [[{ v: 1 }], [{ v: 2 }]]);
}));

check('pool_serves_many_at_once', async () => {
  const pool = new Pool({ ...settings(), max: 4 });
  const numbers = [...Array(20).keys()];
  const found = await Promise.all(numbers.map((number) => pool.query('SELECT CAST($1 AS int) AS v', [number])));
  assert.deepStrictEqual(found.map((result) => result.rows[0].v), numbers);
  await pool.end();
});

if (secured) {
  check('wrong_password_is_refused_and_not_shown', () => assert.rejects(connect({ password: 'not the one' }), (error) =>
    error.code === '28P01' && !error.message.includes('not the one')));
}

finish();
