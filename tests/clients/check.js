// What the checks in JavaScript share: a line a check, and where the server is, in the variables of libpq (see check.py).
const assert = require('node:assert');
const fs = require('node:fs');

// Rows of this come for ever, twenty a second, each far smaller than any buffer.
const STREAM = 'SELECT CAST(order_id AS int) AS order_id, amount FROM orders';
const LIMIT_MS = 120_000;
const MOMENT = '2024-02-29 12:34:56.789';

// Type, value as a parameter, value as it comes back; where it is not said, the same.
const VALUES = [
  ['boolean', true],
  ['int', -7],
  ['bigint', '9007199254740993'],
  ['real', 1.5],
  ['double precision', 1.1],
  ['numeric(12,4)', '-12345.6700'],
  ['text', "héllo ✓ o'brien; --"],
  ['bytea', Buffer.from([0, 255, 16])],
  ['date', '2024-02-29', new Date(2024, 1, 29)],
  ['timestamp', MOMENT, new Date('2024-02-29T12:34:56.789')],
  ['timestamptz', `${MOMENT}+00`, new Date('2024-02-29T12:34:56.789Z')],
  ['uuid', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  ['jsonb', { a: [1, null] }],
];

const ERRORS = [
  ['SELEKT 1', '42601'],
  ['SELECT * FROM nothing', '42P01'],
  ['SELECT nobody', '42703'],
  ['SELECT 1 / CAST(0 AS int)', '22012'],
  ["SELECT CAST('abc' AS int)", '22P02'],
];

const checks = [];

// Checks run one after another, in the order in which they are declared.
function check(name, run) {
  checks.push([name, run]);
}

async function finish() {
  setTimeout(() => { console.log(`FAILED: not done after ${LIMIT_MS} ms`); process.exit(1); }, LIMIT_MS).unref();
  let failed = 0;
  for (const [name, run] of checks) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}: ${error.stack}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

// The TLS that PGSSLMODE asks for; false without.
function tls() {
  const mode = process.env.PGSSLMODE ?? 'disable';
  if (mode === 'disable') return false;
  if (mode !== 'verify-full') return { rejectUnauthorized: false };
  return { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8'), host: process.env.PGHOST };
}

function settings() {
  const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database, PGPASSWORD: password } = process.env;
  return { host, port: Number(port), user, database, password, ssl: tls() };
}

module.exports = { assert, check, finish, settings, secured: 'PGPASSWORD' in process.env, ERRORS, STREAM, VALUES };
