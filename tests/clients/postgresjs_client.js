// postgres.js: its own questions about types, cursors, rows one by one, cancel, transactions.
const postgres = require('postgres');
const { assert, check, finish, settings, secured, ERRORS, STREAM, VALUES } = require('./check.js');

function connect(options = {}) {
  return postgres({ ...settings(), max: 1, onnotice() {}, ...options });
}

// A check with a client of its own, which serves on after whatever was done with it.
function withClient(run) {
  return async () => {
    const sql = connect();
    try {
      await run(sql);
      assert.strictEqual((await sql`SELECT CAST(1 AS int) AS one`)[0].one, 1);
    } finally {
      await sql.end({ timeout: 1 });
    }
  };
}

check('parameters_and_results_keep_their_values', withClient(async (sql) => {
  await sql`SET TimeZone TO 'UTC'`;
  for (const [type, value, expected = value] of VALUES) {
    // A date without a time is midnight UTC to this driver.
    const found = (await sql.unsafe(`SELECT CAST($1 AS ${type}) AS v`, [value]))[0].v;
    const wanted = type === 'date' ? new Date('2024-02-29T00:00:00Z') : expected;
    assert.deepStrictEqual(found, wanted, type);
  }
}));

check('arrays_whose_types_it_asks_for_keep_their_values', withClient(async (sql) => {
  assert.deepStrictEqual((await sql`SELECT CAST(${[1, 2]} AS int[]) AS v`)[0].v, [1, 2]);
  assert.deepStrictEqual((await sql`SELECT CAST(${['a', 'b "c"']} AS text[]) AS v`)[0].v, ['a', 'b "c"']);
}));

check('rows_stream_by_cursor', withClient(async (sql) => {
  const seen = [];
  for await (const [row] of sql.unsafe(STREAM).cursor(1)) if (seen.push(row.order_id) === 3) break;
  assert.deepStrictEqual(seen, [1, 2, 3]);
}));

check('rows_come_one_by_one_and_cancel_ends_them', async () => {
  const sql = connect();
  const seen = [];
  const query = sql.unsafe(STREAM);
  await assert.rejects(query.forEach((row) => { if (seen.push(row.order_id) === 3) query.cancel(); }), { code: '57014' });
  assert.deepStrictEqual(seen.slice(0, 3), [1, 2, 3]);
  await sql.end({ timeout: 1 });
});

check('rows_go_in_by_insert', withClient(async (sql) => {
  const rows = [{ id: 1, note: 'one' }, { id: 2, note: null }];
  assert.strictEqual((await sql`INSERT INTO inbox ${sql(rows, 'id', 'note')}`).count, 2);
}));

check('transactions_commit_and_roll_back', withClient(async (sql) => {
  assert.strictEqual(await sql.begin(async (inner) => (await inner`SELECT CAST(1 AS int) AS v`)[0].v), 1);
  await assert.rejects(sql.begin((inner) => inner`SELEKT`), { code: '42601' });
}));

check('errors_have_their_codes', withClient(async (sql) => {
  for (const [text, code] of ERRORS) await assert.rejects(sql.unsafe(text), { code }, text);
}));

if (secured) {
  check('wrong_password_is_refused_and_not_shown', () => assert.rejects(connect({ password: 'not the one' })`SELECT 1`, (error) =>
    error.code === '28P01' && !error.message.includes('not the one')));
}

finish();
